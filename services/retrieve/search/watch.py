"""What a search notes about itself on its way: how long a stage took, and which ones failed."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from shared.context import Deadline
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

STAGES = ("understand", "embed", "bm25", "dense", "sparse", "fuse", "curate", "pack")
Degradable = Literal["bm25", "dense", "sparse", "curate"]

# What is kept back of the caller's time for the stages after a call to another service.
_RESERVE_MS = 30.0
# No call takes more of the caller's time than this share, so that a hanging service degrades the
# answer instead of using up the whole deadline, nor more than the bound where there is plenty.
_SHARE = 0.6
_LONGEST_CALL_MS = 15_000.0


class Watch:
    """Milliseconds of each stage and in all, by the clock that never goes back."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._stages = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside as stage `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] += (time.perf_counter() - started) * 1000

    def timings(self) -> dict[str, float]:
        """Milliseconds per stage and `total`, to the microsecond."""
        total = (time.perf_counter() - self._started) * 1000
        return {name: round(ms, 3) for name, ms in {**self._stages, "total": total}.items()}


@dataclass(slots=True)
class Degraded:
    """The stages that failed, in the order in which they did."""

    stages: list[Degradable] = field(default_factory=list)

    @asynccontextmanager
    async def unless(self, stages: Sequence[Degradable], deadline: Deadline) -> AsyncIterator[None]:
        """Give what happens inside a share of the time that is left; note `stages` if it fails.

        A refusal that only the caller can mend (its key, a corpus of another model) is no failure
        of a stage and passes through.
        """
        try:
            async with asyncio.timeout(allowance_ms(deadline) / 1000):
                yield
        except TimeoutError:
            for stage in stages:
                self.note(stage, "timeout", "its share of the request's time ran out")
        except ApiError as error:
            if error.status in (401, 403, 409):
                raise
            for stage in stages:
                self.note(stage, error.code, error.message)

    def note(self, stage: Degradable, code: str, why: str) -> None:
        """Add a stage, and say why in the log."""
        log.warning("search_degraded", stage=stage, code=code, why=why)
        self.stages.append(stage)


def allowance_ms(deadline: Deadline) -> float:
    """Milliseconds that a call to another service may take of the caller's time."""
    return max(0.0, min(_LONGEST_CALL_MS, (deadline.remaining_ms() - _RESERVE_MS) * _SHARE))
