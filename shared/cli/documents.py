"""``refdesk documents``: what is in a corpus, document by document."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes, one_line, output, plain
from shared.cli.failures import CliError
from shared.cli.http import Api, corpus_path
from shared.settings import load_settings

_PAGE = 1000
_DELETED_AT_ONCE = 1000

app = typer.Typer(help="List, show and delete documents.", no_args_is_help=True)

Corpus = Annotated[str, typer.Argument(help="The corpus.", show_default=False)]
Prefix = Annotated[str, typer.Option(help="Only those whose ids begin so.")]
Filter = Annotated[
    str, typer.Option("--filter", help="Only those whose metadata passes this filter, as JSON.")
]
Address = Annotated[str, typer.Option(help="Address of the retrieve service.")]
AsJson = Annotated[bool, typer.Option("--json", help="As it came, as JSON.")]


@app.command("list")
def list_documents(
    corpus: Corpus,
    prefix: Prefix = "",
    condition: Filter = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 is all.", min=0)] = 100,
    as_json: AsJson = False,
    url: Address = "",
) -> None:
    """List documents in the order of their ids."""
    with Api("retrieve", load_settings(), url) as api:
        every = listed(api, corpus, prefix, condition)
        found = list(islice(every, limit or None))
        more = next(every, None) is not None
    if as_json:
        print(orjson.dumps({"documents": found}, option=orjson.OPT_INDENT_2).decode())
    elif found:
        table = Table("id", "title", "chunks", "written", box=None)
        for one in found:
            table.add_row(
                escape(one_line(one["id"])),
                escape(one_line(one["title"] or "")),
                str(one["chunks"]),
                one["updated_at"][:19].replace("T", " "),
            )
        output().print(table)
    if not found:
        notes().print("there are no such documents")
    elif more:
        notes().print("there are more: --limit 0 lists all")


@app.command()
def show(
    corpus: Corpus,
    document: Annotated[str, typer.Argument(metavar="ID", help="Its id.", show_default=False)],
    as_json: AsJson = False,
    url: Address = "",
) -> None:
    """Show a document: what is known of it, then its text as it was parsed."""
    with Api("retrieve", load_settings(), url) as api:
        found = api.get(f"{corpus_path(corpus)}/documents/{_quoted(document)}", "id", "text")
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    console = output()
    table = Table("", "", box=None, show_header=False)
    for name, value in found.items():
        if name not in ("text", "outline") and value is not None:
            told = value if isinstance(value, str | int) else orjson.dumps(value).decode()
            table.add_row(name, escape(one_line(str(told))))
    console.print(table)
    console.print()
    console.print(plain(found["text"]), markup=False, soft_wrap=True)


@app.command()
def delete(
    corpus: Corpus,
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Their ids.", show_default=False)
    ] = None,
    prefix: Prefix = "",
    condition: Filter = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Address = "",
) -> None:
    """Delete documents: those named, or all that --prefix and --filter choose.

    Those that are not there are counted as missing.
    """
    if bool(documents) == bool(prefix or condition):
        raise CliError("name the documents by their ids, or choose them by --prefix and --filter")
    with Api("retrieve", load_settings(), url) as api:
        ids = documents or [one["id"] for one in listed(api, corpus, prefix, condition)]
        if not yes and ids:
            question = f"Delete {len(ids)} documents, such as {one_line(ids[0])}, from {corpus}?"
            typer.confirm(question, abort=True, err=True)
        deleted = missing = 0
        for at in range(0, len(ids), _DELETED_AT_ONCE):
            path = f"{corpus_path(corpus)}/documents/delete"
            body = {"ids": ids[at : at + _DELETED_AT_ONCE]}
            answer = api.post(path, body, "deleted", "missing")
            deleted += len(answer["deleted"])
            missing += len(answer["missing"])
    told = f"deleted {deleted} documents of corpus {corpus}"
    notes().print(f"{told}, {missing} were missing" if missing else told, markup=False)


def listed(api: Api, corpus: str, prefix: str, condition: str) -> Iterator[dict[str, Any]]:
    """The documents whose ids begin with `prefix` and whose metadata passes `condition`, JSON of a
    filter; in the order of their ids. Raises CliError."""
    wanted = {"prefix": prefix, "filter": condition, "limit": str(_PAGE)}
    after = ""
    while True:
        asked = {name: value for name, value in {**wanted, "after": after}.items() if value}
        try:
            path = f"{corpus_path(corpus)}/documents?{urlencode(asked)}"
        except UnicodeEncodeError:
            raise CliError("a prefix and a filter must be UTF-8") from None
        page = api.get(path, "documents", "next")
        yield from page["documents"]
        if page["next"] is None:
            return
        after = page["next"]


def _quoted(document: str) -> str:
    try:
        return quote(document, safe="")
    except UnicodeEncodeError:
        raise CliError("the id of a document must be UTF-8") from None
