"""The supervisor, with real child processes that are quick to start."""

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from shared.cli.failures import CliError
from shared.cli.supervisor import Program, Supervisor, next_pause
from tests.e2e.command import alive, wait_until

SLEEP = "import time\nprint('here', flush=True)\nwhile True: time.sleep(1)"
STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEP}"


def says_here(log: Path) -> bool:
    return "here" in log.read_text()


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Program]:
    """Makes a program of some Python code, with its log in the test's folder."""

    def make(code: str, name: str = "child") -> Program:
        log = tmp_path / f"{name}.log"
        return Program(name, [sys.executable, "-c", code], {}, "http://127.0.0.1:1", log)

    return make


def test_the_pause_before_a_restart_doubles_up_to_ten_seconds() -> None:
    pauses = [next_pause(0, 0.1)]
    while len(pauses) < 7:
        pauses.append(next_pause(pauses[-1], 0.1))
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10]


def test_the_pause_begins_anew_after_a_minute_of_good_service() -> None:
    assert next_pause(10, 59.9) == 10
    assert next_pause(10, 60) == 0.5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_drops_is_not_lost(program: Callable[..., Program]) -> None:
    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with Supervisor([program(SLEEP)], print) as supervisor:
        supervisor.check()
        Dropped()  # what is raised in there is told as ignored, and gone
        with pytest.raises(KeyboardInterrupt):
            supervisor.check()


def test_a_killed_child_is_started_again_and_its_end_is_told(
    program: Callable[..., Program],
) -> None:
    told: list[str] = []
    with Supervisor([program(SLEEP)], told.append) as supervisor:
        first = supervisor.pids()["child"]
        subprocess.run(["kill", "-9", str(first)], check=True)

        def again() -> bool:
            supervisor.check()
            return supervisor.pids()["child"] != first

        wait_until(again)
        assert alive(supervisor.pids()["child"])
        assert supervisor.deaths() == {"child": 1}
    assert len(told) == 1
    assert "SIGKILL" in told[0]
    assert "again in 0.5 s" in told[0]


def test_the_exit_code_of_a_dead_child_is_told(program: Callable[..., Program]) -> None:
    told: list[str] = []
    with Supervisor([program("raise SystemExit(7)")], told.append) as supervisor:

        def died() -> bool:
            supervisor.check()
            return bool(told)

        wait_until(died)
    assert "exit code 7" in told[0]


def test_a_signal_without_a_name_is_told_by_its_number(program: Callable[..., Program]) -> None:
    told: list[str] = []
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGRTMIN + 1)"
    with Supervisor([program(kill)], told.append) as supervisor:

        def died() -> bool:
            supervisor.check()
            return bool(told)

        wait_until(died)
    assert f"signal {signal.SIGRTMIN + 1}" in told[0]


def test_a_configuration_error_is_final_and_in_the_childs_own_words(
    program: Callable[..., Program],
) -> None:
    wrong = "import sys\nprint('error: port 1 is taken', file=sys.stderr)\nsys.exit(78)"
    with Supervisor([program(wrong), program(SLEEP, "other")], print) as supervisor:
        other = supervisor.pids()["other"]
        with pytest.raises(CliError, match=r"^port 1 is taken$"):
            supervisor.watch()
    assert not alive(other)


def test_the_error_of_an_earlier_run_is_not_taken_for_this_ones(
    program: Callable[..., Program],
) -> None:
    child = program("raise SystemExit(78)")
    child.log.write_text("error: of yesterday\n")
    with (
        Supervisor([child], print) as supervisor,
        pytest.raises(CliError, match="child can't start"),
    ):
        supervisor.watch()


def test_leaving_ends_all_children_also_one_that_ignores_sigterm(
    program: Callable[..., Program],
) -> None:
    programs = [program(SLEEP), program(STUBBORN, "stubborn")]
    with Supervisor(programs, print, grace_s=0.5) as supervisor:
        pids = list(supervisor.pids().values())
        wait_until(lambda: all("here" in one.log.read_text() for one in programs))
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


def test_a_child_gets_the_time_it_was_promised_to_end(program: Callable[..., Program]) -> None:
    code = f"""
import signal, sys, time
def end(*_):
    time.sleep(1)
    print("done", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
{SLEEP}"""
    for grace_s, ends in ((0.1, False), (60, True)):
        child = program(code, f"grace-{grace_s}")
        with Supervisor([child], print, grace_s=grace_s):
            wait_until(partial(says_here, child.log))
        assert ("done" in child.log.read_text()) == ends


def test_the_logs_are_passed_on_line_by_line_when_asked_for(
    program: Callable[..., Program],
) -> None:
    told: list[str] = []
    with Supervisor([program(SLEEP)], told.append, echo=True) as supervisor:

        def heard() -> bool:
            supervisor.check()
            return bool(told)

        wait_until(heard)
    assert [line.split() for line in told] == [["child", "│", "here"]]


def test_a_log_that_has_grown_long_is_put_aside_at_the_start(
    program: Callable[..., Program],
) -> None:
    child = program(SLEEP)
    child.log.write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    with Supervisor([child], print):
        wait_until(lambda: child.log.read_text() == "here\n")
    assert child.log.with_name("child.log.1").stat().st_size == 10 * 1024 * 1024 + 1


def test_sigterm_of_the_supervisor_means_what_ctrl_c_means(
    program: Callable[..., Program],
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    pids: list[int] = []

    def own() -> None:
        with Supervisor([program(SLEEP)], print) as supervisor:
            pids.extend(supervisor.pids().values())
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        own()
    assert not alive(pids[0])
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's death")
def test_children_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    owner = f"""
import sys, time
from pathlib import Path
from shared.cli.supervisor import Program, Supervisor
command = [sys.executable, "-c", {STUBBORN!r}]
child = Program("child", command, {{}}, "", Path({str(tmp_path / "log")!r}))
with Supervisor([child], print) as supervisor:
    print(supervisor.pids()["child"], flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
    wait_until(lambda: not alive(pid))
    assert not alive(pid)
