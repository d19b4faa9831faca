"""``refdesk demo``: the whole suite at work, on refdesk's own handbook."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shared.cli.ask import ANSWER_FIELDS, question_body, show_decision, show_sources, show_text
from shared.cli.ask import PATIENCE_S as ANSWER_PATIENCE_S
from shared.cli.console import output
from shared.cli.failures import CliError
from shared.cli.folder import Rules, find_files
from shared.cli.http import Api
from shared.cli.ingest import PATIENCE_S
from shared.cli.launch import port_is_free, services, with_port_base
from shared.cli.models import pull
from shared.cli.upload import documents_of, ensure_corpus, limits_of, store_with_bar
from shared.settings import SERVICES, Settings, absolute, load_settings

_CHECKOUT = Path(__file__).resolve().parents[2]
_CORPUS = "handbook"
_QUESTIONS = (
    "How does refdesk fuse the results of keyword search and vector search?",
    "What happens to acknowledged documents when a service is killed?",
    "What does refdesk do with a draft that fails verification?",
)
_PORT_BASES = range(8000, 8100, 10)
_READY_LIMIT_S = 300.0


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Data folder; .demo in the checkout if not given.")
    ] = None,
    leave: Annotated[
        bool, typer.Option("--exit", help="Stop after the answers instead of staying up.")
    ] = False,
) -> None:
    """Start the suite, index the handbook, ask three questions, and stay up until Ctrl-C."""
    console = output()
    handbook = _CHECKOUT / "docs"
    if not handbook.is_dir():
        raise CliError("the demo needs the handbook: run it from a checkout, which has docs/")
    console.rule("models")
    pull(["default"])
    settings = load_settings().model_copy(
        update={"data_dir": absolute(data or _CHECKOUT / ".demo")}
    )
    settings = _with_free_ports(settings, console)
    console.rule("services")
    each = dict.fromkeys(SERVICES, settings)
    logs = settings.data_dir / "logs"
    with services(each, logs, console, limit_s=_READY_LIMIT_S) as (group, took):
        for one in group.programs:
            line = f"{one.name:<9} {one.url}  ready after {took[one.name]:.1f} s"
            console.print(line, markup=False)
        console.rule("documents")
        _fill(settings, handbook, console)
        for question in _QUESTIONS:
            console.rule(f"question: {question}")
            _answer(settings, question, console)
        if leave:
            return
        console.rule("where to go next")
        console.print(_next_steps(settings), markup=False, soft_wrap=True)
        try:
            group.watch()
        except KeyboardInterrupt:  # how one ends it: no failure
            console.print("stopping")


def _with_free_ports(settings: Settings, console: Console) -> Settings:
    """These settings with four ports that are free: 8001 to 8004, or the next ten higher."""
    for base in _PORT_BASES:
        moved = with_port_base(settings, base)
        if all(port_is_free(moved.host, moved.port(name)) for name in SERVICES):
            if base != _PORT_BASES.start:
                console.print(
                    f"ports from {_PORT_BASES.start + 1} are taken: using {base + 1} to {base + 4}"
                )
            return moved
    raise CliError(f"no four free ports between {_PORT_BASES.start} and {_PORT_BASES.stop}")


def _fill(settings: Settings, handbook: Path, console: Console) -> None:
    """Store the handbook; a page that has not changed since the last demo is not sent again."""
    rules = Rules(include=["*.md"])
    found = find_files([str(handbook)], rules)
    with Api("retrieve", settings, patience_s=PATIENCE_S) as api:
        ensure_corpus(api, _CORPUS)
        items = documents_of(found, rules, limits_of(api, _CORPUS))
        tally = store_with_bar(api, _CORPUS, items, found.size, console)
    for failure in tally.failed:
        raise CliError(f"{failure.source} can't be stored: {failure.reason}")
    counts = ", ".join(f"{count} {status}" for status, count in tally.statuses.items() if count)
    console.print(f"{_CORPUS}: {counts}; {tally.chunks} chunks written")


def _answer(settings: Settings, question: str, console: Console) -> None:
    with (
        console.status("writing the answer"),
        Api("generate", settings, patience_s=ANSWER_PATIENCE_S) as api,
    ):
        answer = api.post(
            "/v1/chat/completions", question_body(question, [_CORPUS]), *ANSWER_FIELDS
        )
    content, trace = show_text(answer, console)
    show_sources(content, trace, console)
    console.print()
    show_decision(trace, console)


def _next_steps(settings: Settings) -> str:
    # `make demo` installs into an environment that the person's shell does not know.
    refdesk = shutil.which("refdesk") or Path(sys.executable).with_name("refdesk")
    generate, retrieve = settings.url("generate"), settings.url("retrieve")
    question = '{"messages": [{"role": "user", "content": "What is an arm?"}]}'
    query = '{"query": "what is an arm", "corpora": ["handbook"]}'
    return f"""\
The suite stays up until Ctrl-C. In another terminal:

  {refdesk} ask "What is an arm?" --corpus {_CORPUS} --url {generate}
  {refdesk} ingest FOLDER --corpus mine --url {retrieve}
  {refdesk} retrieve "..." --corpus mine --explain --url {retrieve}

  curl {retrieve}/retrieve -H 'content-type: application/json' -d '{query}'
  curl {generate}/v1/chat/completions -H 'content-type: application/json' -d '{question}'

Any client of the OpenAI API: base URL {generate}/v1, any key, model auto.
Data and logs: {settings.data_dir}"""
