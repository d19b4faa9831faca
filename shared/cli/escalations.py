"""``refdesk escalations``: how often answers went on to another writer, and why, by week."""

from typing import Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes, output
from shared.cli.http import Api
from shared.settings import load_settings


def escalations(
    weeks: Annotated[
        int, typer.Option(min=1, max=520, help="Of so many weeks, the present one included.")
    ] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="As it came, as JSON.")] = False,
    url: Annotated[str, typer.Option(help="Address of the generate service.")] = "",
) -> None:
    """Count the steps of answers from one writer to the next, by week and reason."""
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
