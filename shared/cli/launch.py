"""The services as programs: what each is started with, and waiting until each is ready."""

import errno
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
from rich.console import Console
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from shared.cli.console import one_line, progress
from shared.cli.failures import CliError
from shared.cli.http import NO_ADDRESS
from shared.cli.supervisor import Program, Supervisor
from shared.errors import StartupError
from shared.modelstore.store import ModelStore
from shared.settings import SERVICES, ServiceName, Settings

_PROBE_SECONDS = 5.0
_DEATHS = 3  # a service that never was ready and ended so often will not be
_NOTE_EVERY_S = 30.0
_BETWEEN_PROBES_S = 0.1
_CLOSE_S = 1.2  # for what a service closes after its last request
_IN_USE = (errno.EADDRINUSE, errno.EACCES)
_BUILDS: tuple[ServiceName, ...] = (
    "embed",
    "rerank",
)  # these turn the model's weights into a graph, once


@contextmanager
def services(
    settings: Mapping[ServiceName, Settings],
    logs: Path,
    console: Console,
    *,
    echo: bool = False,
    limit_s: float | None = None,
) -> Iterator[tuple[Supervisor, dict[str, float]]]:
    """Run services while the context lasts; it is entered once all of them are ready.

    settings: what each is started with. logs: folder for a log file of each. echo: show the logs
    on `console`, too. limit_s: seconds that they may take to be ready; None waits for ever.
    Gives the supervisor and the seconds each took. Raises CliError where a model is missing, a
    port is taken, a service can't start, or the limit passes.
    """
    check_models(settings)
    check_ports(settings)
    programs = [program(name, own, settings, logs) for name, own in settings.items()]
    building: set[str] = {
        name for name in _BUILDS if name in settings and _will_build(settings[name])
    }
    drain_s = max(own.drain_s for own in settings.values())
    with Supervisor(
        programs,
        lambda line: console.print(line, markup=False, soft_wrap=True),
        echo=echo,
        grace_s=drain_s + _CLOSE_S,
    ) as group:
        yield group, _wait_ready(group, building, console, limit_s)


def program(
    name: ServiceName, settings: Settings, beside: Mapping[ServiceName, Settings], logs: Path
) -> Program:
    """Service `name` as a program. beside: the services started together, which it is told of."""
    environment = {
        "REFDESK_HOST": settings.host,
        "REFDESK_DATA_DIR": str(settings.data_dir),
    }
    for other in SERVICES:
        prefix = f"REFDESK_{other.upper()}"
        environment[f"{prefix}_PORT"] = str(settings.port(other))
        if other in beside:
            environment[f"{prefix}_URL"] = _url(settings, other)
    # -P: a folder named `services` where the command happens to be run is not ours.
    command = (sys.executable, "-P", "-m", f"services.{name}")
    return Program(name, command, environment, _url(settings, name), logs / f"{name}.log")


def _url(settings: Settings, service: ServiceName) -> str:
    # Nothing is listened on here: who listens everywhere is reached on loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port(service)}"


def _will_build(settings: Settings) -> bool:
    return not settings.built_dir.is_dir() or not any(settings.built_dir.iterdir())


def check_models(settings: Mapping[ServiceName, Settings]) -> None:
    """Raise CliError if a model that one of these services needs is not in the store."""
    for name, own in settings.items():
        model = {
            "embed": own.embed_model,
            "rerank": own.rerank_model,
            "generate": "" if own.reasoning_url else own.llm_model,
        }.get(name)
        if model:
            try:
                ModelStore(own.models_dir).require(model)
            except StartupError as error:
                raise CliError(str(error)) from None


def check_ports(settings: Mapping[ServiceName, Settings]) -> None:
    """Raise CliError naming every port that can't be listened on, before anything is started."""
    taken = [
        f"{own.port(name)} ({name})"
        for name, own in settings.items()
        if not port_is_free(own.host, own.port(name))
    ]
    if taken:
        raise CliError(
            f"{'port' if len(taken) == 1 else 'ports'} {', '.join(taken)} can't be listened on: "
            "stop what uses them (is refdesk running already? `refdesk status` tells), or choose "
            "others with `refdesk up --port-base N`"
        )


def port_is_free(host: str, port: int) -> bool:
    """Whether nobody else listens there now.

    True also for a host that is no address of ours: the service itself says what is wrong then.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno not in _IN_USE
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports of loopback that nothing listens on at this moment."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _wait_ready(
    group: Supervisor, building: set[str], console: Console, limit_s: float | None
) -> dict[str, float]:
    """Wait until every service has proved its work, showing how each is; seconds each took."""
    started = time.monotonic()
    noted = 0.0
    took: dict[str, float] = {}
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<9}"),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
    )
    with (
        progress(console, *columns) as display,
        httpx.Client(timeout=_PROBE_SECONDS, trust_env=False) as client,
    ):
        tasks: dict[str, TaskID] = {}
        for one in group.programs:
            state = "starting"
            if one.name in building:
                state = "building the model graph (first start only)"
            tasks[one.name] = display.add_task(one.name, total=1, state=state)
        while len(took) < len(tasks):
            group.check()
            for one in group.programs:
                if one.name in took:
                    continue
                if group.deaths()[one.name] >= _DEATHS:
                    raise CliError(
                        f"{one.name} ends each time it is started; the end of {one.log} says why"
                    )
                reason = _unready(client, one.url)
                if reason is None:
                    took[one.name] = time.monotonic() - started
                    display.update(tasks[one.name], completed=1, state="ready")
                elif reason:
                    display.update(tasks[one.name], state=reason)
                waited = time.monotonic() - started
                if waited > noted + _NOTE_EVERY_S:
                    noted = waited
                    why = one_line(reason or "it does not answer yet")
                    console.print(f"waiting for {one.name}: {why}", markup=False, soft_wrap=True)
                if limit_s is not None and waited > limit_s:
                    raise CliError(
                        f"{one.name} was not ready within {limit_s:.0f} s"
                        f"{f': {reason}' if reason else ''}; see {one.log}"
                    )
            time.sleep(_BETWEEN_PROBES_S)
    return took


def _unready(client: httpx.Client, url: str) -> str | None:
    """Why the service is not ready: None if it is, empty while it does not answer at all."""
    try:
        response = client.get(f"{url}/ready")
    except (httpx.TransportError, *NO_ADDRESS):  # of a wrong host the service itself tells
        return ""
    if response.status_code == 200:
        return None
    try:
        return str(orjson.loads(response.content)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"answers status {response.status_code}"


def with_port_base(settings: Settings, base: int) -> Settings:
    """These settings with the four services on this machine, at ports base + 1 to base + 4."""
    ports = {f"{name}_port": base + place for place, name in enumerate(SERVICES, start=1)}
    return settings.model_copy(update={**ports, **{f"{name}_url": "" for name in SERVICES}})
