"""``refdesk ask``: an answer with citations."""

import re
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from shared.cli.console import notes, one_line, output, plain
from shared.cli.failures import CliError
from shared.cli.http import Api
from shared.cli.retrieve import show_degraded, show_timings
from shared.settings import load_settings

_MARKER = re.compile(r"\[(\d+)\]")
ANSWER_FIELDS = ("choices", "refdesk")
PATIENCE_S = 600.0  # a language model on a small machine takes its time


def ask(
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    corpus: Annotated[
        list[str] | None, typer.Option(help="Where to look; may be repeated. [default: all]")
    ] = None,
    model: Annotated[str, typer.Option(help="auto, a tier or a model.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="The answer as it came, as JSON.")
    ] = False,
    stream: Annotated[bool, typer.Option(help="Show the answer as it is sent.")] = True,
    url: Annotated[str, typer.Option(help="Address of the generate service.")] = "",
) -> None:
    """Ask a question and get an answer whose sentences name their sources."""
    with Api("generate", load_settings(), url, patience_s=PATIENCE_S) as api:
        body = question_body(question, corpus, model)
        if as_json:
            answer = api.post("/v1/chat/completions", body, *ANSWER_FIELDS)
            print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
            return
        if stream:
            content, trace = _stream(api, body)
        else:
            content, trace = show_text(
                api.post("/v1/chat/completions", body, *ANSWER_FIELDS), output()
            )
    show_sources(content, trace, output())
    show_decision(trace, notes())


def question_body(question: str, corpora: list[str] | None, model: str = "auto") -> dict[str, Any]:
    """The request that asks one question of some corpora; None: of those that the service says."""
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "refdesk": {"corpora": corpora}}


def _stream(api: Api, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Print the answer's text as it comes; gives the text and the trace of its last event."""
    console = output()
    content = ""
    trace: dict[str, Any] | None = None
    for event in api.stream("/v1/chat/completions", {**body, "stream": True}, "choices"):
        trace = event.get("refdesk", trace)
        for choice in event["choices"] or ():
            part = choice["delta"].get("content") or ""
            content += part
            console.print(plain(part), end="", markup=False, soft_wrap=True)
    console.print()
    if trace is None:
        raise CliError(f"the answer of {api.url} says nothing of its sources: is it refdesk's?")
    return content, trace


def show_text(answer: dict[str, Any], console: Console) -> tuple[str, dict[str, Any]]:
    """Print the text of a whole chat completion; gives the text and the trace."""
    content = answer["choices"][0]["message"]["content"]
    console.print(plain(content), markup=False, soft_wrap=True)
    return content, answer["refdesk"]


def show_sources(content: str, trace: dict[str, Any], console: Console) -> None:
    """Print the numbered list of the passages that the text cites."""
    cited = {int(number) for number in _MARKER.findall(content)}
    passages = [one for one in trace["passages"] if one["n"] in cited]
    if passages:
        console.print()
    for passage in passages:
        title = one_line(passage["title"] or passage["document_id"])
        where = one_line(passage["url"] or f"{passage['corpus']}/{passage['id']}")
        console.print(f"[{passage['n']}] {title} — {where}", markup=False, soft_wrap=True)


def show_decision(trace: dict[str, Any], console: Console) -> None:
    """Print which tier wrote the answer and why, what was checked, and what each stage took."""
    decision = trace["decision"]
    writer = one_line(f"{decision['tier']} ({decision['endpoint']})")
    reasons = one_line("; ".join(decision["reasons"]))
    console.print(f"written by {writer}: {reasons}", style="dim", markup=False, soft_wrap=True)
    if decision.get("escalated_from"):
        line = one_line(_before(decision, trace["attempts"]))
        console.print(line, style="dim", markup=False, soft_wrap=True)
    show_degraded(trace["degraded"])
    show_timings(trace["timings_ms"], console)


def _before(decision: dict[str, Any], attempts: list[dict[str, Any]]) -> str:
    """What became of the first writer, whose draft the answer is not: if it wrote one, how much
    verification found wrong with it, and the first of it."""
    writer, failures = decision["escalated_from"], decision["verification"]["failures"]
    if failures:
        first = f"{failures[0]['check']}: {failures[0]['detail']}"
        wrong = f"{len(failures)} checks failed, first {first}" if len(failures) > 1 else first
        return f"not shown: the draft of {writer}; {wrong}"
    _, _, endpoint = writer.partition(":")
    tried = [one for one in attempts if one["endpoint"] == endpoint and one["ended"] != "stopped"]
    if tried and tried[0]["ended"] == "drafted":
        return f"asked before: {writer}; it found no answer in the passages"
    return f"asked before: {writer}; it failed, or did not end in time"
