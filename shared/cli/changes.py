"""Which documents have to be sent: their bytes are hashed here and compared by the desk."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shared.cli.failures import RefusedError
from shared.cli.http import Api, corpus_path
from shared.cli.patience import patiently
from shared.cli.sources import READ_FAULTS, Entry, Failure, reason_of, too_large

# Of one question to the desk. It takes 10,000 documents; with fewer the first ones are on their way
# while the next are hashed.
_PAGE_DOCUMENTS = 2000
_PAGE_BYTES = 64 * 1024 * 1024
_BLOCK = 1024 * 1024
_THREADS = 4  # hashing and reading release the interpreter
_MOST_FAULTS = 32  # that are looked for in a page, one question each
_AT_FAULT = re.compile(r"documents\.(\d+)(?:\.|$)")


@dataclass(frozen=True)
class _Seen:
    """What tells whether a file is as it was when it was hashed."""

    changed_ns: int
    size: int
    number: int


@dataclass
class Hashes:
    """SHA-256 of files, in hex, each made again where the file has changed since."""

    _known: dict[Path, tuple[_Seen, str]] = field(default_factory=dict)

    def of(self, entry: Entry) -> str:
        """Of a document's bytes. Raises one of `READ_FAULTS`; ValueError for too large a one."""
        if entry.path is None:
            return _hash(entry)
        status = entry.path.stat()
        seen = _Seen(status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._known.get(entry.path)
        if known is None or known[0] != seen:
            known = self._known[entry.path] = (seen, _hash(entry))
        return known[1]


def _hash(entry: Entry) -> str:
    found = hashlib.sha256()
    size = 0
    with entry.open() as file:
        while block := file.read(_BLOCK):
            size += len(block)
            if size > entry.most:  # it has grown since it was found
                raise ValueError(too_large(size, entry.most))
            found.update(block)
    return found.hexdigest()


class Comparison:
    """Compares documents with those of a corpus. A context manager: leaving it ends its threads.

    there: whether there is such a corpus; without one everything has changed. say: told why it
    does not go on.
    """

    def __init__(
        self,
        api: Api,
        corpus: str,
        hashes: Hashes,
        say: Callable[[str], None],
        *,
        there: bool = True,
    ) -> None:
        self._api = api
        self._corpus = corpus
        self._hashes = hashes
        self._say = say
        self._there = there
        self._threads = ThreadPoolExecutor(_THREADS, "hash")

    def __enter__(self) -> "Comparison":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def changed(
        self,
        documents: Iterable[Entry],
        *,
        unchanged: Callable[[Entry], None],
        failed: Callable[[Failure], None],
    ) -> Iterator[Entry]:
        """Those that are not stored as they are, in order, a page at a time.

        unchanged, failed: told of each of the others. Raises CliError.
        """
        for page in _pages(documents):
            states: list[dict[str, Any]] = []
            asked: list[Entry] = []
            untold: set[str] = set()
            for entry, state in zip(page, self._threads.map(self._state, page), strict=True):
                if isinstance(state, Failure):
                    failed(state)
                    continue
                asked.append(entry)
                if state is None:
                    untold.add(entry.id)
                else:
                    states.append(state)
            changed = untold | self._ask(states)
            for entry in asked:
                if entry.id in changed:
                    yield entry
                else:
                    unchanged(entry)

    def _state(self, entry: Entry) -> dict[str, Any] | Failure | None:
        """What to compare; None where only the desk itself can tell what the document is."""
        if entry.state is not None:
            return {"id": entry.id, **entry.state} if entry.state else None
        try:
            return {"id": entry.id, "sha256": self._hashes.of(entry)}
        except READ_FAULTS as error:
            return Failure(entry.source, reason_of(error), entry.size, entry.id)
        except ValueError as error:
            return Failure(entry.source, str(error), entry.size, entry.id)

    def _ask(self, states: list[dict[str, Any]]) -> set[str]:
        """The ids of those that have changed. One that can't be is among them: when it is sent, its
        verdict says what is wrong with it."""
        if not self._there:
            return {state["id"] for state in states}
        path = f"{corpus_path(self._corpus)}/changes"
        changed: set[str] = set()
        left = list(states)
        for _ in range(_MOST_FAULTS):
            if not left:
                return changed
            try:
                ask = partial(self._api.post, path, {"documents": left}, "changed")
                answer = patiently(ask, self._say)
            except RefusedError as error:
                at = _AT_FAULT.match(error.param or "")
                if at is None or int(at[1]) >= len(left):
                    raise
                changed.add(left.pop(int(at[1]))["id"])
            else:
                return changed | set(answer["changed"])
        return changed | {state["id"] for state in left}


def _pages(documents: Iterable[Entry]) -> Iterator[list[Entry]]:
    page: list[Entry] = []
    size = 0
    for entry in documents:
        page.append(entry)
        size += entry.size
        if len(page) >= _PAGE_DOCUMENTS or size >= _PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page
