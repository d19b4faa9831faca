"""What a corpus is: its settings, its stamp, its preferences and counts."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.retrieve.stores.analysis import ANALYSER

CORPUS_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

EngineName = Literal["local", "qdrant"]


@dataclass(frozen=True)
class ModelStamp:
    """The embedding model that made a corpus's vectors: name, weights' revision, dimension."""

    model: str
    revision: str
    dimension: int

    def holds(self, other: "ModelStamp") -> bool:
        """Whether the vectors of the other one are the first numbers of this one's, or all."""
        same = (self.model, self.revision) == (other.model, other.revision)
        return same and self.dimension >= other.dimension


@dataclass(frozen=True)
class RecencyDefault:
    """How a corpus prefers what is recent where a search does not say. `field`: the metadata that
    holds the date, None for when the document was written."""

    half_life_days: float
    weight: float = 1.0
    field: str | None = None


@dataclass(frozen=True)
class Preferences:
    """`curate` is whether a search that does not say curates. `readers` are the keys and groups
    that may read the corpus at all; None: whoever's key names it."""

    description: str = ""
    curate: bool = True
    recency: RecencyDefault | None = None
    readers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CorpusSpec:
    """What the owner of a corpus chooses when it is created; but for the preferences among it only
    a reindex changes it.

    `language` is an ISO 639-1 code and picks the analyser of the words; `chunk_tokens` bounds what
    is sent to the embedder for one chunk (title line and special tokens included), `chunk_overlap`
    is the number of tokens that two neighbouring chunks may share. `curate` is whether a search
    that does not say curates; None: yes, and whatever a corpus says that is there already.
    """

    name: str
    description: str = ""
    language: str = "en"
    chunk_tokens: int = 256
    chunk_overlap: int = 32
    curate: bool | None = None
    recency: RecencyDefault | None = None
    readers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CorpusInfo:
    """A corpus as it is now. `chunker` names the method and version that cut its chunks, `sparse`
    is whether they have sparse vectors. `generation` counts from 1 and rises with each swap,
    `engine` is the kind of store that holds it. `writes` never falls, swaps included. `analyser`
    names how texts became the terms of its word index, or is empty where not all did alike."""

    name: str
    description: str
    language: str
    model: str
    revision: str
    dimension: int
    chunk_tokens: int
    chunk_overlap: int
    curate: bool
    chunker: str
    documents: int
    chunks: int
    writes: int
    created_at: datetime
    sparse: bool = False
    recency: RecencyDefault | None = None
    readers: tuple[str, ...] | None = None
    generation: int = 1
    engine: EngineName = "local"
    analyser: str = ANALYSER

    @property
    def stamp(self) -> ModelStamp:
        """The model whose vectors this corpus holds."""
        return ModelStamp(self.model, self.revision, self.dimension)
