"""``refdesk keys``: API keys."""

import fcntl
import os
import secrets
import stat
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from shared.auth import KeyEntry, KeyFile, Role, hash_key
from shared.cli.console import notes
from shared.cli.failures import CliError
from shared.durable import atomic_write
from shared.settings import SERVICES, absolute, load_settings

app = typer.Typer(help="Make API keys.", no_args_is_help=True)


@app.callback()
def _group() -> None:  # a group of one command is a group all the same
    pass


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is.", show_default=False)],
    file: Annotated[
        Path | None, typer.Option(help="The keys file; REFDESK_KEYS_FILE if not given.")
    ] = None,
    role: Annotated[Role, typer.Option(help="admin may change corpora.")] = "reader",
    services: Annotated[str, typer.Option(help="Services it may use, with commas.")] = "*",
    corpora: Annotated[str, typer.Option(help="Corpora it may use, with commas.")] = "*",
    tiers: Annotated[str, typer.Option(help="Tiers that may answer it, with commas.")] = "*",
    group: Annotated[
        list[str] | None, typer.Option(help="A group whose documents it may read; may be repeated.")
    ] = None,
) -> None:
    """Make an API key, print it once, and add its hash to the keys file."""
    path = file or load_settings().keys_file
    if path is None:
        raise CliError("say where the keys are kept: --file FILE, or set REFDESK_KEYS_FILE")
    allowed = _names(services, "--services")
    unknown = sorted(set(allowed) - {*SERVICES, "*"})
    if unknown:
        raise CliError(f"there is no service '{unknown[0]}'; there are {', '.join(SERVICES)}")
    if not 1 <= len(name) <= 128:
        raise CliError("the name of a key has 1 to 128 characters")
    groups = [one.strip() for one in group or []]
    if not all(1 <= len(one) <= 128 for one in groups):
        raise CliError("the name of a group has 1 to 128 characters")
    key = f"rd-{secrets.token_urlsafe(32)}"
    try:
        entry = KeyEntry(
            name=name,
            sha256=hash_key(key),
            role=role,
            services=allowed,
            corpora=_names(corpora, "--corpora"),
            tiers=_names(tiers, "--tiers"),
            groups=groups,
        )
    except ValidationError:  # what the shell passed on is not text
        raise CliError("the names of a key, its corpora, tiers and groups must be UTF-8") from None
    # A link stays a link: what it leads to is replaced.
    _append(Path(os.path.realpath(absolute(path))), entry)
    print(key)
    notes().print(
        f"added to {path}; the key is shown only now, and services read the file when they start",
        markup=False,
        soft_wrap=True,
    )


def _names(value: str, option: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise CliError(f"{option} names nothing; * stands for all")
    return names


def _append(path: Path, entry: KeyEntry) -> None:
    """Add `entry` to the file, which is there whole before and after.

    A new file is for its owner alone; one that is there keeps its permissions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The folder is locked, not the file: writing replaces the file.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        there = path.exists()
        keys = KeyFile.read(path).keys if there else []
        if any(one.name == entry.name for one in keys):
            raise CliError(f"{path} has a key named '{entry.name}' already; choose another name")
        text = KeyFile(keys=[*keys, entry]).model_dump_json(indent=2)
        mode = stat.S_IMODE(path.stat().st_mode) if there else 0o600
        atomic_write(path, f"{text}\n".encode(), mode)
    finally:
        os.close(folder)
