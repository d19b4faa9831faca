"""Where corpora live: folders of this machine, or Qdrant; and how a generation follows another.

A corpus has one live generation, and may have a dark one, which a reindex builds, and a previous
one, kept for rollback. Each is a `CorpusStore`. What an engine does to generations is atomic and
durable before it returns: a process that dies at any point leaves either the state of before or
that of after, and whatever else is left on the disk or the server goes when the engine is opened
next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusInfo, CorpusSpec, ModelStamp
from shared.errors import ApiError


@dataclass(frozen=True)
class Cut:
    """How a generation is made: what it holds beside the documents themselves.

    spec.name is the corpus's. sparse: whether its chunks have sparse vectors. analyser: what made
    its terms; one that is to be made is always made by this refdesk's.
    """

    spec: CorpusSpec
    stamp: ModelStamp
    chunker: str
    sparse: bool = False
    analyser: str = ANALYSER

    @classmethod
    def of(cls, info: CorpusInfo) -> "Cut":
        """How a generation that is there was made."""
        spec = CorpusSpec(
            name=info.name,
            description=info.description,
            language=info.language,
            chunk_tokens=info.chunk_tokens,
            chunk_overlap=info.chunk_overlap,
            curate=info.curate,
            recency=info.recency,
            readers=info.readers,
        )
        return cls(spec, info.stamp, info.chunker, info.sparse, info.analyser)


@dataclass(frozen=True)
class Generation:
    """A generation of a corpus, for people. until: when the previous one is forgotten."""

    number: int
    state: Literal["live", "dark", "previous"]
    cut: Cut
    documents: int
    chunks: int
    made_at: datetime
    until: datetime | None = None


def made_meanwhile(name: str) -> ApiError:
    """The error for a corpus that shall be the first of its name, and is not: 409."""
    return ApiError(
        409,
        "corpus_exists",
        f"corpus '{name}' was made meanwhile: look at it with GET /corpora/{name}, or take another "
        "name",
    )


class Engine(Protocol):
    """One kind of store. Methods are synchronous and may be called from any thread; those about one
    corpus are not called side by side. All raise what `CorpusStore` does."""

    def names(self) -> list[str]:
        """The corpora that have a live generation here, damaged ones too."""
        ...

    def open(self, name: str) -> CorpusStore:
        """The live generation. Raises ApiError 500 `corpus_damaged` and its like."""
        ...

    def create(self, cut: Cut) -> CorpusStore:
        """A new corpus with an empty live generation, 1."""
        ...

    def delete(self, name: str) -> None:
        """Remove a corpus with all its generations; damaged ones, too."""
        ...

    def dark(self, name: str) -> CorpusStore | None:
        """The generation that is being built, if there is one: also one that a process left which
        died."""
        ...

    def build(self, cut: Cut, above: int = 0) -> CorpusStore:
        """A new, empty dark generation in the place of any other dark one; the live one, if this
        engine has it, stays. Its number is above all of the corpus's here and above `above`."""
        ...

    def discard(self, name: str) -> None:
        """Remove the dark generation; no harm where there is none."""
        ...

    def swap(self, name: str, keep_until: datetime | None) -> None:
        """The dark generation becomes the live one and the live one the previous one, in one step;
        a former previous one goes. To be called while the live store is sealed.

        keep_until: None where there must be no live one, so that none is retired that came
        meanwhile; raises ApiError 409 `corpus_exists` where one did.

        The new one's count of writes goes on above the old one's. Where the live one is in another
        engine there is none here to become the previous one: of two engines that have a corpus, the
        one with the higher generation has its live one. Raises ApiError 409
        `no_dark_generation` where there is none.
        """
        ...

    def step_down(self, name: str, keep_until: datetime) -> None:
        """The live generation becomes the previous one, with no other in its place: another engine
        has the live one now. No harm where there is no live one here."""
        ...

    def revive(self, name: str, above: int = 0) -> CorpusStore:
        """Make the previous generation the dark one, to be caught up and swapped: a rollback.

        It gets a new number, above all of the corpus's here and above `above`, as every generation
        that may go live. Raises ApiError 409 `no_previous_generation` where there is none.
        """
        ...

    def shelve(self, name: str, keep_until: datetime) -> None:
        """The dark generation becomes the previous one: a rollback that is called off. No harm
        where there is no dark one; a former previous one goes."""
        ...

    def forget(self, name: str, now: datetime) -> bool:
        """Remove the previous generation if its time is over; whether it was."""
        ...

    def generations(self, name: str) -> Sequence[Generation]:
        """All generations of a corpus, by ascending number."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
