"""The small language model in this process, asked for a draft that its caller does not wait for."""

import asyncio
from contextlib import suppress
from pathlib import Path

from services.generate.reading.passages import Passage
from services.generate.tiers.endpoint import DraftRequest
from services.generate.tiers.llamacpp import LlamaCppEndpoint
from shared.modelstore.store import ModelStore
from shared.settings import Settings

DESK = Passage(1, "desk#0", "desk", "desk", None, None, "A desk has a bell. Ring it.", 1.0)


async def test_a_draft_that_nobody_waits_for_shows_nothing_more(models_dir: Path) -> None:
    name = Settings().llm_model
    entry = ModelStore(models_dir).require(name)
    [weights] = [path for path in entry.files if path.endswith(".gguf")]
    writer = LlamaCppEndpoint(name, entry.path / weights, threads=2, context=1024)
    seen: list[str] = []
    begun = asyncio.Event()

    def show(piece: str) -> None:
        seen.append(piece)
        begun.set()

    request = DraftRequest(
        "What does a desk have?", (DESK,), (), 200, "0f0f", lambda _: True, show=show
    )
    task = asyncio.create_task(writer.draft(request))
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    shown = len(seen)
    await writer.close()  # once the draft has stopped
    assert len(seen) == shown
