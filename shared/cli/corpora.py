"""``refdesk corpora``: what is stored, and how it is set up."""

from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes, one_line, output
from shared.cli.failures import CliError, RefusedError
from shared.cli.http import Api, corpus_path
from shared.settings import load_settings

app = typer.Typer(help="List, show, create, set up and delete corpora.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The corpus.", show_default=False)]
Address = Annotated[str, typer.Option(help="Address of the retrieve service.")]
AsJson = Annotated[bool, typer.Option("--json", help="As it came, as JSON.")]
Description = Annotated[str | None, typer.Option(help="A text for people.")]
Curate = Annotated[
    bool | None,
    typer.Option("--curate/--no-curate", help="Whether searches that do not say are curated."),
]
HalfLife = Annotated[
    float | None,
    typer.Option(
        "--half-life-days",
        help="Prefer recent documents in searches that do not say; half as much after that time.",
    ),
]
Weight = Annotated[
    float | None, typer.Option("--recency-weight", help="How much recent ones are preferred.")
]
Field = Annotated[
    str | None, typer.Option("--recency-field", help="The metadata that holds the date.")
]
Readers = Annotated[
    list[str] | None,
    typer.Option("--reader", help="A key or group that may read it; may be repeated."),
]


Embedder = Annotated[
    str | None, typer.Option(help="A model that embed serves; '' for its default one.")
]
Dimension = Annotated[
    int | None, typer.Option(help="So many of the first numbers of its vectors; all if not given.")
]
ChunkTokens = Annotated[int | None, typer.Option(help="Longest chunk, in tokens of the embedder.")]
ChunkOverlap = Annotated[int | None, typer.Option(help="Tokens that neighbouring chunks share.")]
Chunker = Annotated[str | None, typer.Option(help="What cuts the documents.")]


@app.command("list")
def list_corpora(as_json: AsJson = False, url: Address = "") -> None:
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
def show(name: Name, as_json: AsJson = False, url: Address = "") -> None:
    """Show a corpus: its settings, what it is made of, its generations and longest documents."""
    with Api("retrieve", load_settings(), url) as api:
        corpus = api.get(corpus_path(name), "documents")
        stats = api.get(f"{corpus_path(name)}/stats", "generations")
    if as_json:
        told = {"corpus": corpus, "stats": stats}
        print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
        return
    console = output()
    table = Table("", "", box=None, show_header=False)
    numbers = {key: stats[key] for key in ("tokens", "formats", "bytes", "last_write")}
    for key, value in {**corpus, **numbers}.items():
        table.add_row(key, _cell(value))
    console.print(table)
    generations = Table("generation", "state", "model", "chunker", "documents", box=None)
    for one in stats["generations"]:
        model = f"{one['model']} {one['revision']}"
        cells = (one["generation"], one["state"], model, one["chunker"], one["documents"])
        generations.add_row(*(_cell(cell) for cell in cells))
    console.print(generations)
    longest = Table("longest documents", "chunks", box=None)
    for one in stats["longest"]:
        longest.add_row(_cell(one["id"]), _cell(one["chunks"]))
    console.print(longest)


@app.command()
def create(
    name: Name,
    description: Description = None,
    language: Annotated[
        str | None, typer.Option(help="ISO 639-1 code, or mul; English if not given.")
    ] = None,
    embedder: Embedder = None,
    dimension: Dimension = None,
    chunk_tokens: ChunkTokens = None,
    chunk_overlap: ChunkOverlap = None,
    chunker: Chunker = None,
    curate: Curate = None,
    half_life_days: HalfLife = None,
    recency_weight: Weight = None,
    recency_field: Field = None,
    reader: Readers = None,
    url: Address = "",
) -> None:
    """Make an empty corpus. Where it is there with these settings, nothing is done."""
    wanted = {
        "description": description,
        "language": language,
        "embedder": embedder,
        "dimension": dimension,
        "chunker": chunker,
        "chunk_tokens": chunk_tokens,
        "chunk_overlap": chunk_overlap,
        "curate": curate,
        "recency": _recency(half_life_days, recency_weight, recency_field),
        "readers": reader,
    }
    body = {key: value for key, value in wanted.items() if value is not None}
    with Api("retrieve", load_settings(), url) as api:
        before = [one["name"] for one in api.get("/corpora", "corpora")["corpora"]]
        api.put(corpus_path(name), body)
    told = f"corpus {name} is there already" if name in before else f"made corpus {name}"
    notes().print(told, markup=False)


@app.command("set")
def set_up(
    name: Name,
    description: Description = None,
    curate: Curate = None,
    half_life_days: HalfLife = None,
    recency_weight: Weight = None,
    recency_field: Field = None,
    no_recency: Annotated[
        bool, typer.Option("--no-recency", help="Prefer no recent documents.")
    ] = False,
    reader: Readers = None,
    everyone: Annotated[
        bool, typer.Option("--everyone", help="Let every key read it that names it.")
    ] = False,
    url: Address = "",
) -> None:
    """Change what may change of a corpus at any time; what is not named stays."""
    recency = _recency(half_life_days, recency_weight, recency_field)
    if no_recency and recency:
        raise CliError("--no-recency goes with none of the options of recency")
    if everyone and reader:
        raise CliError("--everyone and --reader exclude each other")
    wanted: dict[str, Any] = {
        "description": description,
        "curate": curate,
        "recency": recency,
        "readers": reader or None,
    }
    body = {key: value for key, value in wanted.items() if value is not None}
    body |= {"recency": None} if no_recency else {}
    body |= {"readers": None} if everyone else {}
    if not body:
        raise CliError("there is nothing to change: name what is to be set")
    with Api("retrieve", load_settings(), url) as api:
        api.patch(corpus_path(name), body)
    notes().print(f"set {', '.join(sorted(body))} of corpus {name}", markup=False)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="The corpus to delete.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Address = "",
) -> None:
    """Delete a corpus with all its documents. There is no way back but a backup."""
    with Api("retrieve", load_settings(), url) as api:
        path = corpus_path(name)
        what = _described(api, name)
        if not yes:
            typer.confirm(f"Delete corpus {what}?", abort=True, err=True)
        api.delete(path)
    notes().print(f"deleted corpus {name}", markup=False)


def _described(api: Api, name: str) -> str:
    """A corpus that is there, for whoever is asked about it. Raises CliError."""
    try:
        documents = api.get(corpus_path(name), "documents")["documents"]
    except RefusedError as error:
        if error.code != "corpus_damaged":
            raise
        return f"{name}, which is damaged"
    return f"{name} with {documents} documents"


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


def _recency(
    half_life_days: float | None, weight: float | None, field: str | None
) -> dict[str, Any] | None:
    given = {"half_life_days": half_life_days, "weight": weight, "field": field}
    return {key: value for key, value in given.items() if value is not None} or None


def _cell(value: Any) -> str:
    told = value if isinstance(value, str) else orjson.dumps(value).decode()
    return escape(one_line("" if value is None else told))
