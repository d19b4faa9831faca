"""Two retrieves on one data folder: the second refuses in words, the first is not disturbed."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.retrieve.corpus.opening import open_corpora
from shared.settings import Settings
from tests.faulty_embed import FaultyEmbed, faulty_embed
from tests.invariants import require_sound
from tests.shelf import desk
from tests.suite import REPOSITORY, free_port
from tests.texts import Sent


@pytest.fixture
def embed(minilm_dir: Path) -> Iterator[FaultyEmbed]:
    with faulty_embed(minilm_dir / "tokenizer.json") as one:
        yield one


async def test_the_second_refuses_and_the_first_goes_on(embed: FaultyEmbed, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "REFDESK_DATA_DIR": str(tmp_path),
        "REFDESK_RETRIEVE_PORT": str(free_port()),
        "REFDESK_EMBED_URL": embed.url,
    }
    sent = {f"d{number}": Sent.of(f"d{number}", number) for number in range(8)}
    async with desk(tmp_path, embed=embed.url) as client:
        (await client.put("/corpora/c")).raise_for_status()
        refused = asyncio.create_task(
            asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "services.retrieve"],
                cwd=REPOSITORY,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
        )
        written = 0
        while not refused.done() or written < len(sent):  # before, while and after it tries
            name = f"d{written % len(sent)}"
            body = {"documents": [sent[name].body(name)]}
            (await client.post("/corpora/c/documents", json=body)).raise_for_status()
            written += 1
            await asyncio.sleep(0.02)  # the second needs a processor, too
        second = await refused
        assert second.returncode not in (0, 1)  # wrongly set up: nobody should start it again
        told = second.stdout + second.stderr
        assert f"in use by process {os.getpid()}" in told
        assert "Traceback" not in told
        assert (await client.get("/ready")).status_code == 200
        body = {"documents": [sent["d0"].body("d0")]}
        (await client.post("/corpora/c/documents", json=body)).raise_for_status()
    catalog, database = open_corpora(Settings(data_dir=tmp_path))
    require_sound(catalog.get("c"), sent)
    catalog.close()
    database.close()
