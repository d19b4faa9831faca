"""``refdesk escalations``: how often answers were escalated, why, and what a policy makes of it."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes, one_line, output
from shared.cli.decision import writer
from shared.cli.failures import CliError
from shared.cli.http import Api
from shared.cli.policy import read_text
from shared.settings import load_settings

_FIELDS = ("policy", "cases", "changed", "left_out", "more")

app = typer.Typer(help="How often answers were escalated, and why.", invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="As it came, as JSON.")]
Address = Annotated[str, typer.Option(help="Address of the generate service.")]


@app.callback()
def _count_by_default(context: typer.Context) -> None:
    """How often answers were escalated, and why. Without a command: count them."""
    if context.invoked_subcommand is None:
        count()


@app.command()
def count(
    weeks: Annotated[
        int, typer.Option(min=1, max=520, help="Of so many weeks, the present one included.")
    ] = 12,
    as_json: AsJson = False,
    url: Address = "",
) -> None:
    """Count the steps of answers from one tier to another, by week and reason."""
    with Api("generate", load_settings(), url) as api:
        answer = api.get(f"/v1/escalations?weeks={weeks}", "weeks")
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    if not answer["weeks"]:
        notes().print("there were no escalations")
        return
    reasons = sorted({reason for week in answer["weeks"] for reason in week["reasons"]})
    table = Table("week", "begins", "total", *(escape(one) for one in reasons), box=None)
    for week in answer["weeks"]:
        counts = (str(week["reasons"].get(one, 0)) for one in reasons)
        table.add_row(week["week"], week["begins"], str(week["total"]), *counts)
    output().print(table)


@app.command()
def replay(
    record: Annotated[
        int | None, typer.Argument(min=1, help="The number of an audit record.", show_default=False)
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="WEEK", help="All escalated answers from a week on: 2026-W40.")
    ] = "",
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The policy; the one that holds by default.")
    ] = None,
    as_json: AsJson = False,
    url: Address = "",
) -> None:
    """Say where recorded questions would go under a policy; nothing is retrieved or written."""
    if (record is None) == (not since):
        raise CliError("name the audit record, or give --since WEEK")
    body: dict[str, Any] = {"policy": read_text(policy) if policy else None}
    path = f"/v1/escalations/{record}/replay"
    if since:
        path, body["since"] = "/v1/escalations/replay", since
    with Api("generate", load_settings(), url) as api:
        answer = api.post(path, body, *_FIELDS)
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    _show(answer)


def _show(answer: dict[str, Any]) -> None:
    table = Table("record", "escalated", "then", "now", "", box=None)
    for case in answer["cases"]:
        table.add_row(
            str(case["record"]),
            escape(one_line(", ".join(case["escalated"]))),
            escape(one_line(writer(case["then"]))),
            escape(one_line(writer(case["now"]))),
            "changed" if case["changed"] else "",
        )
    if answer["cases"]:
        output().print(table)
    for one in answer["left_out"]:
        notes().print(one_line(f"left out: record {one['record']}: {one['why']}"), markup=False)
    if any(case["untried"] for case in answer["cases"]):
        notes().print("conditions on keywords were not tried: the records keep no text")
    more = "; there are older ones" if answer["more"] else ""
    output().print(f"{answer['changed']} of {len(answer['cases'])} would change{more}")
