"""`refdesk ingest` that is interrupted, loses a service, or stays to watch the files."""

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.cli import patience
from tests.e2e.command import Running, refdesk, wait_until
from tests.suite import Suite, prepare_suite, with_graphs

SENTENCE = "Entry {} part {} mentions harbour, lantern, orchard, granite, velvet and compass. "
MANY = 200


@pytest.fixture(scope="module")
def desk(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """What ingest needs of a suite, of this module's own: services are stopped and started."""
    own = prepare_suite(tmp_path_factory.mktemp("suite"))
    with_graphs(suite, own.data_dir)
    try:
        own.services["embed"].start()
        own.services["retrieve"].start()
        yield own
    finally:
        own.stop()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder that takes some seconds to be stored."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(MANY):
        text = "".join(SENTENCE.format(number, part) for part in range(8))
        (folder / f"{number}.txt").write_text(text)
    return folder


def get(desk: Suite, path: str) -> Any:
    """What retrieve says at a path."""
    return httpx.get(f"{desk.services['retrieve'].url}{path}", timeout=30).json()


def documents(desk: Suite, corpus: str) -> set[str]:
    """The ids of what is stored; nothing while there is no such corpus."""
    found = get(desk, f"/corpora/{corpus}/documents?limit=1000")
    return {one["id"] for one in found.get("documents", ())}


def wait_until_half_done(desk: Suite, corpus: str) -> None:
    """Return once some documents are stored."""
    wait_until(lambda: bool(documents(desk, corpus)))


def test_an_interruption_ends_the_jobs_and_running_it_again_goes_on(
    desk: Suite, many: Path
) -> None:
    arguments = ("ingest", str(many), "--corpus", "interrupted")
    command = Running(*arguments, env=desk.env)
    wait_until_half_done(desk, "interrupted")
    assert command.stop(signal.SIGINT) == 130
    told = re.search(r"stopped: (\d+) documents were stored; run it again", command.output)
    assert told, command.output
    states = [one["state"] for one in get(desk, "/jobs?corpus=interrupted")["jobs"]]
    assert states == ["cancelled"]
    stored = len(documents(desk, "interrupted"))
    assert int(told[1]) == stored < MANY
    again = refdesk(*arguments, env=desk.env)
    assert again.returncode == 0, again.stderr
    assert again.stderr.split()[-6:-1] == [str(MANY - stored), "0", str(stored), "0", "0"]


def test_jobs_that_an_interruption_can_not_end_are_named(desk: Suite, many: Path) -> None:
    command = Running("ingest", str(many), "--corpus", "beyond", env=desk.env)
    wait_until_half_done(desk, "beyond")
    desk.services["retrieve"].kill()
    try:
        assert command.stop(signal.SIGINT) == 130
    finally:
        desk.services["retrieve"].start()
    assert re.search(r"job \S+ could not be called off: retrieve at", command.output)
    assert "Traceback" not in command.output
    wait_until(lambda: len(documents(desk, "beyond")) == MANY)


def test_a_service_that_dies_is_one_error_and_running_it_again_finishes(
    desk: Suite, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "AWAY_S", 0.5)
    arguments = ("ingest", str(many), "--corpus", "dying")
    url = desk.services["retrieve"].url

    def kill() -> None:
        wait_until_half_done(desk, "dying")
        desk.services["retrieve"].kill()

    with ThreadPoolExecutor() as threads:
        killed = threads.submit(kill)
        command = refdesk(*arguments, "--url", url, env=desk.env)
        killed.result()
    desk.services["retrieve"].start()
    assert command.returncode == 1
    errors = [one for one in command.stderr.splitlines() if one.startswith("error: ")]
    assert len(errors) == 1
    assert "retrieve at" in errors[0]
    assert "Traceback" not in command.stderr
    again = refdesk(*arguments, env=desk.env)
    assert again.returncode == 0, again.stderr
    assert len(documents(desk, "dying")) == MANY


@pytest.mark.long
def test_why_a_job_waits_is_shown_and_it_goes_on_by_itself(desk: Suite, many: Path) -> None:
    one, few = many / "0.txt", many / "1?.txt"
    assert refdesk("ingest", str(one), "--corpus", "waiting", env=desk.env).returncode == 0
    desk.services["embed"].stop()
    command = Running("ingest", str(few), "--corpus", "waiting", env=desk.env)
    try:
        command.wait_for("it waits to be tried again: embed at")
    finally:
        desk.services["embed"].start()
    wait_until(lambda: command.process.poll() is not None)
    assert command.process.returncode == 0, command.output
    assert len(documents(desk, "waiting")) == 11


def test_watching_follows_the_files_through_a_restart_until_it_is_ended(
    desk: Suite, tmp_path: Path
) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "a.txt").write_text("The first one.")
    arguments = ("ingest", str(folder), "--corpus", "watched", "--watch", "--prune")
    command = Running(*arguments, env=desk.env)
    command.wait_for("watching")
    (folder / ".hidden.txt").write_text("Not to be seen.")
    (folder / "a.txt~").write_text("Not to be seen either.")
    (folder / "b.txt").write_text("The second one.")
    command.wait_for("1 created, 0 replaced, 0 deleted")
    (folder / "new").mkdir()
    (folder / "b.txt").rename(folder / "new" / "c.txt")
    command.wait_for("1 created, 0 replaced, 1 deleted")
    assert documents(desk, "watched") == {"a.txt", "new/c.txt"}
    desk.services["retrieve"].stop()
    try:
        (folder / "a.txt").write_text("The first one, changed.")
        command.wait_for("does not answer")
    finally:
        desk.services["retrieve"].start()
    command.wait_for("0 created, 1 replaced, 0 deleted")
    assert command.output.count("does not answer") == 1
    (folder / "a.txt").write_bytes(b"\x7fELF")
    command.wait_for("failed: ")
    assert command.stop(signal.SIGINT) == 0
    assert "Traceback" not in command.output
    assert documents(desk, "watched") == {"a.txt", "new/c.txt"}
