"""What is written to a corpus while a backup is restored in its place: it is carried over.

The documents that were there when the restore began give way to the backup's. What was written or
deleted since counts for the corpus as it will be, as if the backup had been there at once.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import orjson

from services.retrieve.corpus.reindex.difference import difference
from services.retrieve.corpus.reindex.target import same_made
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.engine import Cut
from services.retrieve.stores.state import Revision
from shared.errors import ApiError

_PART = 32  # documents that are copied together


class Carrying:
    """Follows a corpus from now on, until it is closed.

    The state of its documents is kept in files without a name, in the folder of the transfers.
    """

    def __init__(self, live: CorpusStore, folder: Path) -> None:
        self._live = live
        self._folder = folder
        self._seen = self._states()

    def carry(self, dark: CorpusStore) -> None:
        """Do to another generation what was done to the corpus since the last time.

        Raises ApiError 409 `corpus_busy` where something was, and the two are not made alike.
        """
        now = self._states()
        left = difference(_revisions(now), _revisions(self._seen))
        self._seen.close()
        self._seen = now
        # Whatever made the live one's words: those of what is written are made anew.
        live = replace(Cut.of(self._live.info), analyser=dark.info.analyser)
        if left and not same_made(live, Cut.of(dark.info)):
            name = self._live.info.name
            raise ApiError(
                409,
                "corpus_busy",
                f"corpus '{name}' was written to while the backup was restored, which was made "
                "with another model, language or way of cutting: nothing was restored; stop what "
                "writes to the corpus, and restore again",
            )
        for start in range(0, len(left.delete), _PART):
            dark.delete(left.delete[start : start + _PART])
        for start in range(0, len(left.copy), _PART):
            dark.write(list(self._live.whole(left.copy[start : start + _PART]).values()))

    def close(self) -> None:
        """Let go of the files."""
        self._seen.close()

    def _states(self) -> BinaryIO:
        with ExitStack() as undo:
            file = undo.enter_context(tempfile.TemporaryFile(dir=self._folder))
            for one in self._live.revisions():
                file.write(orjson.dumps([one.id, one.content_hash, one.version, one.updated_at]))
                file.write(b"\n")
            undo.pop_all()
        return file


def _revisions(file: BinaryIO) -> Iterator[Revision]:
    file.seek(0)
    return (Revision(*orjson.loads(line)) for line in file)
