"""``refdesk route``: who would answer a question, and why, without an answer."""

from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from shared.cli.ask import question_body
from shared.cli.console import notes, one_line, output
from shared.cli.http import Api
from shared.cli.retrieve import show_degraded, show_timings
from shared.settings import load_settings


def route(
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    corpus: Annotated[
        list[str] | None, typer.Option(help="Where to look; may be repeated. [default: all]")
    ] = None,
    model: Annotated[str, typer.Option(help="auto, a tier or a model.")] = "auto",
    data_class: Annotated[
        str, typer.Option(help="The class of the question, such as confidential.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="The decision as it came, as JSON.")
    ] = False,
    url: Annotated[str, typer.Option(help="Address of the generate service.")] = "",
) -> None:
    """Say which tier and model would answer a question, and why; nothing is written."""
    body = question_body(question, corpus, model)
    if data_class:
        body["refdesk"]["data_class"] = data_class
    with Api("generate", load_settings(), url) as api:
        answer = api.post("/v1/route", body, "rule", "ruled_out")  # no other server has those
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    _show(answer, output())
    show_degraded(answer["degraded"])
    show_timings(answer["timings_ms"], notes())


def _show(answer: dict[str, Any], console: Console) -> None:
    def line(text: str, style: str = "") -> None:
        console.print(one_line(text), style=style, markup=False, soft_wrap=True)

    if answer["tier"] is not None:
        line(f"{answer['tier']}: {answer['model']}, checks {answer['checks']}", "bold")
    elif answer["declines"]:
        line("no writer is asked: the sources do not answer this question", "bold")
    else:
        line(f"no tier is left; last resort: {answer['last_resort']}", "bold")
    line(
        f"rule {answer['rule']}, data class {answer['data_class']} ({answer['data_class_source']})"
    )
    for reason in answer["reasons"]:
        line(f"{reason['weight']:+.3f} {reason['name']}: {reason['seen']}")
    if answer["fallbacks"]:
        line(f"if it fails: {', '.join(answer['fallbacks'])}")
    for step in answer["escalation"]:
        line(f"next tier: {step['tier']}: {', '.join(step['models'])}")
    for one in answer["ruled_out"]:
        line(f"ruled out: {one['model']} by {one['rule']}: {one['why']}", "dim")
    line(f"policy {answer['policy']}", "dim")
