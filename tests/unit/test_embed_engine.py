"""The engine of embed over the real model: what the cache answers is what the model answered."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.embed.cache import VectorCache
from services.embed.disk_cache import FILE
from services.embed.engine import DENSE, Engine
from services.embed.memory_cache import Known
from services.embed.models.base import EmbeddingModel, Kind, Reading, TextTooLongError, Vectors
from services.embed.models.opening import open_model
from services.embed.models.prompts import read_prompts
from shared.encoder.tokenizer import TextTokenizer
from shared.errors import ApiError, StartupError
from shared.settings import Precision, Settings

T = TypeVar("T")

LONG = "word " * 300
TEXTS = ["a cat", "a tax return", "naïve café", LONG]


MODEL = "all-MiniLM-L6-v2"
BOTH: frozenset[Kind] = frozenset({"dense", "tokens"})

pytestmark = pytest.mark.usefixtures("models_dir")


@cache
def opened(precision: Precision) -> tuple[asyncio.Runner, EmbeddingModel]:
    """The model, and the loop that it is used in."""
    runner = asyncio.Runner()
    settings = Settings(embed_precision=precision)
    return runner, runner.run(open_model(MODEL, "onnx", settings))


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    """Both are let go of after the last test."""
    yield
    for precision in get_args(Precision):
        runner, model = opened(precision)
        runner.run(model.close())
        runner.close()
    opened.cache_clear()


def run(work: Callable[[Engine], Awaitable[T]], settings: Settings | None = None) -> T:
    """What the work gives over an engine of its own."""
    given = settings or Settings()
    runner, model = opened(given.embed_precision)

    async def with_engine() -> T:
        known = VectorCache(given)
        try:
            return await work(Engine(model, known))
        finally:
            await known.close()

    return runner.run(with_engine())


def looked_up(result: str) -> float:
    name = "refdesk_embed_cache_lookups_total"
    return REGISTRY.get_sample_value(name, {"result": result}) or 0


def texts_run() -> float:
    """How many texts the model has run."""
    labels = {"model": "all-MiniLM-L6-v2"}
    return REGISTRY.get_sample_value("refdesk_batch_items_sum", labels) or 0


def stacked(readings: Sequence[Reading]) -> Vectors:
    """float32 [n, d]"""
    return np.stack([one.dense for one in readings if one.dense is not None])


def cut(readings: Sequence[Reading]) -> list[int]:
    return [one.cut for one in readings]


def equal(one: Sequence[Reading], other: Sequence[Reading]) -> bool:
    told = [[(reading.tokens, reading.cut) for reading in readings] for readings in (one, other)]
    return stacked(one).tobytes() == stacked(other).tobytes() and told[0] == told[1]


def test_the_cache_answers_what_the_model_did() -> None:
    async def twice(engine: Engine) -> tuple[list[Reading], list[Reading]]:
        return await engine.read(TEXTS), await engine.read(TEXTS)

    ran, missed, found = texts_run(), looked_up("miss"), looked_up("memory")
    first, again = run(twice)
    assert equal(first, again)
    assert cut(first) == [0, 0, 0, 46]
    assert (texts_run() - ran, looked_up("miss") - missed) == (4, 4)
    assert looked_up("memory") - found == 4


def test_cached_and_new_texts_come_in_the_order_asked_for() -> None:
    async def mixed(engine: Engine) -> tuple[list[Reading], list[Reading]]:
        known = await engine.read(["a cat", LONG])
        return known, await engine.read(["a dog", LONG, "a dog", "a cat", LONG])

    ran = texts_run()
    known, answer = run(mixed)
    assert texts_run() - ran == 3
    assert stacked(answer)[3].tobytes() == stacked(known)[0].tobytes()
    assert (
        stacked(answer)[1].tobytes() == stacked(answer)[4].tobytes() == stacked(known)[1].tobytes()
    )
    assert stacked(answer)[0].tobytes() == stacked(answer)[2].tobytes()
    assert cut(answer) == [0, 46, 0, 0, 46]
    assert sum(one.tokens for one in answer) == 4 + 256 + 4 + 4 + 256


def test_a_prompt_makes_another_text() -> None:
    async def both(engine: Engine) -> tuple[list[Reading], list[Reading], list[Reading]]:
        bare = await engine.read(["a cat"])
        return bare, await engine.read(["a cat"], prompt="query: "), await engine.read(["a cat"])

    bare, prompted, again = run(both)
    assert equal(bare, again)
    assert prompted[0].tokens == bare[0].tokens + 2
    assert not np.allclose(stacked(prompted), stacked(bare), atol=0.01)


def test_without_a_cache_the_model_is_asked_each_time() -> None:
    async def twice(engine: Engine) -> None:
        await engine.read(["a cat"])
        await engine.read(["a cat"])

    ran, missed = texts_run(), looked_up("miss")
    run(twice, Settings(embed_cache_mb=0))
    assert (texts_run() - ran, looked_up("miss") - missed) == (2, 0)


def test_readiness_is_never_answered_from_the_cache() -> None:
    async def twice(engine: Engine) -> None:
        await engine.prove()
        await engine.prove()

    ran = texts_run()
    run(twice)
    assert texts_run() - ran == 2


@pytest.mark.parametrize("memory", [0, 32])
def test_a_restart_finds_the_vectors_on_disk(tmp_path: Path, memory: int) -> None:
    settings = Settings(embed_cache_dir=tmp_path, embed_cache_mb=memory)
    first = run(lambda engine: engine.read(TEXTS), settings)
    ran, found = texts_run(), looked_up("disk")
    assert equal(run(lambda engine: engine.read(TEXTS), settings), first)
    assert (texts_run() - ran, looked_up("disk") - found) == (0, 4)


def test_a_damaged_file_costs_time_alone(tmp_path: Path) -> None:
    settings = Settings(embed_cache_dir=tmp_path)
    first = run(lambda engine: engine.read(TEXTS), settings)
    (tmp_path / FILE).write_bytes(b"no database " * 1000)
    ran = texts_run()
    assert equal(run(lambda engine: engine.read(TEXTS), settings), first)
    assert texts_run() - ran == 4


def test_another_model_finds_nothing_of_this_one(tmp_path: Path) -> None:
    settings = Settings(embed_cache_dir=tmp_path)
    exact = settings.model_copy(update={"embed_precision": "fp32"})
    first = run(lambda engine: engine.read(TEXTS), settings)
    ran = texts_run()
    answer = run(lambda engine: engine.read(TEXTS), exact)
    assert texts_run() - ran == 4
    assert not equal(first, answer)


def test_the_end_of_a_text_is_another_text_than_its_start() -> None:
    text = "a cat " * 200 + "the end"

    async def sides(engine: Engine) -> list[list[Reading]]:
        end = " ".join(text.split()[-254:])
        return [
            await engine.read([text]),
            await engine.read([text], keep="end"),
            await engine.read([end]),
            await engine.read([text], keep="end"),
        ]

    start, end, alone, again = run(sides)
    assert equal(end, again)
    assert (cut(start), cut(end), cut(alone)) == ([148], [148], [0])
    assert stacked(end)[0] @ stacked(alone)[0] > 0.9999
    assert stacked(end)[0] @ stacked(start)[0] < 0.999


def test_a_long_text_that_may_not_be_cut_costs_no_inference() -> None:
    async def refused(engine: Engine) -> None:
        for _ in range(2):  # the second time, the cache knows how long it is
            with pytest.raises(TextTooLongError) as told:
                await engine.read(["a cat", "a cat", LONG], whole=True)
            assert (told.value.place, told.value.tokens, told.value.limit) == (2, 302, 256)
            with pytest.raises(TextTooLongError) as told:
                await engine.read(["a cat", "a cat", LONG], BOTH, whole=True)
            assert told.value.place == 2
            assert texts_run() == ran
        await engine.read(["a cat", LONG])
        with pytest.raises(TextTooLongError) as told:
            await engine.read(["a cat", "a cat", LONG], whole=True)
        assert (told.value.place, told.value.tokens, told.value.limit) == (2, 302, 256)
        assert texts_run() == ran + 2

    ran = texts_run()
    run(refused)


def test_many_requests_for_one_text_at_once_are_all_right() -> None:
    async def at_once(engine: Engine) -> list[list[Reading]]:
        return list(await asyncio.gather(engine.read(["a cat"]), engine.read(["a cat"])))

    ran = texts_run()
    answers = run(at_once, Settings(embed_cache_mb=1))
    assert np.allclose(stacked(answers[0]), stacked(answers[1]), atol=1e-5)
    assert texts_run() - ran <= 2


def test_more_texts_than_the_cache_holds_are_answered_all(tmp_path: Path) -> None:
    texts = [f"number {number}" for number in range(700)]  # a MiB holds some 540

    async def twice(engine: Engine) -> tuple[list[Reading], list[Reading]]:
        return await engine.read(texts), await engine.read(texts)

    settings = Settings(embed_cache_mb=1, embed_cache_dir=tmp_path)
    ran = texts_run()
    first, again = run(twice, settings)
    assert equal(first, again)
    assert texts_run() - ran == 700


def test_numbers_that_are_none_are_not_kept(tmp_path: Path) -> None:
    async def keep(bad: float) -> dict[bytes, Known]:
        cache = VectorCache(Settings(embed_cache_dir=tmp_path))
        good = np.ones(384, np.float32)
        spoiled = good.copy()
        spoiled[3] = bad
        await cache.put({b"good": Known(good, 1, 0), b"bad": Known(spoiled, 1, 0)})
        found = await cache.get([b"good", b"bad"])
        await cache.close()
        return found

    assert asyncio.run(keep(float("nan"))).keys() == {b"good"}
    assert asyncio.run(keep(float("inf"))).keys() == {b"good"}


def test_token_vectors_and_vectors_are_made_side_by_side() -> None:
    tokens: frozenset[Kind] = frozenset({"tokens"})

    async def work(engine: Engine) -> None:
        together, vectors = await asyncio.gather(
            engine.read([*TEXTS, "a cat"], tokens), engine.read(["a dog", "a cat"])
        )
        assert [len(of_tokens(one)) for one in together] == [4, 5, 4, 256, 4]
        assert [one.tokens for one in together] == [4, 5, 4, 256, 4]
        assert cut(together) == [0, 0, 0, 46, 0]
        assert all(one.dense is None for one in together)
        assert all(one.token_vectors is None for one in vectors)
        for rows in [*(of_tokens(one) for one in together), stacked(vectors)]:
            assert rows.dtype == np.float32
            assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert stacked(vectors).shape == (2, 384)

    run(work)


def test_both_kinds_at_once_are_what_each_is_alone() -> None:
    async def work(engine: Engine) -> None:
        ran = texts_run()
        both = await engine.read(TEXTS, BOTH)
        assert texts_run() - ran == 4  # one pass
        dense, tokens = await engine.read(TEXTS), await engine.read(TEXTS, frozenset({"tokens"}))
        assert np.allclose(stacked(both), stacked(dense), atol=1e-2)  # int8 differs by the batch
        for one, other in zip(both, tokens, strict=True):
            assert np.allclose(of_tokens(one), of_tokens(other), atol=0.1)
        with pytest.raises(ApiError, match="no sparse vectors, only dense vectors and token"):
            await engine.read(TEXTS, DENSE | {"sparse"})

    run(work)


def of_tokens(reading: Reading) -> Vectors:
    assert reading.token_vectors is not None
    return reading.token_vectors


def test_tokens_are_told_with_the_characters_they_stand_for(minilm_dir: Path) -> None:
    async def work(engine: Engine) -> None:
        text = "Naïve tokenizers, 猫"
        [tokens] = engine.tokenize([text])
        assert [token.id for token in tokens] == list(
            TextTokenizer(minilm_dir).tokenize([text])[0].ids
        )
        assert [token.text for token in tokens if token.special] == ["[CLS]", "[SEP]"]
        ordinary = [token for token in tokens if not token.special]
        assert engine.tokenize([text], special_tokens=False) == [ordinary]
        pieces = [text[token.start : token.end] for token in ordinary]
        assert pieces == ["Naïve", "token", "izer", "s", ",", "猫"]
        assert len(engine.tokenize([LONG])[0]) == 302  # none is cut
        assert engine.tokenize([]) == []

    run(work)


def test_a_models_prompts_are_read_from_its_folder(tmp_path: Path) -> None:
    assert read_prompts(tmp_path) == {}
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
