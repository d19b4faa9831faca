"""``refdesk retrieve``: the passages that answer a question."""

import re
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from shared.cli.console import notes, one_line, output, plain
from shared.cli.http import Api
from shared.settings import load_settings

BUDGET_TOKENS = 1200  # what a chat gets, too
ANSWER_FIELDS = ("hits", "dropped", "skipped", "degraded", "timings_ms")


def _filter(given: str) -> dict[str, Any]:
    """A filter's JSON; what it means the desk knows."""
    try:
        found = orjson.loads(given)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise typer.BadParameter("it must be a JSON object")
    return found


def _neighbors(given: str) -> str:
    if not re.fullmatch(r"document|\d{1,9}", given):
        raise typer.BadParameter("it must be a number of chunks, or `document`")
    return given


def retrieve(
    query: Annotated[str, typer.Argument(help="The question, or words.", show_default=False)],
    corpus: Annotated[list[str], typer.Option(help="Where to look; may be repeated.")],
    top_k: Annotated[int, typer.Option(help="How many passages, at most.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="The answer as it came, as JSON.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why each is in its place.")
    ] = False,
    curate: Annotated[
        bool | None,
        typer.Option(
            help="Whether the curator reorders the passages; as the corpora say, if not given."
        ),
    ] = None,
    arms: Annotated[
        str, typer.Option(help="Only these searches, with commas, such as bm25,dense.")
    ] = "",
    filter_: Annotated[
        dict[str, Any] | None,
        typer.Option(
            "--filter",
            parser=_filter,
            metavar="JSON",
            help='Which documents count, such as {"type": "eq", "key": "year", "value": 2026}.',
        ),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Least score of a passage, 0 to 1.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="Budget for all passages together.")
    ] = BUDGET_TOKENS,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Model whose tokens the budget counts; the corpora's own if not given."),
    ] = None,
    neighbors: Annotated[
        str,
        typer.Option(
            parser=_neighbors,
            metavar="N|document",
            help="Widen each passage by so many chunks before and after it, or to its document.",
        ),
    ] = "0",
    url: Annotated[str, typer.Option(help="Address of the retrieve service.")] = "",
) -> None:
    """Find the passages that answer a question, best first."""
    body = {
        "query": query,
        "corpora": corpus,
        "top_k": top_k,
        "max_tokens": max_tokens,
        "explain": explain,
        "curate": curate,
        "arms": [arm.strip() for arm in arms.split(",")] if arms else None,
        "filter": filter_,
        "min_score": min_score,
        "tokenizer": tokenizer,
        "neighbors": neighbors if neighbors == "document" else int(neighbors),
    }
    given = {name: value for name, value in body.items() if value is not None}
    with Api("retrieve", load_settings(), url) as api:
        answer = api.post("/retrieve", given, *ANSWER_FIELDS)
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    console = output()
    for hit in answer["hits"]:
        _show_hit(hit, console)
    for reason in sorted({drop["reason"] for drop in answer["dropped"]}):
        count = sum(drop["reason"] == reason for drop in answer["dropped"])
        notes().print(f"left out ({reason}): {count}", markup=False)
    if not answer["hits"]:
        notes().print("nothing was found")
    for one in answer["skipped"]:
        line = one_line(f"without {one['stage']}: {one['reason']}")
        notes().print(line, markup=False, soft_wrap=True)
    show_degraded(answer["degraded"])
    show_timings(answer["timings_ms"], notes())


def _show_hit(hit: dict[str, Any], console: Console) -> None:
    title = one_line(hit["title"] or hit["document_id"])
    where = one_line(f"{hit['corpus']}/{hit['id']}{'  ' + hit['url'] if hit['url'] else ''}")
    console.print(f"{hit['rank']}. {title}", style="bold", markup=False, soft_wrap=True)
    console.print(f"   {hit['score']:.3f}  {where}", style="dim", markup=False, soft_wrap=True)
    console.print(plain(hit["text"]).strip(), markup=False, soft_wrap=True)
    if hit.get("explain"):
        _show_explanation(hit["explain"], console)
    console.print()


def _show_explanation(explain: dict[str, Any], console: Console) -> None:
    table = Table("", "rank", "score", "share", box=None)
    for arm, told in explain["arms"].items():
        score = "-" if told["score"] is None else f"{told['score']:.3f}"
        table.add_row(arm, str(told["rank"] or "-"), score, f"{told['share']:.5f}")
    table.add_row("fused", str(explain["fused_rank"]), f"{explain['fused_score']:.5f}", "")
    console.print(table)
    curation = explain["curation"]
    if curation:
        parts = ", ".join(f"{name} {value:+.2f}" for name, value in curation["z"].items())
        console.print(
            f" curated from place {curation['rank_before']} to {curation['rank_after']}: relevance "
            f"{curation['relevance']:.3f}, blend {curation['blended']:+.2f} (z: {parts})",
            markup=False,
        )


def show_degraded(degraded: list[str]) -> None:
    """Say on stderr which stages failed or were left out, if any."""
    if degraded:
        message = f"degraded: without {', '.join(degraded)}; `refdesk status` says how they are"
        notes().print(message, style="yellow", markup=False, soft_wrap=True)


def show_timings(timings_ms: dict[str, float], console: Console) -> None:
    """Print what each stage took, on one line."""
    stages = "  ".join(f"{stage} {_milliseconds(ms)}" for stage, ms in timings_ms.items())
    console.print(f"time: {stages}", style="dim", markup=False, soft_wrap=True)


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.1f} s"
