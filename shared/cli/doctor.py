"""``refdesk doctor``: what is wrong in a data folder that no service uses just now."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.cli.module import read_module, run_module
from shared.settings import load_settings


def doctor(
    data: Annotated[
        Path | None, typer.Option(help="The data folder; that of the settings if not given.")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Make the indexes anew, from the databases of the corpora."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check everything in a data folder while retrieve is stopped, the audit trail included.

    Each thing found is a line with what to do about it. The exit code is 0 where nothing is wrong.
    The documents are never changed.
    """
    folder = (data or load_settings().data_dir).absolute()
    rebuilding = ["--rebuild"] if rebuild else []
    place = {"REFDESK_DATA_DIR": str(folder)}
    if not as_json:
        code = run_module("services.retrieve.doctor", *rebuilding, **place)
        trail = _trail(folder)
        for one in trail:
            print(f"{one['level']}: {one['where']}: {one['what']}; {one['remedy']}")
        return 1 if trail else code
    code, output = read_module("services.retrieve.doctor", *rebuilding, "--json", **place)
    if not output:  # it has said why
        return code
    report = json.loads(output)
    report["findings"] += _trail(folder)
    report["sound"] = not any(one["level"] != "note" for one in report["findings"])
    print(json.dumps(report, ensure_ascii=False))
    return 0 if report["sound"] else 1


def _trail(folder: Path) -> list[dict[str, Any]]:
    """What is wrong with the audit trail in the folder, in the form of the other findings."""
    file = folder / "generate.db"
    if not file.is_file():  # it is in a PostgreSQL, or nothing was answered yet
        return []
    place = {"REFDESK_DATA_DIR": str(folder), "REFDESK_GENERATE_DATABASE_URL": ""}
    code, output = read_module("services.generate.trust", "verify", "--json", **place)
    found = json.loads(output)["findings"] if output else [{"what": "it can't be read"}] * code
    remedy = "keep the file, and compare it with its backup"
    return [
        {"level": "damaged", "where": str(file), "what": one["what"], "remedy": remedy}
        for one in found
    ]
