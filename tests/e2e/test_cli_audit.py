"""`refdesk audit` and `refdesk escalations` over a service that answers, and without one."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.desk import Desk
from tests.e2e.command import refdesk, refdesk_process
from tests.suite import free_port
from tests.writers import PORT, WHEN, ask, nowhere, writers_over


async def test_escalations_are_counted_and_the_trail_is_read_while_the_service_answers(
    models_dir: Path, tmp_path: Path
) -> None:
    data = ["--data", str(tmp_path)]
    serve = writers_over(models_dir)
    async with serve(Desk(), data_dir=tmp_path, reasoning_url=nowhere()) as client:
        await ask(client, PORT)
        await ask(client, WHEN, model="reasoning")
        url = str(client.base_url)
        counted = await asyncio.to_thread(refdesk_process, "escalations", "--url", url)
        last = await asyncio.to_thread(refdesk_process, "audit", "export", *data, "--after", "1")
    assert counted.stdout.split()[:4] == ["week", "begins", "total", "tier_unavailable"]
    assert counted.stdout.split()[-2:] == ["1", "1"]
    assert json.loads(last.stdout)["body"]["asked_model"] == "reasoning"

    head = json.loads(last.stdout)
    with closing(sqlite3.connect(tmp_path / "generate.db")) as connection, connection:
        connection.execute("DROP TRIGGER audit_no_delete")
        connection.execute("DELETE FROM audit WHERE seq = 2")
    anchor = f"{head['seq']}:{head['hash']}"
    cut = refdesk_process("audit", "verify", *data, "--head", anchor)
    assert cut.returncode == 1
    assert cut.stdout.splitlines()[:2] == [
        "record 2 is missing at the end",
        f"record 2 of {head['hash'][:12]}… is missing",
    ]


def test_without_a_service_there_is_one_line() -> None:
    down = refdesk("escalations", "--url", f"http://127.0.0.1:{free_port()}")
    assert (down.returncode, down.stdout, len(down.stderr.splitlines())) == (1, "", 1)
    assert "does not answer" in down.stderr
