"""``refdesk models``: fill, show and check the model store."""

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from shared.cli.console import notes, output
from shared.cli.failures import CliError
from shared.modelstore.progress import Progress
from shared.modelstore.resolve import Hub, resolve
from shared.modelstore.store import ModelStore, Revision
from shared.settings import load_settings

app = typer.Typer(help="Fill, show and check the model store.", no_args_is_help=True)


@contextlib.contextmanager
def _progress_bars() -> Iterator[Progress]:
    """A bar per task on standard error; where that is no terminal, a line per task."""
    console = notes()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        def show(task: str, done: int, total: int | None) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
                if not console.is_terminal:
                    console.print(f"{task} …", markup=False)
            bars.update(tasks[task], completed=done, total=total)

        yield show


@app.command()
def pull(
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="`default`, a known name, a folder, or a hub id organisation/name[@revision]",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="What to call a model from a folder or hub id.")
    ] = None,
) -> None:
    """Bring models into the store. Does nothing for those that are there and undamaged."""
    settings = load_settings()
    if name and len(wanted) > 1:
        raise CliError("--name is for one model: pull the others by themselves")
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    hub = Hub(settings.hub_url, token)
    store = ModelStore(settings.models_dir)
    stored = {found.name: found.entry for found in store.revisions() if found.current}
    readable = {name: entry for name, entry in stored.items() if entry}
    sources = [
        source for one in wanted for source in resolve(one, name=name, stored=readable, hub=hub)
    ]
    for source in sources:
        with _progress_bars() as progress:
            pulled = store.pull(source, progress)
        entry = pulled.entry
        done = "pulled" if pulled.fetched else "already there"
        print(f"{entry.name} {entry.revision}: {done} ({_size(entry.bytes)}, {entry.path})")


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead.")] = False,
) -> None:
    """Show what is in the store, checked by size; `verify` reads every byte."""
    settings = load_settings()
    revisions = ModelStore(settings.models_dir).revisions()
    if as_json:
        print(json.dumps([_as_json(found) for found in revisions], indent=2))
        return
    if not revisions:
        print(f"no model is in {settings.models_dir}: run `refdesk models pull default`")
        return
    table = Table("name", "revision", "size", "licence", "source", "state", box=None)
    for found in revisions:
        entry = found.entry
        described = (_size(entry.bytes), entry.licence, entry.source) if entry else ("", "", "")
        cells = (found.name, found.revision, *described, _state(found))
        table.add_row(*map(Text, cells))
    output().print(table)


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="One model; all if left out.")] = None,
) -> None:
    """Compare every byte in the store with the recorded SHA-256; exit code 1 if any differs."""
    store = ModelStore(load_settings().models_dir)
    with _progress_bars() as progress:
        revisions = store.verify(name, progress)
    for found in revisions:
        for line in found.problems or (f"{found.name} {found.revision}: whole",):
            print(line)
    damaged = [found for found in revisions if found.problems]
    if damaged:
        count = sum(len(found.problems) for found in damaged)
        remedies = (
            f"run `refdesk models pull {found.name}`"
            if found.current
            else f"delete {store.folder / found.name / found.revision}, which is not in use"
            for found in damaged
        )
        raise CliError(f"{count} missing or damaged files: {'; '.join(remedies)}")


def _state(found: Revision) -> str:
    if found.problems:
        return f"damaged: {found.problems[0].file} {found.problems[0].fault}"
    return "ready" if found.current else "not in use"


def _as_json(found: Revision) -> dict[str, object]:
    entry = found.entry
    known = entry.model_dump(mode="json") if entry else {}
    shown = {"name": found.name, "revision": found.revision, "state": _state(found)}
    return {**known, **shown, "bytes": entry.bytes if entry else None}


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
