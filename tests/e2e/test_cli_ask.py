"""``refdesk ask``: what it tells of the writers whose draft the answer is not."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.command import refdesk_process
from tests.model_server import LIE, ModelServer
from tests.policed import policed
from tests.policies import bent
from tests.writers import WHEN, writers_over

HOPS = "escalation: {max_hops: 1"
POLICY = bent(HOPS, f"{HOPS}, reasons: [validator_failed, tier_unavailable, low_confidence]")


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (LIE, "not shown: the draft of {}; number: "),
        ("NOT IN THE SOURCES", "asked before: {}; it found no answer in the passages\n"),
        (None, "asked before: {}; it failed, or did not end in time\n"),
    ],
)
async def test_ask_tells_what_became_of_the_first_writer(
    models_dir: Path, tmp_path: Path, first: str | None, told: str
) -> None:
    served = policed(writers_over(models_dir), tmp_path, ModelServer(s1=first), POLICY)
    async with served as (client, _, url):
        words = ("ask", WHEN, "--no-stream", "--url", str(client.base_url))
        answered = await asyncio.to_thread(refdesk_process, *words)
    assert answered.returncode == 0, answered.stderr
    assert "1843" in answered.stdout
    assert "written by large (" in answered.stderr
    assert told.format(f"small:{url}/v1") in answered.stderr
