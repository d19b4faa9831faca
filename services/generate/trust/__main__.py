"""`python -m services.generate.trust verify|export`: what `refdesk audit` runs.

The database is that of the settings; it may be in use. `verify` prints a line for each thing found
and exits with 1 where there is one; `export` prints a record a line, as JSON.
"""

import argparse
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
import structlog

from services.generate.trust.audit import Finding, Head, Inspection, Link
from services.generate.trust.database import GenerateDatabase
from services.generate.trust.ledger import head_of, text
from services.generate.trust.tables import AUDIT
from shared.errors import ApiError, StartupError
from shared.settings import Settings, load_settings

_SHOWN = 100  # findings that are printed
_AT_ONCE = 1000  # records that are read at once
_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code. arguments: those of the process, if none are given."""
    parser = argparse.ArgumentParser(prog="refdesk audit")
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify")
    verify.add_argument("--head", action="append", default=[])
    verify.add_argument("--json", action="store_true")
    export = commands.add_parser("export")
    export.add_argument("--after", type=int, default=0)
    asked = parser.parse_args(arguments)
    try:
        settings = load_settings()
        if asked.command == "export":
            return _export(settings, asked.after)
        return _verify(settings, [_head(one) for one in asked.head], as_json=asked.json)
    except (StartupError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read it has gone; nothing is left to flush to them
        sys.stderr.close()
    return 1


def _verify(settings: Settings, anchors: list[Head], *, as_json: bool) -> int:
    inspection = Inspection(anchors)
    found: list[Finding] = []
    with _snapshot(settings) as connection:
        for link in _links(connection):
            found += inspection.take(link)
        found += inspection.end(head_of(connection))
    if as_json:
        report = {
            "whole": not found,
            "records": inspection.records,
            "head": str(inspection.last),
            "findings": [asdict(one) for one in found],
        }
        print(json.dumps(report))
        return 1 if found else 0
    for one in found[:_SHOWN]:
        print(one.what)
    if len(found) > _SHOWN:
        print(f"and {len(found) - _SHOWN} more")
    told = f"{len(found)} wrong" if found else "the trail is whole"
    noun = "record" if inspection.records == 1 else "records"
    print(f"{inspection.records} {noun}: {told}; head {inspection.last}")
    return 1 if found else 0


def _export(settings: Settings, after: int) -> int:
    with _snapshot(settings) as connection:
        for one in _links(connection, after):
            # The body as it was hashed: parsed and written anew it could differ.
            print(
                f'{{"seq":{one.seq},"previous":"{one.previous}","hash":"{one.hash}",'
                f'"body":{one.body}}}'
            )
    return 0


@contextmanager
def _snapshot(settings: Settings) -> Iterator[sa.Connection]:
    """The database as it is at one moment, whoever writes to it meanwhile."""
    url = settings.generate_database_url.get_secret_value()
    try:
        database = GenerateDatabase.open_to_read(url, settings.data_dir)
    except StartupError as error:
        raise StartupError(f"there is no audit trail: {error}") from None
    try:
        with database.read() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            yield connection
    finally:
        database.close()


def _links(connection: sa.Connection, after: int | None = None) -> Iterator[Link]:
    columns: list[sa.ColumnElement[Any]] = [AUDIT.c.previous, AUDIT.c.hash, AUDIT.c.body]
    if connection.dialect.name == "sqlite":
        # A damaged byte may leave no UTF-8, which is to be told of the record that it is in.
        columns = [sa.cast(column, sa.LargeBinary) for column in columns]
    query = sa.select(AUDIT.c.seq, *columns)
    if after is not None:
        query = query.where(AUDIT.c.seq > after)
    rows = connection.execution_options(yield_per=_AT_ONCE).execute(query.order_by(AUDIT.c.seq))
    for seq, *texts in rows:
        yield Link(seq, *(text(one) for one in texts))


def _head(text: str) -> Head:
    match = _HEAD.fullmatch(text)
    if match is None:
        raise StartupError(f"{text[:80]!r} is no head: give NUMBER:HASH, as the log tells it")
    return Head(int(match[1]), match[2])


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(main())
