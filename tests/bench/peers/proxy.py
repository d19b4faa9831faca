"""generate beside LiteLLM's proxy: what each adds to the model server behind it.

    make bench-peers
    python -m tests.bench.peers.proxy [--rates 25 100 200] [--seconds 10] [--rounds 3]

A model server that takes 50 ms and nothing of its own (model_server.py) runs in one process, each
contender in another, the client in a third, all on the same two cores. Requests come at a fixed
rate, whether earlier ones are answered or not, and each counts from when it was due. In every round
the contenders take each rate in turn, in another order each time; whoever is not measured sleeps.
LiteLLM passes a request on. generate asks its desk for passages first (a stand-in that takes no
time; generate's own time for that is in), verifies the draft strictly and puts it on record on the
disk. Both have one worker, as they come.
"""

import argparse
import asyncio
import itertools
import random
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench.overhead import JSON, THINK_MS, at_rate, body, served, settings, told
from tests.bench.peers.contenders import Contender, Contenders, python_of
from tests.suite import free_port

CONFIG = """\
model_list:
  - model_name: careful
    litellm_params: {{model: openai/m, api_base: "{server}/1/{think}/0/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
general_settings: {{master_key: {key}}}
"""


@dataclass
class Entrant:
    """A contender and the milliseconds that it added, by rate."""

    contender: Contender
    headers: Mapping[str, str]
    added: dict[int, list[float]] = field(default_factory=dict)

    async def measure(self, rate: int, seconds: float) -> None:
        """Take one turn."""
        with self.contender.awake() as url:
            await asyncio.sleep(0.5)  # it was stopped, and looks what it has missed
            answers = await at_rate(
                f"{url}/v1/chat/completions",
                body("careful", stream=False),
                self.headers,
                rate,
                seconds,
            )
        self.added.setdefault(rate, []).extend(taken - THINK_MS for taken, _ in answers)


def entrants(contenders: Contenders, folder: Path, server: str) -> list[Entrant]:
    """Start those that are compared."""
    key = f"sk-{secrets.token_urlsafe(32)}"
    config = folder / "litellm.yaml"
    config.write_text(CONFIG.format(server=server, think=THINK_MS, key=key))
    port = free_port()
    command = [str(Path(python_of("litellm")).with_name("litellm")), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    peer = contenders.start("LiteLLM", command, port, "/health/readiness", quiet)
    generate = contenders.service("refdesk", "generate", folder, **settings(folder, server))
    return [
        Entrant(generate, JSON),
        Entrant(peer, {**JSON, "authorization": f"Bearer {key}"}),
    ]


async def measure(rivals: list[Entrant], rates: list[int], seconds: float, rounds: int) -> None:
    """All rounds, after one that does not count."""
    order = random.Random(1)
    for entrant in rivals:
        await entrant.measure(20, 2)
        entrant.added.clear()
    for _, rate in itertools.product(range(rounds), rates):
        for entrant in order.sample(rivals, len(rivals)):
            await entrant.measure(rate, seconds)


def main() -> None:
    """Start the processes, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=int, nargs="+", default=[25, 100, 200])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = f"http://127.0.0.1:{free_port()}"
    table = Table("added ms", "a second", "p50", "p99", "most")
    with (
        tempfile.TemporaryDirectory() as folder,
        Contenders(Path(folder), threads=2) as contenders,
        served(["tests.bench.model_server", server.rpartition(":")[2]], server),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rivals = entrants(contenders, Path(folder), server)
        runner.run(measure(rivals, options.rates, options.seconds, options.rounds))
        for rate, entrant in itertools.product(options.rates, rivals):
            table.add_row(entrant.contender.name, str(rate), *told(entrant.added[rate]))
    Console().print(table)


if __name__ == "__main__":
    main()
