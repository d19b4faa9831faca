"""Asking writers for a draft: one, or by option a second beside the first that hesitates."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.generate.answer.guard import drafted
from services.generate.answer.outcome import Ended, Happened, Trace
from services.generate.policy.models import Model
from services.generate.prompting.showing import Showing
from services.generate.routing.features import RESERVE_MS
from services.generate.tiers.endpoint import Draft, DraftRequest, Endpoint, Stop
from shared.context import current, deadline_exceeded
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

# Of the time that is left: what a writer gets that has another one behind it.
_SHARE = 2 / 3


@dataclass(frozen=True, eq=False)
class Lane:
    """A writer that may be asked. name, model: the policy's. tier: that it is asked for.

    showing: shows its draft as it is written; None where drafts are verified first. followed:
    another writer is behind it, for whom a share of the time is kept; once some of the draft was
    shown, nobody is any more.
    """

    name: str
    model: Model
    endpoint: Endpoint
    tier: str
    showing: Showing | None
    followed: bool


class _BeatenError(ApiError):
    """Another writer began first."""

    def __init__(self) -> None:
        super().__init__(503, "beaten", "another writer began first")


class _Race:
    """Whose text counts: that of the first writer that has some. hesitates: who was asked first."""

    def __init__(self, hesitates: Lane) -> None:
        self.hesitates = hesitates
        self.winner: Lane | None = None
        self.won = asyncio.Event()

    def take(self, lane: Lane) -> bool:
        """Whether `lane` is the winner; the first one to ask is."""
        if self.winner is None:
            self.winner = lane
            self.won.set()
        return self.winner is lane

    def beaten(self, lane: Lane) -> bool:
        """Whether one that was asked after `lane` began before it."""
        return lane is self.hesitates and self.winner not in (None, lane)


def left_ms() -> float:
    """The time of a writer that is asked now; the extractive answer has the rest."""
    return current().deadline.remaining_ms() - RESERVE_MS


async def draft_of(
    lane: Lane,
    behind: Iterator[Lane],
    request: DraftRequest,
    trace: Trace,
    hedge_s: float | None,
) -> tuple[Lane, Draft | None]:
    """A draft and whose it is; None, with the reasons in the trace, where there is none to be had.

    hedge_s: if the writer has begun no text after so long, the next of those `behind` is asked,
    too; whoever begins first writes, and the other is stopped. None: nobody else is asked.
    Raises what the writer raises where some of its draft was shown by then.
    """
    if hedge_s is None:
        return lane, await _draft(lane, request, trace, None)
    race = _Race(lane)
    tasks = {asyncio.ensure_future(_draft(lane, request, trace, race)): lane}
    won = asyncio.ensure_future(race.won.wait())
    try:
        await asyncio.wait({won, *tasks}, timeout=hedge_s, return_when=asyncio.FIRST_COMPLETED)
        hesitates = race.winner is None and not any(task.done() for task in tasks)
        if hesitates and (second := next(behind, None)) is not None:
            trace.tell(Happened.HEDGED, f"{lane.endpoint.name} began no text in {hedge_s:g} s")
            tasks[asyncio.ensure_future(_draft(second, request, trace, race))] = second
        while race.winner is None and (at_work := [one for one in tasks if not one.done()]):
            await asyncio.wait({won, *at_work}, return_when=asyncio.FIRST_COMPLETED)
        for task, one in tasks.items():
            if one is not race.winner:
                task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for failed in (end for end in ends if isinstance(end, Exception)):
            raise failed
        winner = race.winner or lane
        drafts = dict(zip(tasks.values(), ends, strict=True))
        draft = drafts[winner]
        return winner, draft if isinstance(draft, Draft) else None
    finally:
        for open_task in (won, *tasks):
            open_task.cancel()


async def _draft(
    lane: Lane, request: DraftRequest, trace: Trace, race: _Race | None
) -> Draft | None:
    """The writer's draft, or None, with the reason in the trace, where it has none to give."""
    endpoint, showing = lane.endpoint, lane.showing
    trace.asked.append(endpoint)
    patience = max(0.0, left_ms()) / 1000
    meter = trace.spending.begin(lane.name, lane.model, endpoint)
    clock = asyncio.get_running_loop()
    end = clock.time() + patience
    limit = asyncio.timeout_at(clock.time() + patience * (_SHARE if lane.followed else 1.0))

    over = False

    def show(piece: str) -> None:
        if over or limit.expired():  # another writer may be at work; what comes now is lost
            return
        if race is not None and piece.strip() and not race.take(lane):
            raise _BeatenError
        if showing is not None:
            showing.feed(piece)
            if showing.begun:
                limit.reschedule(end)

    def stopped() -> Stop:
        if race is not None and race.beaten(lane):
            return Stop.BEATEN
        return Stop.LATE if limit.expired() else Stop.LEFT

    ended = Ended.STOPPED
    try:
        async with limit:
            seen = show if showing is not None or race is not None else None
            asked = replace(request, show=seen, meter=meter, stopped=stopped)
            draft = await drafted(endpoint, asked, lane.model)
        ended = Ended.DRAFTED
    except _BeatenError:
        return None
    except TimeoutError:
        ended = Ended.FAILED
        why = f"{endpoint.name} did not finish before the deadline"
        _failed(lane, trace, Happened.OUT_OF_TIME, why)
        if showing is not None and showing.begun:
            raise deadline_exceeded() from None
        return None
    except ApiError as error:
        ended = Ended.FAILED
        log.warning("endpoint_failed", endpoint=endpoint.name, code=error.code)
        _failed(lane, trace, Happened.ENDPOINT_FAILED, f"{endpoint.name}: {error.code}")
        if showing is not None and showing.begun:
            raise
        return None
    finally:
        over = True
        trace.spending.end(meter, ended)
    if race is not None and not race.take(lane):
        return None
    return draft


def _failed(lane: Lane, trace: Trace, what: Happened, why: str) -> None:
    trace.degraded.append(lane.endpoint.name)
    trace.tell(what, why)
    trace.came_to_nothing(f"{lane.tier}:{lane.endpoint.name}")
