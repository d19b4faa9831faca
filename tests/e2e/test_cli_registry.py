"""`refdesk registry` over a service, and `refdesk policy lint --against` without one."""

import asyncio
import csv
import io
import json
from pathlib import Path

from tests.desk import Desk
from tests.e2e.command import one_error, refdesk, refdesk_process
from tests.policies import POLICY_TEXT, bent
from tests.suite import free_port
from tests.writers import writers_over

TRIAL = "state: candidate"


async def test_the_inventory_and_the_history_are_printed(models_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(bent("    latency_ms: 500\n", '    notes: "a, \\"b\\"\\e[31m"\n'))
    async with writers_over(models_dir)(Desk(), policy_file=path, data_dir=tmp_path) as client:
        url = ("--url", str(client.base_url))
        # Processes of their own: what the service logs in this one is no output of theirs.
        told, table, past = await asyncio.gather(
            *(
                asyncio.to_thread(refdesk_process, "registry", *words, *url)
                for words in (
                    ["export"],
                    ["export", "--format", "csv"],
                    ["history", "--model", "trial"],
                )
            )
        )
    assert json.loads(told.stdout)["models"][0]["name"] == "small-a"
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert (rows[0]["name"], rows[0]["notes"]) == ("small-a", 'a, "b"[31m')
    assert past.stdout.split()[:5] == ["at", "model", "from", "to", "policy"]
    assert past.stdout.split()[6:9] == ["trial", "new", "candidate"]


def test_without_a_service_there_is_one_line() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for words in (["export"], ["export", "--format", "csv"], ["history"]):
        assert "does not answer" in one_error(refdesk("registry", *words, "--url", nowhere))


def test_a_policy_is_compared_with_the_one_before_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(POLICY_TEXT)
    new.write_text(bent(TRIAL, "state: active"))
    good = refdesk_process("policy", "lint", str(new), "--against", str(old))
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.splitlines()[0] == "trial: candidate -> active"

    back = refdesk_process("policy", "lint", str(old), "--against", str(new))
    assert (back.returncode, back.stdout) == (1, "")
    assert "models.trial.state: model trial was active and can't become candidate" in back.stderr
