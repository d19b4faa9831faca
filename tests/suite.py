"""Start the real services as processes, or an app in this process, on free loopback ports."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from shared.http_protocol import HttpProtocol
from shared.settings import SERVICES, ServiceName

REPOSITORY = Path(__file__).parents[1]


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class ServiceProcess:
    """One service as a child process; its output goes to a file."""

    name: str
    url: str
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and wait until it is ready; fail with the end of its log if it dies first."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"services.{self.name}"],
                cwd=REPOSITORY,
                env={**os.environ, **self.env},
                stdout=output,
                stderr=output,
            )
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/ready", timeout=10).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        pytest.fail(f"{self.name} did not become ready:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to one that does not go."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


@dataclass(frozen=True)
class Suite:
    """The four services on loopback, each a process of its own."""

    services: Mapping[ServiceName, ServiceProcess]
    env: Mapping[str, str]
    data_dir: Path

    def url(self, service: ServiceName) -> str:
        """The base URL of one of them, started with those it depends on if it was not yet."""
        for name in SERVICES[: SERVICES.index(service) + 1]:
            if self.services[name].process is None:
                self.services[name].start()
        return self.services[service].url

    def stop(self) -> None:
        """Stop what was started."""
        for service in self.services.values():
            service.stop()


def prepare_suite(folder: Path, **settings: str) -> Suite:
    """Four services, not yet started, on free ports with their data in `folder`.

    settings: further environment variables, such as REFDESK_KEYS_FILE.
    """
    ports = {name: free_port() for name in SERVICES}
    env = {f"REFDESK_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    env |= {"REFDESK_DATA_DIR": str(folder / "data"), **settings}
    services = {
        name: ServiceProcess(name, f"http://127.0.0.1:{port}", env, folder / f"{name}.log")
        for name, port in ports.items()
    }
    return Suite(services, env, folder / "data")


def with_graphs(suite: Suite, data: Path) -> Path:
    """A data folder with nothing but the graphs, so that services started in it start quickly."""
    suite.url("rerank")  # by now both graphs are built
    shutil.copytree(suite.data_dir / "built", data / "built", copy_function=os.link)
    return data


class _Server(uvicorn.Server):
    """One that leaves the handling of signals to pytest, and ends as soon as it may.

    uvicorn's own looks every tenth of a second whether it is to end, and then sleeps for another:
    the tests end thousands.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.end = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)  # makes the headers that all answers have
        await self.end.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        give_up = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        state = self.server_state
        # uvicorn has no event for it.
        while (state.connections or state.tasks) and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for task in state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an ASGI app over real HTTP in this event loop; gives its base URL.

    options: of uvicorn.Config.
    """
    port = free_port()
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        **options,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.end.set()
        await task
