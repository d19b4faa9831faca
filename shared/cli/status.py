"""``refdesk status``: how the services are."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes, one_line, output
from shared.cli.corpora import corpora_table
from shared.cli.failures import CliError, RefusedError
from shared.cli.http import Api
from shared.settings import SERVICES, ServiceName, Settings, load_settings

_PATIENCE_S = 10.0
_STYLES = {"ready": "green", "alive": "yellow", "down": "red"}


@dataclass(frozen=True)
class ServiceStatus:
    """How one service is.

    state: ready (has just proved its work), alive (answers, but can't do its work) or down.
    latency_ms: time that the proof took; None where there was none. problem: why it is not ready.
    faults: corpora that it can't serve, and why; none are told where there are API keys.
    """

    service: ServiceName
    url: str
    state: Literal["ready", "alive", "down"]
    version: str | None = None
    model: str | None = None
    latency_ms: float | None = None
    problem: str | None = None
    faults: Mapping[str, str] = field(default_factory=dict)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say of each service whether it can do its work, and which corpora there are.

    The exit code is 1 if a service is not ready.
    """
    settings = load_settings()
    with ThreadPoolExecutor(len(SERVICES)) as pool:
        states = list(pool.map(lambda name: _look(name, settings), SERVICES))
    corpora, problem = _corpora(settings)
    if as_json:
        body = {
            "services": {one.service: asdict(one) for one in states},
            "corpora": corpora,
            "corpora_problem": problem,
        }
        print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
    else:
        _show(states, corpora, problem)
    if any(one.state != "ready" for one in states):
        raise typer.Exit(1)


def _look(name: ServiceName, settings: Settings) -> ServiceStatus:
    with Api(name, settings, patience_s=_PATIENCE_S) as api:
        try:
            version = api.get("/health", "version")["version"]
        except CliError as error:
            return ServiceStatus(name, api.url, "down", problem=str(error))
        started = time.perf_counter()
        try:
            told = api.get("/ready")
        except CliError as error:
            return ServiceStatus(name, api.url, "alive", version, problem=str(error))
        latency_ms = round((time.perf_counter() - started) * 1000, 1)
        model = str(told["model"]) if "model" in told else None
        faults = told.get("faults", {})
        return ServiceStatus(name, api.url, "ready", version, model, latency_ms, faults=faults)


def _corpora(settings: Settings) -> tuple[list[dict[str, Any]], str | None]:
    with Api("retrieve", settings, patience_s=_PATIENCE_S) as api:
        try:
            return list(api.get("/corpora", "corpora")["corpora"]), None
        except RefusedError as error:  # a key is missing, most likely
            return [], str(error)
        except CliError:  # retrieve's own row says so
            return [], None


def _show(states: list[ServiceStatus], corpora: list[dict[str, Any]], problem: str | None) -> None:
    table = Table("service", "state", "version", "model", "latency", "address", box=None)
    for one in states:
        table.add_row(
            one.service,
            f"[{_STYLES[one.state]}]{one.state}[/]",
            escape(one.version or ""),
            escape(one.model or ""),
            "" if one.latency_ms is None else f"{one.latency_ms:.1f} ms",
            escape(one.url),
        )
    console = output()
    console.print(table)
    for one in states:
        if one.problem:
            notes().print(one_line(one.problem), markup=False, soft_wrap=True)
        for corpus, why in one.faults.items():
            notes().print(one_line(f"corpus {corpus}: {why}"), markup=False, soft_wrap=True)
    if problem:
        notes().print(one_line(f"corpora: {problem}"), markup=False, soft_wrap=True)
    if corpora:
        console.print()
        console.print(corpora_table(corpora))
