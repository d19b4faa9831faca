"""The processes that are compared: each on the same cores, awake only while it is measured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.suite import REPOSITORY, free_port

ENVIRONMENTS = REPOSITORY / ".bench"  # made by `make bench-peers`
MODEL = "all-MiniLM-L6-v2"
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Contender:
    """A process that answers on `url`; put to sleep by SIGSTOP whenever it is not its turn."""

    name: str
    url: str
    process: subprocess.Popen[bytes]

    @contextmanager
    def awake(self) -> Iterator[str]:
        """Its URL, for as long as it runs."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield self.url
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)


class Contenders(ExitStack):
    """Starts processes that all have the same cores and threads, and stops them in the end."""

    def __init__(self, logs: Path, threads: int) -> None:
        super().__init__()
        self._logs = logs
        self._threads = threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # children inherit it

    def worker(
        self, name: str, library: str, folder: Path, *, batch: int, python: str = sys.executable
    ) -> Contender:
        """A library, bare and behind a small server."""
        port = free_port()
        # -P: what lies beside the script must not hide a module of the library.
        command = [python, "-P", str(WORKER), library, str(folder), str(port)]
        command += ["--threads", str(self._threads), "--batch", str(batch)]
        return self.start(name, command, port, "/health")

    def service(self, name: str, service: str, data: Path, **settings: str) -> Contender:
        """One of refdesk's services, with its data in `data`."""
        port = free_port()
        prefix = f"REFDESK_{service.upper()}"
        settings |= {f"{prefix}_PORT": str(port), f"{prefix}_THREADS": str(self._threads)}
        settings |= {"REFDESK_DATA_DIR": str(data), "REFDESK_LOG_LEVEL": "warning"}
        command = [sys.executable, "-m", f"services.{service}"]
        return self.start(name, command, port, "/ready", settings)

    def infinity(self, name: str, folder: Path, *, batch: int) -> Contender:
        """Infinity with its torch engine, without its cache on disk."""
        port = free_port()
        command = [str(ENVIRONMENTS / "infinity/bin/infinity_emb"), "v2", "--model-id", str(folder)]
        command += ["--served-model-name", MODEL, "--engine", "torch", "--device", "cpu"]
        command += ["--dtype", "float32", "--batch-size", str(batch), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--url-prefix", "/v1", "--log-level", "warning"]
        command += ["--no-vector-disk-cache", "--no-compile", "--no-model-warmup"]
        offline = {"HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
        return self.start(name, command, port, "/health", offline)

    def start(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        health: str,
        settings: dict[str, str] | None = None,
    ) -> Contender:
        """Start it, wait until it answers, and put it to sleep. Ends the program if it dies."""
        threads = {
            f"{library}_NUM_THREADS": str(self._threads) for library in ("OMP", "MKL", "OPENBLAS")
        }
        log = self._logs / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": "true", **(settings or {})},
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that all of its processes sleep and end together
            )
        self.callback(_end, process)
        url = f"http://127.0.0.1:{port}"
        give_up = time.monotonic() + 180
        while True:
            try:
                if httpx.get(f"{url}{health}", timeout=10).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit(f"{name} does not answer:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGSTOP)
        return Contender(name, url, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def python_of(environment: str) -> str:
    """The interpreter of one of the environments that `make bench-peers` makes."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        sys.exit(f"there is no {python}: run `make bench-peers`")
    return str(python)
