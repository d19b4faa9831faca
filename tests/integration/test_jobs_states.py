"""Whatever happens in whatever order, no job is stuck, run by two, or done against its end."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.jobs import Jobs
from services.retrieve.jobs.leases import Lease, Leases, News, Sign
from services.retrieve.jobs.model import Failure, LeaseLostError, Verdict
from services.retrieve.jobs.tables import JOBS
from shared.errors import ApiError
from tests.works import items

MOST_DEATHS = 3
PASSING = Failure("embed does not answer", "service_unavailable_error", "unreachable")


@functools.cache
def opened() -> CatalogueDatabase:
    """A catalogue for all rounds, which each leaves empty; it goes with the process."""
    folder = tempfile.mkdtemp(prefix="refdesk-jobs-")
    atexit.register(shutil.rmtree, folder)
    return CatalogueDatabase.open("", Path(folder))


class JobStates(RuleBasedStateMachine):
    """Two workers, any of which may die, pause or be believed dead, and a caller who may cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.database = opened()
        self.jobs, self.leases = Jobs(self.database), Leases(self.database)
        self.sent: list[str] = []
        self.held: list[Lease] = []  # all that were ever given, also those that are lost by now
        self.signs: list[Sign] = []  # as old as they may be
        self.told: dict[str, int] = {}  # by checkpoints that were accepted

    def teardown(self) -> None:
        try:
            for _ in range((MOST_DEATHS + 1) * len(self.sent) + 1):
                self._go_on()
                if all(job.over for job in self.jobs.list(limit=1000)):
                    return
            raise AssertionError("a job is stuck")
        finally:
            with self.database.begin() as connection:
                connection.execute(sa.delete(JOBS))

    def _go_on(self) -> None:
        """What the last worker that is alive does, once."""
        for sign in self.leases.signs():
            assert self.leases.take(sign, MOST_DEATHS)
        for waiting in self.leases.waiting(["ingest"]):
            lease = self.leases.claim(waiting, "last")
            if lease is not None:
                self.leases.finish(lease, News(), "succeeded", "{}")

    @rule(corpus=st.sampled_from("ab"))
    def submit(self, corpus: str) -> None:
        job, _ = self.jobs.submit("ingest", corpus, {}, "me", items=items(1))
        self.sent.append(job.id)

    @rule(worker=st.sampled_from(["w1", "w2"]), which=st.integers(0, 9))
    def claim(self, worker: str, which: int) -> None:
        waiting = self.leases.waiting(["ingest"])
        if waiting:
            lease = self.leases.claim(waiting[which % len(waiting)], worker)
            assert lease is not None
            assert self.leases.claim(waiting[which % len(waiting)], worker) is None
            self.held.append(lease)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 99), news=st.booleans())
    def checkpoint(self, which: int, news: bool) -> None:
        lease = self.held[which % len(self.held)]
        told = self.told.get(lease.job.id, 0)
        verdict = Verdict(str(told), "created")
        what = News(cursor={"at": told}, documents=1, verdicts=[verdict]) if news else News()
        if self._try(lease, lambda: self.leases.tell(lease, what)) and news:
            self.told[lease.job.id] = told + 1

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 99), how=st.sampled_from(["finish", "put back", "again", "cancel"]))
    def end(self, which: int, how: str) -> None:
        lease = self.held[which % len(self.held)]
        match how:
            case "finish":
                self._try(lease, lambda: self.leases.finish(lease, News(), "succeeded", "{}"))
            case "cancel":
                self._try(lease, lambda: self.leases.finish(lease, News(), "cancelled"))
            case "put back":
                self._try(lease, lambda: self.leases.put_back(lease, News()))
            case "again":
                self._try(lease, lambda: self.leases.try_again(lease, News(), 0, PASSING, 1))

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 99))
    def cancel(self, which: int) -> None:
        job_id = self.sent[which % len(self.sent)]
        before = self.jobs.get(job_id)
        if before.state in ("succeeded", "failed"):
            with pytest.raises(ApiError, match="is over already"):
                self.jobs.cancel(job_id)
        else:
            after = self.jobs.cancel(job_id)
            assert after.state == ("running" if before.state == "running" else "cancelled")

    @rule()
    def look(self) -> None:
        self.signs += self.leases.signs()

    @precondition(lambda self: self.signs)
    @rule(which=st.integers(0, 99))
    def believe_dead(self, which: int) -> None:
        sign = self.signs[which % len(self.signs)]
        now = {one.number: one for one in self.leases.signs()}.get(sign.number)
        assert self.leases.take(sign, MOST_DEATHS) == (now == sign)

    @rule()
    def sweep(self) -> None:
        self.leases.sweep()

    @invariant()
    def one_of_a_corpus_is_running_and_what_was_told_is_kept(self) -> None:
        jobs = self.jobs.list(limit=1000)
        assert {job.id for job in jobs} == set(self.sent)
        running = [job.corpus for job in jobs if job.state == "running"]
        assert len(running) == len(set(running))
        for job in jobs:
            told = self.told.get(job.id, 0)
            assert job.progress.documents == job.verdicts["created"] == told
            assert (job.finished_at is not None) == job.over

    def _try(self, lease: Lease, action: object) -> bool:
        """Do what a worker does, which works exactly if it still has the job."""
        now = self.jobs.get(lease.job.id)
        mine = now.state == "running" and now.attempt == lease.job.attempt
        assert callable(action)
        try:
            action()
        except LeaseLostError:
            assert not mine
            return False
        assert mine
        return True


JobStates.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestJobStates = JobStates.TestCase
