"""With the audit trail switched off no answer needs the database, gone or hanging."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from services.generate.routing import in_force
from tests.desk import Desk
from tests.model_server import ModelServer
from tests.policed import change, policed
from tests.streams import streamed, text_of
from tests.writers import DATABASE, WHEN, Serve, ask


async def test_answers_streams_and_escalations_go_on_when_the_database_is_gone(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(Desk(), data_dir=tmp_path, audit="off") as client:
        (tmp_path / DATABASE).unlink()
        for _ in range(2):  # the second follows the failed write of the first one's escalation
            escalated = await ask(client, WHEN, model="reasoning")
            assert escalated["refdesk"]["decision"]["answered"]
            assert escalated["refdesk"]["decision"]["escalated_from"] is not None
        assert "1843" in text_of(await streamed(client, WHEN))
        assert (await client.get("/ready")).status_code == 200
        listed = await client.get("/v1/escalations")
    assert listed.status_code == 503
    assert listed.json()["error"]["code"] == "generate_database_unavailable"


async def test_a_new_policy_waits_for_a_database_that_hangs_and_no_answer_does(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(in_force, "_PATIENCE_S", 0.1)
    async with policed(serve, tmp_path, ModelServer(), audit="off") as (client, path, _):
        before = (await client.get("/ready")).json()["policy"]
        with closing(sqlite3.connect(tmp_path / DATABASE)) as other:
            other.execute("BEGIN IMMEDIATE")
            change(path, path.read_text().replace("start: small", "start: large"))
            for _ in range(3):
                answer = await ask(client, WHEN)
                assert answer["refdesk"]["decision"]["policy"] == before["fingerprint"]
            other.rollback()
        for _ in range(500):  # who waits for a lock looks again after a while
            if (await client.get("/ready")).json()["policy"] != before:
                break
            await asyncio.sleep(0.02)
        changed = await ask(client, WHEN)
    assert changed["refdesk"]["decision"]["policy"] != before["fingerprint"]
    assert changed["refdesk"]["decision"]["tier"] == "large"
