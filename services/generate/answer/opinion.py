"""What the learned router makes of a question, with the librarian's vector of it."""

import numpy as np

from services.generate.peers.librarian import Librarian
from services.generate.routing.learned.features import canonical
from services.generate.routing.learned.model import Opinion, RouterModel
from shared.errors import ApiError


async def opinion(router: RouterModel, librarian: Librarian, question: str) -> Opinion:
    """The router's opinion of a question.

    Raises ApiError where embed is no help, and 502 `model_mismatch` where it serves another model
    than the one that the router was trained with.
    """
    text = canonical(question)
    embedded = await librarian.embed(text)
    if embedded.model != router.embedder or embedded.unit.size != len(router.vector):
        what = f"the router reads vectors of {router.embedder}, and embed serves {embedded.model}"
        raise ApiError(502, "model_mismatch", f"{what}: train it again")
    odds = router.log_odds([text], embedded.unit[np.newaxis, :])
    return router.opinion(float(odds[0]))
