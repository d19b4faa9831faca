"""``refdesk backup`` and ``refdesk restore``: a corpus as one file, and back."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from shared.cli.carry import PATIENCE_S, save, send
from shared.cli.console import notes, one_line
from shared.cli.failures import CliError
from shared.cli.http import Api, corpus_path
from shared.settings import load_settings

Address = Annotated[str, typer.Option(help="Address of the retrieve service.")]


def backup(
    corpus: Annotated[str, typer.Argument(help="The corpus.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    url: Address = "",
) -> None:
    """Back up a corpus to one file, while it is in use.

    The file appears once it is complete; one that is there is replaced then.
    """
    console = notes()
    with Api("retrieve", load_settings(), url, patience_s=PATIENCE_S) as api:
        size = save(api, f"{corpus_path(corpus)}/backup", file, console, f"back up {corpus}")
    console.print(f"backed up corpus {corpus}: {size} bytes in {file}", markup=False)


def restore(
    file: Annotated[Path, typer.Argument(help="The backup.", show_default=False)],
    corpus: Annotated[
        str, typer.Option(help="The name to restore it as; that of the corpus if not given.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of a corpus that is there.")
    ] = False,
    url: Address = "",
) -> None:
    """Restore a corpus from a backup: whole, or not at all."""
    console = notes()
    corpus = corpus or _name_in(file)
    query = "?replace=true" if replace else ""
    with Api("retrieve", load_settings(), url, patience_s=PATIENCE_S) as api:
        if not replace and corpus in [
            one["name"] for one in api.get("/corpora", "corpora")["corpora"]
        ]:
            raise CliError(
                f"there is a corpus {corpus} already: name another one with --corpus, "
                "or put the backup in its place with --replace"
            )
        answer = send(
            api,
            f"{corpus_path(corpus)}/restore{query}",
            file,
            "application/vnd.sqlite3",
            console,
            f"restore {corpus}",
            "corpus",
            "backup",
            "notes",
        )
    found = answer["corpus"]
    told = f"{found['documents']} documents, {found['chunks']} chunks"
    console.print(f"restored corpus {corpus}: {told}", markup=False)
    for note in answer["notes"]:
        console.print(one_line(f"note: {note}"), markup=False, soft_wrap=True)


def _name_in(file: Path) -> str:
    """The name of the corpus that a backup was made of, by its manifest."""
    if not file.is_file():
        raise CliError(f"there is no file {file}")
    address = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as db:
            db.execute("PRAGMA trusted_schema = OFF")
            row = db.execute("SELECT value FROM meta WHERE name = 'manifest'").fetchone()
        return str(json.loads(row[0])["name"])
    except (sqlite3.Error, TypeError, ValueError, KeyError):
        raise CliError(f"{file} is no backup of a corpus; `refdesk backup` makes one") from None
