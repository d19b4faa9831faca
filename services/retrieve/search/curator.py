"""rerank, as a search needs it: the curator's view of the first candidates.

Nothing that comes back is believed unseen: a score that is missing, or none, raises ApiError 502
like any other answer that is not what it should be.
"""

from collections.abc import Sequence

from shared.client import ServiceClient
from shared.errors import ApiError


class Curator:
    """rerank, as a search needs it."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def relevance(self, query: str, documents: Sequence[str]) -> list[float]:
        """The curator's score of each document, 0..1, in the order given; equal texts go once.

        Raises ApiError: 502 unless every document has exactly one finite score in 0..1, else what
        the client raises.
        """
        texts = list(dict.fromkeys(documents))
        answer = await self._client.post("/rerank", {"query": query, "documents": texts})
        scores: dict[int, float] = {}
        try:
            for result in answer["results"]:
                score = result["relevance_score"]
                if type(score) not in (int, float) or not 0.0 <= score <= 1.0:
                    raise _rubbish("a score that is not in 0..1")
                scores[result["index"]] = float(score)
        except (KeyError, TypeError):
            raise _rubbish("something that is not a list of scores") from None
        if len(answer["results"]) != len(texts) or scores.keys() != set(range(len(texts))):
            raise _rubbish("scores that do not match the documents one to one")
        by_text = {text: scores[place] for place, text in enumerate(texts)}
        return [by_text[document] for document in documents]

    async def ask(self) -> None:
        """Raise ApiError unless rerank answers now."""
        await self._client.get("/info")


def _rubbish(what: str) -> ApiError:
    return ApiError(502, "bad_upstream", f"rerank answered {what}")
