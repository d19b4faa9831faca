"""``refdesk up`` with the real services: they start, are kept up, and go when told to."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.command import Running, alive, one_error, refdesk, refdesk_process, wait_until
from tests.suite import Suite, free_port, prepare_suite, with_graphs

Up = Callable[..., tuple[Running, Suite]]


@pytest.fixture
def up(suite: Suite, tmp_path: Path) -> Iterator[Up]:
    """Runs `refdesk up` on free ports, with a data folder of its own that has the graphs."""
    started: list[Running] = []
    with_graphs(suite, tmp_path / "data")

    def start(*arguments: str, **settings: str) -> tuple[Running, Suite]:
        own = prepare_suite(tmp_path, **settings)
        running = Running("up", *arguments, env=own.env)
        started.append(running)
        return running, own

    yield start
    for running in started:
        if running.process.poll() is None:
            running.stop()


def service_pids(running: Running) -> dict[str, int]:
    """The process id of each service, by name."""
    found = {}
    for pid in running.children():
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        found[command[command.index("-m") + 1].removeprefix("services.")] = pid
    return found


def is_ready(url: str) -> bool:
    """Whether a service has proved its work."""
    try:
        return httpx.get(f"{url}/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def test_all_four_services_start_and_ctrl_c_ends_them(up: Up) -> None:
    running, own = up()
    running.wait_for("All ready")
    assert all(is_ready(service.url) for service in own.services.values())
    pids = running.children()
    assert len(pids) == 4
    status = refdesk("status", env=own.env)
    assert status.returncode == 0
    assert status.stdout.count("ready") == 4
    assert running.stop() == 0
    assert not any(alive(pid) for pid in pids)
    assert "Traceback" not in running.output


def test_a_service_that_is_killed_is_started_again_and_logs_are_kept_and_shown(up: Up) -> None:
    running, own = up("--only", "embed", "--logs")
    running.wait_for("All ready")
    running.wait_for('embed │ {"host"')
    [(name, pid)] = service_pids(running).items()
    assert name == "embed"
    os.kill(pid, signal.SIGKILL)
    running.wait_for("embed ended unexpectedly (signal SIGKILL); starting it again in 0.5 s")
    wait_until(lambda: is_ready(own.services["embed"].url))
    assert service_pids(running)["embed"] != pid
    assert running.stop(signal.SIGTERM) == 0
    assert '"event": "listening"' in (own.data_dir / "logs" / "embed.log").read_text()


def test_services_do_not_outlive_a_supervisor_that_is_killed(up: Up) -> None:
    running, _ = up("--only", "embed", "--only", "rerank")
    running.wait_for("All ready")
    pids = running.children()
    assert len(pids) == 2
    running.process.kill()
    wait_until(lambda: not any(alive(pid) for pid in pids))
    assert running.process.wait() == -signal.SIGKILL


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path, models_dir: Path) -> None:
    own = prepare_suite(tmp_path)
    port = own.env["REFDESK_RERANK_PORT"]
    with socket.create_server(("127.0.0.1", int(port))):
        told = one_error(refdesk("up", env=own.env))
    assert f"port {port} (rerank) can't be listened on" in told
    assert "--port-base" in told
    assert not own.data_dir.exists()


def test_a_missing_model_is_told_with_the_command_that_brings_it(tmp_path: Path) -> None:
    own = prepare_suite(tmp_path, REFDESK_MODELS_DIR=str(tmp_path / "none"))
    told = one_error(refdesk("up", env=own.env))
    assert "all-MiniLM-L6-v2" in told
    assert "refdesk models pull default" in told


def test_a_configuration_error_of_a_service_ends_it_all_with_its_own_words(
    tmp_path: Path, models_dir: Path
) -> None:
    own = prepare_suite(tmp_path, REFDESK_HOST="0.0.0.0")
    told = one_error(refdesk_process("up", "--only", "embed", env=own.env))
    assert "will not listen on 0.0.0.0 without API keys" in told


def test_a_data_folder_in_use_is_told(suite: Suite, tmp_path: Path) -> None:
    suite.url("retrieve")
    port = str(free_port())
    env = {**suite.env, "REFDESK_RETRIEVE_PORT": port}
    told = one_error(refdesk_process("up", "--only", "retrieve", env=env))
    assert str(suite.data_dir) in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--only", "mail"), "the services are embed, rerank, retrieve, generate"),
        (("--port-base", "65532"), "65531"),
        (("--port-base", "x"), "--port-base"),
        (("--colour",), "--colour"),
    ],
)
def test_wrong_usage_has_exit_code_2(arguments: tuple[str, ...], told: str) -> None:
    assert told in one_error(refdesk("up", *arguments), code=2)


def test_a_wrong_setting_is_named() -> None:
    told = one_error(refdesk("up", env={"REFDESK_EMBED_PORT": "zero"}))
    assert "REFDESK_EMBED_PORT" in told
