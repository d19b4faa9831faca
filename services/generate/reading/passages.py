"""The passages an answer is written from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Passage:
    """One retrieved chunk, numbered as it is cited.

    n: from 1. id: the chunk's, ``document#n``. url: the document's own, or None. score: as the desk
    shows it, 0..1, best first.
    """

    n: int
    id: str
    document_id: str
    corpus: str
    title: str | None
    url: str | None
    text: str
    score: float

    @property
    def address(self) -> str:
        """Where a reader finds it: the document's URL, else ``refdesk://corpus/chunk-id``."""
        return self.url or f"refdesk://{self.corpus}/{self.id}"


@dataclass(frozen=True)
class Signals:
    """What the search says about how well it found the question; see the desk's own docs.

    top_score, margin, agreement, coverage: 0..1. documents: distinct documents among the hits.
    """

    top_score: float = 0.0
    margin: float = 0.0
    agreement: float = 0.0
    coverage: float = 0.0
    documents: int = 0
