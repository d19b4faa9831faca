"""The small language model in this process: asked for a draft that its caller does not wait for,
for more than it can read, and for text of all kinds."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from services.generate.reading.passages import Passage
from services.generate.tiers.endpoint import DraftRequest
from services.generate.tiers.small_llm.endpoint import SmallLlmEndpoint
from services.generate.tiers.small_llm.generation import LanguageModel
from shared.errors import ApiError
from shared.modelstore.store import ModelStore
from shared.settings import Settings

DESK = Passage(1, "desk#0", "desk", "desk", None, None, "A desk has a bell. Ring it.", 1.0)
CONTEXT = 1024


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what is made of the model is kept: it is made once."""
    return tmp_path_factory.mktemp("built")


def weights(models_dir: Path) -> tuple[Path, str]:
    entry = ModelStore(models_dir).require(Settings().llm_model)
    [name] = [path for path in entry.files if path.endswith(".gguf")]
    return entry.path / name, entry.files[name].sha256


def writer_of(models_dir: Path, built: Path) -> SmallLlmEndpoint:
    path, sha256 = weights(models_dir)
    return SmallLlmEndpoint("small", path, sha256, built, threads=2, context=CONTEXT)


@pytest.fixture(scope="module")
def language(models_dir: Path, built: Path) -> LanguageModel:
    path, sha256 = weights(models_dir)
    return LanguageModel(path, sha256, built, threads=2, context=CONTEXT)


async def test_a_draft_that_nobody_waits_for_shows_nothing_more(
    models_dir: Path, built: Path
) -> None:
    writer = writer_of(models_dir, built)
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
    assert request.meter.exact
    assert request.meter.completion_tokens < 200


async def test_a_question_of_more_tokens_than_the_window_is_refused(
    models_dir: Path, built: Path
) -> None:
    writer = writer_of(models_dir, built)
    rare = DraftRequest("\U0001f9ff" * 600, (DESK,), (), 200, "0f0f")  # several tokens each
    with pytest.raises(ApiError) as refused:
        await writer.draft(rare)
    await writer.close()
    assert (refused.value.status, refused.value.code) == (413, "question_too_long")


def test_it_ends_where_it_has_said_it_and_counts_every_token(language: LanguageModel) -> None:
    asked = language.prompt([{"role": "user", "content": "Say hello."}])
    steps = list(language.write(asked, 64))
    assert "".join(step.piece for step in steps).startswith("Hello!")
    assert steps[-1].ended
    # The token that ends it is one more.
    assert [step.written for step in steps] == list(range(1, len(steps) + 1))
    assert {step.read for step in steps} == {len(asked)}


def test_a_long_prompt_is_read_in_batches(language: LanguageModel) -> None:
    long = "The bell rings at noon. " * 60
    prompt = language.prompt([{"role": "user", "content": f"{long}When does the bell ring?"}])
    assert len(prompt) > 300
    reads = [step.read for step in language.write(prompt, 8)]
    assert reads[0] < reads[1] < reads[2] == len(prompt)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        # As llama.cpp (xllamacpp 2026.10.11549) counts the whole chat.
        ("Hello", 31),
        ("In 2026 there were 1,234,567 of 98.6 %", 55),
        ("def f(x):\n    return x['a']  # ok\n\n\tif x:\n", 50),
        ("na\u00efve \u65e5\u672c\u8a9e \U0001f9ff \u0627\u0644\u0639\u0631\u0628\u064a\u0629", 48),
        ("don't we'll I'M they're", 39),
        ("  two  spaces \n\n\n and   lines \r\n end ", 42),
        ("\u00e9 e\u0301 \u2460\u00b2\u00bd \u0967\u0968\u0969", 47),
        ("a\u00a0b\u3000c\u200bd", 39),
    ],
)
def test_texts_of_all_kinds_have_the_tokens_that_the_model_learned(
    language: LanguageModel, text: str, count: int
) -> None:
    assert len(language.prompt([{"role": "user", "content": text}])) == count


def test_a_character_of_several_tokens_is_shown_whole(language: LanguageModel) -> None:
    text = "na\u00efve \u65e5\u672c\u8a9e \U0001f9ff"
    reader = language.chat.reader()
    asked = language.prompt([{"role": "user", "content": text}])
    pieces = [reader.text(token) for token in asked]
    assert text in "".join(pieces)
    assert all("\ufffd" not in piece for piece in pieces)
