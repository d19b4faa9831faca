"""What a generation that is being built still lacks of the live one.

There is no log of changes to replay: the documents of both generations, as they are, say what is
missing, what is out of date and what was deleted meanwhile. So a build that was interrupted goes on
from whatever it has, a deleted document can't come back, and a former generation is caught up like
a new one, however often two of them took turns.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.retrieve.stores.state import Revision


@dataclass(frozen=True, slots=True)
class Difference:
    """copy: ids of documents to copy from the live generation; delete: ids to delete in the other
    one. Both ascending."""

    copy: list[str]
    delete: list[str]

    def __len__(self) -> int:
        return len(self.copy) + len(self.delete)


def difference(live: Iterable[Revision], dark: Iterable[Revision]) -> Difference:
    """What has to be done to the dark generation so that it holds the documents of the live one.

    Both lists are by ascending id, as `CorpusStore.revisions` gives them. A copy keeps the content
    hash, version and time of a document, and two documents that agree in these are the same:
    whichever of them was made from the other, or both from a third.
    """
    found = Difference([], [])
    for wanted, there in _pairs(live, dark):
        if wanted is None:
            assert there is not None  # noqa: S101 - a pair has one of them at least
            found.delete.append(there.id)
        elif there is None or _state(wanted) != _state(there):
            found.copy.append(wanted.id)
    return found


def _state(one: Revision) -> tuple[str, int, str]:
    return one.content_hash, one.version, one.updated_at


def _pairs(
    left: Iterable[Revision], right: Iterable[Revision]
) -> Iterator[tuple[Revision | None, Revision | None]]:
    """The documents of two lists by id, None where one of them has none of that id."""
    lefts, rights = iter(left), iter(right)
    one, other = next(lefts, None), next(rights, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.id < other.id):
            yield one, None
            one = next(lefts, None)
        elif one is None or other.id < one.id:
            yield None, other
            other = next(rights, None)
        else:
            yield one, other
            one, other = next(lefts, None), next(rights, None)
