"""``refdesk corpora``: what is stored."""

from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes, one_line, output
from shared.cli.http import Api, corpus_path
from shared.settings import load_settings

app = typer.Typer(help="List and delete corpora.", no_args_is_help=True)

Address = Annotated[str, typer.Option(help="Address of the retrieve service.")]


@app.command("list")
def list_corpora(
    as_json: Annotated[bool, typer.Option("--json", help="As it came, as JSON.")] = False,
    url: Address = "",
) -> None:
    """List the corpora with their counts and the model that they were embedded with."""
    with Api("retrieve", load_settings(), url) as api:
        answer = api.get("/corpora", "corpora")
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    elif answer["corpora"]:
        output().print(corpora_table(answer["corpora"]))
    else:
        notes().print("there is no corpus yet: make one with `refdesk ingest PATH --corpus NAME`")


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="The corpus to delete.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Address = "",
) -> None:
    """Delete a corpus with all its documents. There is no way back."""
    with Api("retrieve", load_settings(), url) as api:
        path = corpus_path(name)
        documents = api.get(path, "documents")["documents"]
        if not yes:
            typer.confirm(f"Delete corpus {name} with {documents} documents?", abort=True, err=True)
        api.delete(path)
    notes().print(f"deleted corpus {name}", markup=False)


def corpora_table(corpora: list[dict[str, Any]]) -> Table:
    """The corpora, one a row."""
    table = Table("corpus", "documents", "chunks", "model", "description", box=None)
    for one in corpora:
        table.add_row(
            escape(one["name"]),
            str(one["documents"]),
            str(one["chunks"]),
            escape(f"{one['model']} {one['revision']}"),
            escape(one_line(one["description"])),
        )
    return table
