"""``refdesk up``: run the services on this machine."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes
from shared.cli.launch import services, with_port_base
from shared.settings import SERVICES, Settings, absolute, load_settings

_PURPOSE: dict[str, str] = {
    "embed": "text in, vectors out",
    "rerank": "a query and candidates in, scores out",
    "retrieve": "corpora, and the passages that answer",
    "generate": "answers with checked citations (OpenAI API)",
}


def up(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Start this service alone; repeat it for more than one."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder for corpora, built models and logs.")
    ] = None,
    port_base: Annotated[
        int | None,
        typer.Option(help="Listen on ports N+1 to N+4 instead of 8001 to 8004.", min=0, max=65531),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; beyond loopback needs API keys.")
    ] = None,
    logs: Annotated[
        bool, typer.Option("--logs", help="Show the services' logs here, too.")
    ] = False,
) -> None:
    """Run the services, each in a process of its own, until Ctrl-C.

    A service that dies is started again. Logs are in the data folder under logs/.
    """
    settings = place(load_settings(), data, port_base)
    if host is not None:
        settings = settings.model_copy(update={"host": host})
    unknown = set(only or ()).difference(SERVICES)
    if unknown:
        raise typer.BadParameter(f"--only {min(unknown)}: the services are {', '.join(SERVICES)}")
    chosen = [name for name in SERVICES if not only or name in only]
    console = notes()
    begun = time.monotonic()
    each = dict.fromkeys(chosen, settings)
    with services(each, settings.data_dir / "logs", console, echo=logs) as (group, took):
        table = Table("service", "address", "what it is for", "ready after", box=None)
        for one in group.programs:
            table.add_row(one.name, escape(one.url), _PURPOSE[one.name], f"{took[one.name]:.1f} s")
        console.print(table)
        console.print(
            f"All ready in {time.monotonic() - begun:.1f} s. Data and logs: {settings.data_dir}. "
            "Ctrl-C stops them.",
            markup=False,
            soft_wrap=True,
        )
        try:
            group.watch()
        except KeyboardInterrupt:  # how one ends it: no failure
            console.print("stopping")


def place(settings: Settings, data: Path | None, port_base: int | None) -> Settings:
    """`settings` with another data folder and other ports, where they are given."""
    if data is not None:
        settings = settings.model_copy(update={"data_dir": absolute(data)})
    return settings if port_base is None else with_port_base(settings, port_base)
