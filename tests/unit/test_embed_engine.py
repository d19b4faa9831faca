"""The engine of embed over the real model: what the cache answers is what the model answered."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.embed.cache import VectorCache
from services.embed.disk_cache import FILE
from services.embed.engine import Embedded, Engine
from services.embed.memory_cache import Known
from services.embed.models.onnx import OnnxModel
from services.embed.models.prompts import read_prompts
from shared.errors import StartupError
from shared.settings import Precision, Settings

T = TypeVar("T")

LONG = "word " * 300
TEXTS = ["a cat", "a tax return", "naïve café", LONG]


@pytest.fixture(scope="module")
def model(minilm_dir: Path) -> OnnxModel:
    return opened(minilm_dir, "int8")


def opened(folder: Path, precision: Precision) -> OnnxModel:
    built_dir = Settings().built_dir
    return OnnxModel(
        "all-MiniLM-L6-v2", folder, built_dir=built_dir, precision=precision, threads=2
    )


def run(
    model: OnnxModel, work: Callable[[Engine], Awaitable[T]], settings: Settings | None = None
) -> T:
    """What the work gives over an engine of its own."""

    async def with_engine() -> T:
        engine = Engine(model, settings or Settings())
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(with_engine())


def looked_up(result: str) -> float:
    name = "refdesk_embed_cache_lookups_total"
    return REGISTRY.get_sample_value(name, {"result": result}) or 0


def texts_run() -> float:
    """How many texts the model has run."""
    labels = {"model": "all-MiniLM-L6-v2"}
    return REGISTRY.get_sample_value("refdesk_batch_items_sum", labels) or 0


def equal(one: Embedded, other: Embedded) -> bool:
    return one.vectors.tobytes() == other.vectors.tobytes() and (one.tokens, one.cut) == (
        other.tokens,
        other.cut,
    )


def test_the_cache_answers_what_the_model_did(model: OnnxModel) -> None:
    async def twice(engine: Engine) -> tuple[Embedded, Embedded]:
        return await engine.embed(TEXTS), await engine.embed(TEXTS)

    ran, missed, found = texts_run(), looked_up("miss"), looked_up("memory")
    first, again = run(model, twice)
    assert equal(first, again)
    assert first.cut == [0, 0, 0, 46]
    assert (texts_run() - ran, looked_up("miss") - missed) == (4, 4)
    assert looked_up("memory") - found == 4


def test_cached_and_new_texts_come_in_the_order_asked_for(model: OnnxModel) -> None:
    async def mixed(engine: Engine) -> tuple[Embedded, Embedded]:
        known = await engine.embed(["a cat", LONG])
        return known, await engine.embed(["a dog", LONG, "a dog", "a cat", LONG])

    ran = texts_run()
    known, answer = run(model, mixed)
    assert texts_run() - ran == 3
    assert answer.vectors[3].tobytes() == known.vectors[0].tobytes()
    assert answer.vectors[1].tobytes() == answer.vectors[4].tobytes() == known.vectors[1].tobytes()
    assert answer.vectors[0].tobytes() == answer.vectors[2].tobytes()
    assert answer.cut == [0, 46, 0, 0, 46]
    assert answer.tokens == 4 + 256 + 4 + 4 + 256


def test_a_prompt_makes_another_text(model: OnnxModel) -> None:
    async def both(engine: Engine) -> tuple[Embedded, Embedded, Embedded]:
        bare = await engine.embed(["a cat"])
        return bare, await engine.embed(["a cat"], prompt="query: "), await engine.embed(["a cat"])

    bare, prompted, again = run(model, both)
    assert equal(bare, again)
    assert prompted.tokens == bare.tokens + 2
    assert not np.allclose(prompted.vectors, bare.vectors, atol=0.01)


def test_without_a_cache_the_model_is_asked_each_time(model: OnnxModel) -> None:
    async def twice(engine: Engine) -> None:
        await engine.embed(["a cat"])
        await engine.embed(["a cat"])

    ran, missed = texts_run(), looked_up("miss")
    run(model, twice, Settings(embed_cache_mb=0))
    assert (texts_run() - ran, looked_up("miss") - missed) == (2, 0)


def test_readiness_is_never_answered_from_the_cache(model: OnnxModel) -> None:
    async def twice(engine: Engine) -> None:
        await engine.prove()
        await engine.prove()

    ran = texts_run()
    run(model, twice)
    assert texts_run() - ran == 2


@pytest.mark.parametrize("memory", [0, 32])
def test_a_restart_finds_the_vectors_on_disk(model: OnnxModel, tmp_path: Path, memory: int) -> None:
    settings = Settings(embed_cache_dir=tmp_path, embed_cache_mb=memory)
    first = run(model, lambda engine: engine.embed(TEXTS), settings)
    ran, found = texts_run(), looked_up("disk")
    assert equal(run(model, lambda engine: engine.embed(TEXTS), settings), first)
    assert (texts_run() - ran, looked_up("disk") - found) == (0, 4)


def test_a_damaged_file_costs_time_alone(model: OnnxModel, tmp_path: Path) -> None:
    settings = Settings(embed_cache_dir=tmp_path)
    first = run(model, lambda engine: engine.embed(TEXTS), settings)
    (tmp_path / FILE).write_bytes(b"no database " * 1000)
    ran = texts_run()
    assert equal(run(model, lambda engine: engine.embed(TEXTS), settings), first)
    assert texts_run() - ran == 4


def test_another_model_finds_nothing_of_this_one(
    model: OnnxModel, minilm_dir: Path, tmp_path: Path
) -> None:
    exact = opened(minilm_dir, "fp32")
    settings = Settings(embed_cache_dir=tmp_path)
    run(model, lambda engine: engine.embed(TEXTS), settings)
    ran = texts_run()
    answer = run(exact, lambda engine: engine.embed(TEXTS), settings)
    assert texts_run() - ran == 4
    assert np.allclose(answer.vectors, exact.embed(exact.tokenize(TEXTS)), atol=1e-5)


def test_many_requests_for_one_text_at_once_are_all_right(model: OnnxModel) -> None:
    async def at_once(engine: Engine) -> list[Embedded]:
        return list(await asyncio.gather(engine.embed(["a cat"]), engine.embed(["a cat"])))

    ran = texts_run()
    answers = run(model, at_once, Settings(embed_cache_mb=1))
    right = model.embed(model.tokenize(["a cat"]))
    assert all(np.allclose(answer.vectors, right, atol=1e-5) for answer in answers)
    assert texts_run() - ran <= 2


def test_more_texts_than_the_cache_holds_are_answered_all(model: OnnxModel, tmp_path: Path) -> None:
    texts = [f"number {number}" for number in range(700)]  # a MiB holds some 540

    async def twice(engine: Engine) -> tuple[Embedded, Embedded]:
        return await engine.embed(texts), await engine.embed(texts)

    settings = Settings(embed_cache_mb=1, embed_cache_dir=tmp_path)
    ran = texts_run()
    first, again = run(model, twice, settings)
    assert equal(first, again)
    assert texts_run() - ran == 700


def test_numbers_that_are_none_are_not_kept(model: OnnxModel, tmp_path: Path) -> None:
    async def keep(bad: float) -> dict[bytes, Known]:
        cache = VectorCache(model, Settings(embed_cache_dir=tmp_path))
        good = np.ones(384, np.float32)
        spoiled = good.copy()
        spoiled[3] = bad
        await cache.put({b"good": Known(good, 1, 0), b"bad": Known(spoiled, 1, 0)})
        found = await cache.get([b"good", b"bad"])
        await cache.close()
        return found

    assert asyncio.run(keep(float("nan"))).keys() == {b"good"}
    assert asyncio.run(keep(float("inf"))).keys() == {b"good"}


def test_token_vectors_and_vectors_are_made_side_by_side(model: OnnxModel) -> None:
    async def work(engine: Engine) -> None:
        apart = await engine.token_vectors(TEXTS, prompt="a ")
        together, vectors = await asyncio.gather(
            engine.token_vectors([*TEXTS, "a cat"]), engine.embed(["a dog", "a cat"])
        )
        assert [len(rows) for rows in together.vectors] == [4, 5, 4, 256, 4]
        assert together.tokens == 4 + 5 + 4 + 256 + 4
        assert together.cut == [0, 0, 0, 46, 0]
        for rows in [*together.vectors, vectors.vectors]:
            assert rows.dtype == np.float32
            assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert [len(rows) for rows in apart.vectors] == [5, 6, 5, 256]
        assert vectors.vectors.shape == (2, 384)

    run(model, work)


def test_pytorch_gives_the_same_token_vectors(minilm_dir: Path) -> None:
    backend = pytest.importorskip("services.embed.models.sentence_transformers")
    slow = backend.TorchModel("all-MiniLM-L6-v2", minilm_dir, "any", threads=2)
    exact = opened(minilm_dir, "fp32")
    batch = exact.tokenize(TEXTS)
    for one, other in zip(slow.token_vectors(batch), exact.token_vectors(batch), strict=True):
        assert one.shape == other.shape
        assert np.allclose(one, other, atol=1e-5)
    assert np.allclose(slow.embed(batch), exact.embed(batch), atol=1e-5)


def test_tokens_are_told_with_the_characters_they_stand_for(model: OnnxModel) -> None:
    async def work(engine: Engine) -> None:
        text = "Naïve tokenizers, 猫"
        [tokens] = engine.tokenize([text])
        assert [token.id for token in tokens] == list(model.tokenize([text])[0].ids)
        assert [token.text for token in tokens if token.special] == ["[CLS]", "[SEP]"]
        ordinary = [token for token in tokens if not token.special]
        assert engine.tokenize([text], special_tokens=False) == [ordinary]
        pieces = [text[token.start : token.end] for token in ordinary]
        assert pieces == ["Naïve", "token", "izer", "s", ",", "猫"]
        assert len(engine.tokenize([LONG])[0]) == 302  # none is cut
        assert engine.tokenize([]) == []

    run(model, work)


def test_a_models_prompts_are_read_from_its_folder(model: OnnxModel, tmp_path: Path) -> None:
    assert model.info.prompts == {}
    file = tmp_path / "config_sentence_transformers.json"
    prompts = {"query": "query: ", "document": ""}
    file.write_text(json.dumps({"prompts": prompts, "default_prompt_name": None}))
    assert read_prompts(tmp_path) == prompts
    for damaged in ("{", '{"prompts": ["query"]}', '{"prompts": {"query": 1}}', "[]"):
        file.write_text(damaged)
        with pytest.raises(StartupError, match="config_sentence_transformers"):
            read_prompts(tmp_path)


def test_a_model_that_leaves_its_prompt_out_of_the_mean_is_refused(tmp_path: Path) -> None:
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text('{"include_prompt": false}')
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text('{"prompts": {"query": "", "document": ""}}')
    assert read_prompts(tmp_path) == {"query": "", "document": ""}
    file.write_text('{"prompts": {"query": "query: "}}')
    with pytest.raises(StartupError, match="REFDESK_EMBED_MODEL"):
        read_prompts(tmp_path)
