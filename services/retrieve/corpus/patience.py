"""embed for what nobody waits for: jobs. A busy or restarting embed is waited for."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.retrieve.corpus.embedding import BATCH, Embedded, Librarian
from services.retrieve.stores.corpus import CorpusInfo
from shared.context import Deadline, current, enter
from shared.errors import ApiError
from shared.retry_after import retry_after_s
from shared.together import together

_IN_FLIGHT = 2  # requests at embed
_EMBED_MS = 120_000.0  # for one of them
_PASSING = frozenset({429, 503, 504})
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # then it is the job that is tried again
_LONGEST_PAUSE_S = 30.0


class PatientLibrarian:
    """A librarian for jobs. Used in one event loop."""

    def __init__(self, librarian: Librarian) -> None:
        self._librarian = librarian
        self._slots = asyncio.Semaphore(_IN_FLIGHT)

    async def vectors(self, inputs: Sequence[str], info: CorpusInfo) -> Embedded:
        """As `Librarian.vectors`, but never more than a few requests at a time, of all jobs
        together: while one is computed the next one waits at embed, and a search's own query does
        not wait behind more than that."""
        starts = range(0, len(inputs), BATCH)
        parts = await together(self._patiently(inputs[at : at + BATCH], info) for at in starts)
        none = np.empty((0, info.dimension), np.float32)
        return Embedded(
            np.concatenate([none, *(part.dense for part in parts)]),
            [one for part in parts for one in part.sparse or ()] if info.sparse else None,
        )

    async def _patiently(self, inputs: Sequence[str], info: CorpusInfo) -> Embedded:
        """One request, tried again where that may help. It has a time of its own: nobody waits for
        a job, and an embed that hangs must not keep it for ever."""
        async with self._slots:
            for pause in _PAUSES_S:
                enter(replace(current(), deadline=Deadline.after_ms(_EMBED_MS)))
                try:
                    return await self._librarian.vectors(inputs, info)
                except ApiError as error:
                    if error.status not in _PASSING:
                        raise
                    asked = retry_after_s(error.headers.get("Retry-After", "0"))
                    wait = max(pause * random.uniform(0.5, 1.5), asked)  # noqa: S311 - jitter
                await asyncio.sleep(min(wait, _LONGEST_PAUSE_S))
            enter(replace(current(), deadline=Deadline.after_ms(_EMBED_MS)))
            return await self._librarian.vectors(inputs, info)
