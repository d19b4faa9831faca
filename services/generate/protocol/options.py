"""Our extension `refdesk` of a request."""

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from services.generate.protocol.base import Own

_CORPUS_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


def _names_a_corpus(value: str) -> str:
    if not re.fullmatch(_CORPUS_NAME, value):
        raise ValueError(
            "can't be the name of a corpus: it has 1 to 63 small letters, digits, '-' and '_', the "
            "first a letter or digit"
        )
    return value


CorpusName = Annotated[
    str, AfterValidator(_names_a_corpus), Field(json_schema_extra={"pattern": _CORPUS_NAME})
]


class Options(Own):
    """Our extension of the request: where to look, how much to read, and who may write.

    corpora: names, default is the service's setting or else every corpus that the caller may read.
    top_k: passages. max_tokens: budget of all passages together, in tokens of the desk's embedder.
    curate: whether the curator reorders the candidates; None: as the corpora say.
    data_class: of the question, by the policy's names; the strictest of this, what is found in the
    texts, the corpora's and the default one counts. flagged: the question is complex, whatever it
    looks like. tiers: those that may write, None for all.
    budget_nano_dollars: what the answer may cost at most. cache: False for an answer that is
    written anew, and not kept for others. source_events: whether a streamed chat tells Open WebUI
    of its passages; None: as the service's setting says.
    """

    model_config = ConfigDict(strict=True)  # as the request around it

    corpora: Annotated[list[CorpusName], Field(min_length=1, max_length=16)] | None = None
    top_k: Annotated[int, Field(ge=1, le=50)] = 5
    max_tokens: Annotated[int, Field(ge=32, le=100_000)] = 1200
    curate: bool | None = None
    data_class: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    flagged: bool = False
    tiers: Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    budget_nano_dollars: Annotated[int, Field(ge=0, le=10**15)] | None = None
    cache: bool = True
    source_events: bool | None = None
