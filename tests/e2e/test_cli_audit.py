"""`refdesk audit` and `refdesk escalations` over a service that answers, and without one."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.desk import Desk
from tests.e2e.command import refdesk, refdesk_process
from tests.policies import POLICY_TEXT
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
        counted = await asyncio.to_thread(refdesk_process, "escalations", "count", "--url", url)
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


async def test_what_a_policy_would_do_is_told_of_records_and_of_questions(
    models_dir: Path, tmp_path: Path
) -> None:
    policy, questions = tmp_path / "policy.yaml", tmp_path / "questions.txt"
    policy.write_text(POLICY_TEXT)
    questions.write_text(f"{WHEN}\n\nIs the contract signed?\n")
    serve = writers_over(models_dir)
    async with serve(Desk(), reasoning_url=nowhere()) as client:
        await ask(client, WHEN, refdesk={"flagged": True})
        url = str(client.base_url)

        async def run(*words: str) -> str:
            done = await asyncio.to_thread(refdesk_process, *words, "--url", url)
            assert done.returncode == 0, done.stderr
            return done.stdout + done.stderr

        again = await run("escalations", "replay", "1")
        since = await run("escalations", "replay", "--since", "2020-W01", "--policy", str(policy))
        matrix = await run("policy", "simulate", str(policy))
        sample = await run("policy", "simulate", str(policy), str(questions))
        both = await asyncio.to_thread(
            refdesk, "escalations", "replay", "1", "--since", "2020-W01", "--url", url
        )
    assert "flagged_complex" in again
    assert again.endswith("0 of 1 would change\n")
    assert "reasoning: reasoning-writer (flagged)" in since
    assert "small: small-a (scored)  changed" in since
    assert "1 of 1 would change" in since
    assert "conditions on keywords were not tried" in since
    assert matrix.split()[:3] == ["model", "open", "secret"]
    assert ["small-a", "yes", "compliance"] in [line.split() for line in matrix.splitlines()]
    assert "large: large-a (contracts)  changed" in sample
    assert "2 of 2 would change" in sample
    assert (both.returncode, both.stderr.count("\n")) == (1, 1)


def test_without_a_service_there_is_one_line() -> None:
    down = refdesk("escalations", "count", "--url", f"http://127.0.0.1:{free_port()}")
    assert (down.returncode, down.stdout, len(down.stderr.splitlines())) == (1, "", 1)
    assert "does not answer" in down.stderr
