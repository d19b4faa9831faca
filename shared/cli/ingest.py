"""``refdesk ingest``: put files into a corpus."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from shared.cli.console import notes, one_line
from shared.cli.failures import CliError
from shared.cli.http import Api
from shared.cli.sources import Found, find_files, read
from shared.cli.upload import Tally, ensure_corpus, upload_with_bar
from shared.settings import load_settings

PATIENCE_S = 600.0  # for one batch: a very long document takes minutes on a slow machine
_SHOWN_FAILURES = 50


def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Files or folders: .txt .md .markdown .html .htm, and .jsonl .ndjson with one "
            "document {id, text, title?, url?, metadata?} per line.",
            show_default=False,
        ),
    ],
    corpus: Annotated[str, typer.Option(help="The corpus; it is made if there is none.")],
    include: Annotated[
        list[str] | None,
        typer.Option(help="Take only files in folders that match this glob; may be repeated."),
    ] = None,
    language: Annotated[
        str,
        typer.Option(
            help="ISO 639-1 code of a new corpus's language, or mul; English if not given."
        ),
    ] = "",
    url: Annotated[str, typer.Option(help="Address of the retrieve service.")] = "",
) -> None:
    """Store documents in a corpus. Running it again sends only what has changed.

    A document's id is its path relative to the folder given. Files that can't be stored are named
    with the reason, the rest is stored, and the exit code is 1.
    """
    console = notes()
    found = find_files(paths, include or [])
    if not found.files and not found.unreadable:
        raise CliError(
            f"there is nothing to store in {', '.join(str(path) for path in paths)}: no file "
            + ("matches --include" if include else "of text, Markdown, HTML or JSON lines")
        )
    with Api("retrieve", load_settings(), url, patience_s=PATIENCE_S) as api:
        if ensure_corpus(api, corpus, language):
            console.print(f"made corpus {corpus}", markup=False)
        documents = chain(found.unreadable, chain.from_iterable(read(file) for file in found.files))
        size = sum(file.size for file in found.files)
        tally = upload_with_bar(api, corpus, documents, size, console)
    _report(tally, found)
    if tally.failed:
        raise typer.Exit(1)


def _report(tally: Tally, found: Found) -> None:
    console = notes()
    for failure in tally.failed[:_SHOWN_FAILURES]:
        line = one_line(f"failed: {failure.source}: {failure.reason}")
        console.print(line, markup=False, soft_wrap=True)
    if len(tally.failed) > _SHOWN_FAILURES:
        console.print(f"failed: {len(tally.failed) - _SHOWN_FAILURES} more")
    for reason, count in Counter(one.reason for one in found.left_out).items():
        examples = [Path(one.source).name for one in found.left_out if one.reason == reason][:3]
        line = one_line(f"left out ({reason}): {count}, such as {', '.join(examples)}")
        console.print(line, markup=False, soft_wrap=True)
    table = Table("created", "replaced", "unchanged", "failed", "chunks written", box=None)
    counts = [tally.statuses[name] for name in ("created", "replaced", "unchanged")]
    table.add_row(*(str(count) for count in (*counts, len(tally.failed), tally.chunks)))
    console.print(table)
