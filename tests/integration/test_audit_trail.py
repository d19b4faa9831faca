"""The audit trail in its database: many writers, tampering, a full disk, a killed process."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from services.generate.trust import ledger as ledger_module
from services.generate.trust.__main__ import main
from services.generate.trust.audit import Head
from services.generate.trust.database import GenerateDatabase
from services.generate.trust.escalations import Escalation, Week, week_of
from services.generate.trust.ledger import Entry, Ledger
from services.generate.trust.tables import METADATA
from shared.database.migrate import latest
from shared.errors import ApiError
from tests.desk import Desk
from tests.fulldisk import files_no_longer_than
from tests.suite import REPOSITORY, ServiceProcess, free_port, serving
from tests.writers import PORT, chat, nowhere

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FILE = GenerateDatabase.purpose.file


def entry(name: str, *steps: Escalation, size: int = 0, at: datetime = NOW) -> Entry:
    return Entry(at, name, "q", {"request_id": name, "padding": "x" * size}, steps)


@contextmanager
def opened(folder: Path, url: str = "", *, audit: bool = True) -> Iterator[Ledger]:
    with closing(GenerateDatabase.open(url, folder)) as database:
        ledger = Ledger(database, audit=audit)
        yield ledger
        ledger.close()


def audit(folder: Path, *words: str, url: str = "") -> tuple[int, list[str]]:
    """The exit code and the output of a command of `refdesk audit`."""
    output = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.setenv("REFDESK_DATA_DIR", str(folder))
        patch.setenv("REFDESK_GENERATE_DATABASE_URL", url)
        code = main(words)
    return code, output.getvalue().splitlines()


def exported(folder: Path, url: str = "") -> list[str]:
    """The request ids of all records, in order."""
    code, lines = audit(folder, "export", url=url)
    assert code == 0, lines
    records = [json.loads(line) for line in lines]
    assert [one["seq"] for one in records] == list(range(1, len(records) + 1))
    return [one["body"]["request_id"] for one in records]


# --- writing -----------------------------------------------------------------------------------


def test_several_processes_worth_of_writers_make_one_whole_chain(
    catalogue_url: str, tmp_path: Path
) -> None:
    names = [[f"{writer}-{n}" for n in range(40)] for writer in range(3)]
    with ThreadPoolExecutor(3) as pool:

        def write(mine: list[str]) -> list[Head | None]:
            with opened(tmp_path, catalogue_url) as ledger:
                return [one.result(60) for one in [ledger.submit(entry(name)) for name in mine]]

        heads = [head for found in pool.map(write, names) for head in found if head]
    assert sorted(head.seq for head in heads) == list(range(1, 121))
    told = exported(tmp_path, catalogue_url)
    assert sorted(told) == sorted(name for mine in names for name in mine)
    for mine in names:  # each writer's own in their order
        assert [name for name in told if name in mine] == mine
    code, lines = audit(tmp_path, "verify", "--head", str(heads[50]), url=catalogue_url)
    assert (code, lines[0].split(";")[0]) == (0, "120 records: the trail is whole")


def test_what_waits_is_written_when_the_ledger_closes(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        waiting = [ledger.submit(entry(str(n))) for n in range(600)]
        waiting[3].cancel()  # its caller has left
    assert exported(tmp_path) == [str(n) for n in range(600)]
    with pytest.raises(ApiError, match="the service is stopping"):
        ledger.submit(entry("late")).result(5)


def test_a_ledger_closes_soon_also_where_its_database_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_CLOSING_S", 0.1)
    database = GenerateDatabase.open("", tmp_path)
    ledger = Ledger(database, audit=True)
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = ledger.submit(entry("a"))
        ledger.close()  # comes back with the lock still held
        assert not waiting.done()
        other.rollback()
    assert waiting.result(10) is not None  # and goes on record when it can
    database.close()


def test_a_record_can_be_neither_changed_nor_removed_by_mistake(
    catalogue_url: str, tmp_path: Path
) -> None:
    with opened(tmp_path, catalogue_url) as ledger:
        ledger.submit(entry("a")).result(10)
    database = GenerateDatabase.open(catalogue_url, tmp_path)
    statements = ["UPDATE audit SET body = '{}'", "DELETE FROM audit"]
    if not catalogue_url:
        statements.append("INSERT OR REPLACE INTO audit VALUES (1, 'x', 'y', '{}')")
    for statement in statements:
        with (
            pytest.raises(sa.exc.DBAPIError, match="only ever added to"),
            database.begin() as connection,
        ):
            connection.execute(sa.text(statement))
    database.close()


def test_the_migrations_make_the_tables_that_the_queries_expect(
    catalogue_url: str, tmp_path: Path
) -> None:
    database = GenerateDatabase.open(catalogue_url, tmp_path)
    with database.read() as connection:
        version = {"version_table": GenerateDatabase.purpose.schema}
        context = MigrationContext.configure(connection, opts=version)
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_heads() == (latest(GenerateDatabase.purpose.migrations),)
    database.close()


def test_a_start_with_the_latest_schema_does_without_alembic(tmp_path: Path) -> None:
    GenerateDatabase.open("", tmp_path).close()
    code = (
        "import sys; from pathlib import Path\n"
        "from services.generate.trust.database import GenerateDatabase\n"
        f"GenerateDatabase.open('', Path({str(tmp_path)!r})).close()\n"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_a_full_disk_refuses_records_and_the_next_go_in(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.submit(entry("first")).result(10)
        with files_no_longer_than(1_000_000), pytest.raises(ApiError) as caught:
            ledger.submit(entry("large", size=3_000_000)).result(10)
        assert (caught.value.status, caught.value.code) == (503, "audit_unavailable")
        assert "takes no more data" in caught.value.message
        assert str(tmp_path) not in caught.value.message
        ledger.submit(entry("next")).result(10)
    assert exported(tmp_path) == ["first", "next"]
    assert audit(tmp_path, "verify")[0] == 0


def test_a_file_that_is_gone_takes_no_record(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.submit(entry("a")).result(10)
        (tmp_path / FILE).rename(tmp_path / "away.db")
        with pytest.raises(ApiError, match="its database does not answer"):
            ledger.submit(entry("b")).result(10)
        assert not (tmp_path / FILE).exists()


# --- escalations -------------------------------------------------------------------------------


def test_escalations_are_counted_by_week_and_reason(catalogue_url: str, tmp_path: Path) -> None:
    failed = Escalation("validator_failed", "utility", "reasoning", ("citations", "numbers"))
    down = Escalation("tier_unavailable", "reasoning", "last_resort", ())
    with opened(tmp_path, catalogue_url) as ledger:
        for one in (
            entry("old", failed, at=NOW - timedelta(weeks=40)),
            entry("a", failed, down),
            entry("b", failed),
            entry("none"),
            entry("before", down, at=NOW - timedelta(weeks=1)),
        ):
            ledger.submit(one).result(10)
        assert ledger.weekly(week_of(NOW - timedelta(weeks=11))) == [
            Week("2026-W47", {"validator_failed": 2, "tier_unavailable": 1}),
            Week("2026-W46", {"tier_unavailable": 1}),
        ]


def test_without_a_trail_escalations_are_kept_all_the_same(tmp_path: Path) -> None:
    with opened(tmp_path, audit=False) as ledger:
        step = Escalation("validator_failed", "utility", "last_resort", ("citations",))
        assert ledger.submit(entry("a", step)).result(10) is None
        assert ledger.submit(entry("b")).result(0) is None
        assert ledger.weekly("2026-W01") == [Week("2026-W47", {"validator_failed": 1})]
        assert ledger.head() is None


def test_weeks_are_those_of_iso_8601() -> None:
    assert week_of(datetime(2027, 1, 1, tzinfo=UTC)) == "2026-W53"
    assert week_of(datetime(2024, 12, 30, tzinfo=UTC)) == "2025-W01"


# --- tampering ---------------------------------------------------------------------------------

TAMPERINGS = {
    "edited": (
        "UPDATE audit SET body = replace(body, '\"4\"', '\"five\"')",
        "record 4 was changed",
    ),
    "deleted": ("DELETE FROM audit WHERE seq = 3", "record 3 is missing"),
    "swapped": (
        "UPDATE audit SET seq = -4 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5;"
        "UPDATE audit SET seq = 5 WHERE seq = -4",
        "record 4 does not follow the one before it",
    ),
    "cut off": ("DELETE FROM audit WHERE seq > 4", "records 5 to 6 are missing at the end"),
    "emptied": ("DELETE FROM audit", "records 1 to 6 are missing at the end"),
    "head lost": ("DELETE FROM heads", "the head that is kept beside the records is missing"),
    "head set back": ("UPDATE heads SET seq = 5", "the head is record 5"),
    "head no text": ("UPDATE heads SET hash = x'ff'", "is not the one that the head tells"),
    "head no number": ("UPDATE heads SET seq = 'x', hash = 'y'", "behind it"),
    "not text": ("UPDATE audit SET body = x'7bff7d' WHERE seq = 2", "record 2 was changed"),
    "no hash": ("UPDATE audit SET hash = 0 WHERE seq = 6", "record 6 was changed"),
    "put in": (
        "INSERT INTO audit SELECT 7, hash, hash, body FROM audit WHERE seq = 6",
        "record 7 was changed, or is another one's",
    ),
}


@pytest.fixture
def trail(tmp_path: Path) -> tuple[Path, Head]:
    """A folder with a trail of six records, and its fifth head."""
    with opened(tmp_path) as ledger:
        heads = [ledger.submit(entry(str(n))).result(10) for n in range(1, 7)]
    assert heads[4] is not None
    return tmp_path, heads[4]


def tamper(folder: Path, statements: str) -> None:
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.executescript(
            f"DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; {statements};"
        )


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_by_hand_is_found_where_it_was_done(name: str, trail: tuple[Path, Head]) -> None:
    folder, _ = trail
    statements, told = TAMPERINGS[name]
    tamper(folder, statements)
    code, lines = audit(folder, "verify")
    assert code == 1
    assert any(told in line for line in lines[:-1]), lines


def test_who_cuts_off_the_head_as_well_is_found_by_the_log(trail: tuple[Path, Head]) -> None:
    folder, fifth = trail
    tamper(
        folder,
        "DELETE FROM audit WHERE seq > 4;"
        "UPDATE heads SET seq = 4, hash = (SELECT hash FROM audit WHERE seq = 4)",
    )
    assert audit(folder, "verify")[0] == 0
    code, lines = audit(folder, "verify", "--head", str(fifth))
    assert code == 1
    assert lines[0].startswith("record 5 of ")
    report = json.loads(audit(folder, "verify", "--head", str(fifth), "--json")[1][0])
    assert (report["whole"], report["records"], report["findings"][0]["seq"]) == (False, 4, 5)


def test_after_a_cut_the_gap_stays_and_a_head_set_back_takes_no_more(
    trail: tuple[Path, Head],
) -> None:
    folder, _ = trail
    tamper(folder, "DELETE FROM audit WHERE seq = 6")
    with opened(folder) as ledger:
        ledger.submit(entry("7")).result(10)
        assert audit(folder, "verify")[1][0] == "record 6 is missing"
        with closing(sqlite3.connect(folder / FILE)) as connection, connection:
            connection.execute("UPDATE heads SET seq = 2")
        with pytest.raises(ApiError, match="goes on behind its head"):
            ledger.submit(entry("8")).result(10)


@pytest.mark.parametrize("content", [b"", b"no database at all", None])
def test_what_is_no_trail_is_left_as_it_is(content: bytes | None, tmp_path: Path) -> None:
    if content is None:  # a database of somebody else
        with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
            connection.execute("CREATE TABLE notes (text TEXT)")
        content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content)
    for command in ("verify", "export"):
        code, lines = audit(tmp_path, command)
        assert (code, len(lines)) == (1, 1), lines
        assert lines[0].startswith("error: there is no audit trail")
    assert (tmp_path / FILE).read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == [FILE]


def test_a_trail_of_an_older_version_is_read_and_not_changed(trail: tuple[Path, Head]) -> None:
    folder, _ = trail
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        connection.execute("DROP TABLE model_transitions")
        connection.execute(f"UPDATE {GenerateDatabase.purpose.schema} SET version_num = '0001'")
    before = (folder / FILE).read_bytes()
    assert audit(folder, "verify")[0] == 0
    assert (folder / FILE).read_bytes() == before


@pytest.mark.parametrize("words", [["verify"], ["export"], ["verify", "--head", "7"]])
def test_where_there_is_no_trail_none_is_made(words: list[str], tmp_path: Path) -> None:
    code, lines = audit(tmp_path, *words)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("error: ")
    assert list(tmp_path.iterdir()) == []


# --- a killed process --------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.long)])
async def test_after_kill_9_under_load_the_chain_is_whole_and_has_all_acknowledged_answers(
    tmp_path: Path, models_dir: Path, rounds: int
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    acknowledged: set[str] = set()

    async def load(client: httpx.AsyncClient, worker: str, enough: asyncio.Event) -> None:
        streamed = int(worker) % 2 == 1
        mine = 0
        while True:
            name = f"{worker}-{mine}"
            try:
                response = await client.post(
                    "/v1/chat/completions",
                    json=chat(PORT, stream=streamed),
                    headers={"x-request-id": name},
                )
            except httpx.TransportError:
                return
            if not streamed or "[DONE]" in response.text:
                acknowledged.add(name)
            mine += 1
            if mine >= 5:
                enough.set()

    async with serving(Desk()) as desk:
        environment = {
            "REFDESK_GENERATE_PORT": str(port),
            "REFDESK_DATA_DIR": str(tmp_path),
            "REFDESK_MODELS_DIR": str(models_dir),
            "REFDESK_RETRIEVE_URL": desk,
            "REFDESK_EMBED_URL": nowhere(),
            "REFDESK_REASONING_URL": nowhere(),
            "REFDESK_REASONING_MODEL": "m",
        }
        generate = ServiceProcess("generate", url, environment, tmp_path / "log")
        for turn in range(rounds):
            await asyncio.to_thread(generate.start)
            enough = asyncio.Event()
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                workers = [
                    asyncio.create_task(load(client, f"{turn}{worker}", enough))
                    for worker in range(6)
                ]
                await asyncio.wait_for(enough.wait(), 60)
                generate.kill()
                await asyncio.gather(*workers)
            code, lines = await asyncio.to_thread(audit, tmp_path, "verify")
            assert code == 0, lines
    kept = exported(tmp_path)
    assert len(kept) == len(set(kept))
    assert len(acknowledged) >= 5 * rounds
    assert acknowledged <= set(kept)
