"""``refdesk policy``: whether a policy file can be used, and what it would do."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import one_line, output
from shared.cli.decision import writer
from shared.cli.failures import CliError
from shared.cli.http import Api
from shared.cli.module import run_module
from shared.settings import load_settings

app = typer.Typer(help="The routing policy.", no_args_is_help=True)


@app.command()
def lint(
    file: Annotated[Path, typer.Argument(help="The policy, YAML.", show_default=False)],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="OLD", help="The policy that holds now: tell what changes with its models."
        ),
    ] = None,
) -> int:
    """Check a policy file as the generate service does before it uses one.

    Each thing found is a line with the place in the file. The exit code is 0 where nothing is.
    """
    before = [] if against is None else ["--against", str(against)]
    return run_module("services.generate.policy", *before, "--", str(file))


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(help="The policy, YAML.", show_default=False)],
    questions: Annotated[
        Path | None, typer.Argument(help="Questions, one a line.", show_default=False)
    ] = None,
    data_class: Annotated[
        str, typer.Option(help="The class of the questions, such as confidential.")
    ] = "",
    confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the evidence, for all of them.")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="As it came, as JSON.")] = False,
    url: Annotated[str, typer.Option(help="Address of the generate service.")] = "",
) -> None:
    """Say what a policy allows, and which questions it would send elsewhere than the present one.

    Nothing is retrieved or written: the evidence is taken to be as good as --confidence says.
    """
    lines = read_text(questions).splitlines() if questions else []
    assumed = {"confidence": confidence} | ({"data_class": data_class} if data_class else {})
    samples = [{"question": line.strip(), **assumed} for line in lines if line.strip()]
    body = {"policy": read_text(file), "samples": samples}
    with Api("generate", load_settings(), url) as api:
        answer = api.post("/v1/simulate", body, "matrix", "rules", "samples", "changed")
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    _show_matrix(answer["matrix"])
    if samples:
        _show_samples(answer)


def read_text(path: Path) -> str:
    """The text of a file. Raises CliError where it is none, OSError where it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CliError(f"{path} is not text in UTF-8") from None


def _show_matrix(cells: list[dict[str, Any]]) -> None:
    classes = list(dict.fromkeys(cell["data_class"] for cell in cells))
    table = Table("model", *(escape(one) for one in classes), box=None)
    for model in dict.fromkeys(cell["model"] for cell in cells):
        row = {cell["data_class"]: cell for cell in cells if cell["model"] == model}
        told = ("yes" if row[one]["allowed"] else escape(row[one]["rule"]) for one in classes)
        table.add_row(escape(model), *told)
    output().print(table)


def _show_samples(answer: dict[str, Any]) -> None:
    table = Table("question", "now", "with this policy", "", box=None)
    for one in answer["samples"]:
        table.add_row(
            escape(one_line(one["question"])),
            escape(one_line(writer(one["now"]))),
            escape(one_line(writer(one["then"]))),
            "changed" if one["changed"] else "",
        )
    output().print(table)
    output().print(f"{answer['changed']} of {len(answer['samples'])} would change")
