"""The models' states in generate's database, SQLite and PostgreSQL, with several replicas."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.generate.policy.file import parse
from services.generate.policy.lifecycle import Transition
from services.generate.policy.models import State
from services.generate.trust.database import GenerateDatabase
from services.generate.trust.model_states import ModelStates
from shared.errors import ApiError
from tests.policies import POLICY_TEXT, bent

FIRST = parse(POLICY_TEXT, "p")
TRIAL = "state: candidate"
LATER = parse(bent(TRIAL, "state: active"), "p")


@contextmanager
def opened(folder: Path, url: str = "") -> Iterator[ModelStates]:
    with closing(GenerateDatabase.open(url, folder)) as database:
        yield ModelStates(database)


def test_states_outlive_the_process_with_when_and_by_which_policy(
    catalogue_url: str, tmp_path: Path
) -> None:
    with opened(tmp_path, catalogue_url) as states:
        assert states.admit(FIRST) == []
        begun = states.since()
    with opened(tmp_path, catalogue_url) as states:
        assert states.admit(FIRST) == []  # nothing changes
        assert states.since() == begun
        assert states.admit(LATER) == []
        [refused] = states.admit(FIRST)
        [last, *before] = states.history(None, 100)
        [same] = states.history("trial", 1)
        now = states.since()
    assert refused.place == ("models", "trial", "state")
    assert last.transition == Transition("trial", State.CANDIDATE, State.ACTIVE)
    assert last.policy == LATER.fingerprint
    assert {one.transition.before for one in before} == {None}
    assert {one.policy for one in before} == {FIRST.fingerprint}
    assert [one.transition.model for one in before][::-1] == list(FIRST.models)
    assert same == last
    assert now["trial"] == last.at > begun["trial"]
    assert now["quote"] == begun["quote"]


def test_replicas_that_read_a_new_file_at_once_note_each_change_once(
    catalogue_url: str, tmp_path: Path
) -> None:
    with opened(tmp_path, catalogue_url) as states:
        states.admit(FIRST)

    def replica(_: int) -> int:
        with opened(tmp_path, catalogue_url) as states:
            return len(states.admit(LATER))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(replica, range(8))) == [0] * 8
    with opened(tmp_path, catalogue_url) as states:
        changes = [one.transition for one in states.history("trial", 10)]
    assert changes == [
        Transition("trial", State.CANDIDATE, State.ACTIVE),
        Transition("trial", None, State.CANDIDATE),
    ]


def test_a_policy_that_is_refused_leaves_no_trace(catalogue_url: str, tmp_path: Path) -> None:
    # of its two changes one is legal
    both = parse(bent(TRIAL, "state: active").replace("state: retired", "state: candidate, "
                 "price: {input: 0, output: 0}"), "p")  # fmt: skip
    with opened(tmp_path, catalogue_url) as states:
        states.admit(FIRST)
        before = states.history(None, 100)
        [refused] = states.admit(both)
        assert refused.place == ("models", "gone", "state")
        assert states.history(None, 100) == before


def test_a_database_without_states_is_taken_over(catalogue_url: str, tmp_path: Path) -> None:
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    shutil.copy(GenerateDatabase.purpose.migrations / "versions" / "r0001_audit.py", versions)

    class Before(GenerateDatabase):
        purpose = replace(GenerateDatabase.purpose, migrations=versions.parent)

    before = Before.open(catalogue_url, tmp_path)
    with before.begin() as connection:
        connection.execute(sa.text("INSERT INTO audit VALUES (1, 'p', 'h', '{}')"))
    before.close()
    with opened(tmp_path, catalogue_url) as states:
        assert states.history(None, 100) == []
        assert states.admit(FIRST) == []
    database = GenerateDatabase.open(catalogue_url, tmp_path)
    with database.read() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM audit")) == 1
    database.close()


def test_a_database_that_is_gone_is_told_and_nothing_is_admitted(tmp_path: Path) -> None:
    with opened(tmp_path) as states:
        states.admit(FIRST)
        (tmp_path / "generate.db").unlink()
        for refused in (lambda: states.admit(LATER), states.since, lambda: states.history(None, 1)):
            with pytest.raises(ApiError, match="was removed or replaced"):
                refused()
