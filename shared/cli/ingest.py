"""``refdesk ingest``: bring a corpus to what files and folders say."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from shared.cli.changes import Hashes
from shared.cli.console import notes, one_line, say_line
from shared.cli.failures import CliError
from shared.cli.folder import Found, Rules, find_files
from shared.cli.http import Api
from shared.cli.prune import delete, gone, plan
from shared.cli.sources import Failure
from shared.cli.upload import Tally, documents_of, ensure_corpus, limits_of, store_with_bar
from shared.cli.watch import keep_watching
from shared.settings import load_settings

PATIENCE_S = 600.0  # for one upload: a slow disk takes its time to make it durable
_SHOWN_FAILURES = 50
_STATUSES = ("created", "replaced", "unchanged", "deleted")

Globs = list[str] | None


def ingest(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Files, folders and globs. A .zip brings its files, a .jsonl or .ndjson a "
            "document {id, text, title?, url?, metadata?} in each line.",
            show_default=False,
        ),
    ],
    corpus: Annotated[str, typer.Option(help="The corpus; it is made if there is none.")],
    include: Annotated[
        Globs,
        typer.Option(help="Take only files in folders that match this glob; may be repeated."),
    ] = None,
    exclude: Annotated[
        Globs,
        typer.Option(help="Leave out files and folders that match this glob; may be repeated."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Stands before the id of each document.")] = "",
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Delete what the corpus holds, under --prefix, and these files no longer do.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on whenever files change, until Ctrl-C.")
    ] = False,
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
    if dry_run and watch:
        raise typer.BadParameter("--dry-run and --watch don't go together")
    rules = Rules(include or (), exclude or (), prefix)
    console = notes()
    found = find_files(paths, rules)
    if not found.files and not found.unreadable and not watch:
        raise CliError(_nothing(paths, rules, prune))
    with Api("retrieve", load_settings(), url, patience_s=PATIENCE_S) as api:
        if dry_run:
            _show_plan(api, corpus, found, rules, prune, console)
            return
        if ensure_corpus(api, corpus, language):
            console.print(f"made corpus {corpus}", markup=False)
        hashes = Hashes()
        tally = _sync(api, corpus, found, rules, prune, console, hashes)
        _report(tally, found, console)
        if watch:
            told = {(one.source, one.reason) for one in tally.failed}

            def again() -> None:
                now = find_files(paths, rules)
                _report_briefly(
                    _sync(api, corpus, now, rules, prune, console, hashes), told, console
                )

            keep_watching(paths, again, console)
            return
    if tally.failed:
        raise typer.Exit(1)


def _nothing(paths: Sequence[str], rules: Rules, prune: bool) -> str:
    return (
        f"there is nothing to store in {', '.join(paths)}: no file "
        + ("matches --include" if rules.include else "of a kind that is read")
        + ("; nothing was deleted" if prune else "")
    )


def _sync(
    api: Api,
    corpus: str,
    found: Found,
    rules: Rules,
    prune: bool,
    console: Console,
    hashes: Hashes,
) -> Tally:
    """Store what has changed, and delete what is gone."""
    tally = Tally()
    try:
        items = documents_of(found, rules, limits_of(api, corpus))
        store_with_bar(api, corpus, items, found.size, console, hashes=hashes, tally=tally)
        if prune:
            delete(api, corpus, gone(api, corpus, rules.prefix, found, tally), tally)
    except KeyboardInterrupt:
        console.print(
            f"stopped: {tally.stored} documents were stored; run it again to go on", markup=False
        )
        raise
    except CliError:
        _report_failures(tally.failed, console)
        raise
    return tally


def _show_plan(
    api: Api, corpus: str, found: Found, rules: Rules, prune: bool, console: Console
) -> None:
    planned = plan(api, corpus, found, rules, partial(say_line, console), prune=prune)
    todo = {"create": planned.create, "replace": planned.replace, "delete": planned.delete}
    for action, ids in todo.items():
        for one in ids:
            print(one_line(f"{action} {one}"))
    tally = planned.tally
    _report_failures(tally.failed, console)
    _report_left_out(tally, found, console)
    table = Table(*todo, "unchanged", "failed", box=None)
    counts = [len(ids) for ids in todo.values()]
    table.add_row(*map(str, (*counts, tally.statuses["unchanged"], len(tally.failed))))
    console.print(table)


def _report(tally: Tally, found: Found, console: Console) -> None:
    _report_failures(tally.failed, console)
    _report_left_out(tally, found, console)
    table = Table(*_STATUSES, "failed", "chunks written", box=None)
    counts = [tally.statuses[name] for name in _STATUSES]
    table.add_row(*(str(count) for count in (*counts, len(tally.failed), tally.chunks)))
    console.print(table)


def _report_briefly(tally: Tally, told: set[tuple[str, str]], console: Console) -> None:
    """What is new, while files are watched. told: the failures that were told, and are now."""
    _report_failures([one for one in tally.failed if (one.source, one.reason) not in told], console)
    told.clear()
    told.update((one.source, one.reason) for one in tally.failed)
    done = [f"{tally.statuses[name]} {name}" for name in _STATUSES if name != "unchanged"]
    if any(tally.statuses[name] for name in _STATUSES if name != "unchanged"):
        console.print(", ".join(done), markup=False)


def _report_failures(failed: Sequence[Failure], console: Console) -> None:
    for failure in failed[:_SHOWN_FAILURES]:
        say_line(console, f"failed: {_shown(failure.source)}: {failure.reason}")
    if len(failed) > _SHOWN_FAILURES:
        console.print(f"failed: {len(failed) - _SHOWN_FAILURES} more")


def _report_left_out(tally: Tally, found: Found, console: Console) -> None:
    left_out = [*found.left_out, *tally.left_out]
    for reason, count in Counter(one.reason for one in left_out).items():
        sources = (one.source for one in left_out if one.reason == reason)
        examples = [_shown(Path(one).name) for one in islice(sources, 3)]
        say_line(console, f"left out ({reason}): {count}, such as {', '.join(examples)}")


def _shown(path: str) -> str:
    """A path with what is not UTF-8 in it as escapes: without it one could not tell which it is."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
