"""What every backend of embed does alike: one suite, run over each with a real model.

The model is small (tests/small_model.py), so that each reads thousands of texts. The remote one is
in the real service on loopback.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from tokenizers import Tokenizer

from services.embed.models.base import EmbeddingModel, Kind, Reading, TextTooLongError, Vectors
from services.embed.models.opening import open_model
from shared.auth import LOCAL
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError
from shared.settings import Settings
from tests.small_model import NAME, store_small_model
from tests.suite import ServiceProcess, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

DENSE: frozenset[Kind] = frozenset({"dense"})

# How far the vectors of one text may differ, by the texts that were read along with it.
_BY_BATCH = {"onnx": 1e-6, "sentence-transformers": 1e-6, "flag": 1e-6, "remote": 1e-6}

STRANGE = [
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag",
    "e\u0301 n\u0303 \u0915\u094d\u0937\u093f Z\u0351\u036b\u0343algo",  # combining characters
    "שלום עולם, مرحبا بالعالم",  # from right to left
    "日本語のテキスト 中文文本 한국어",
    "\x00 \x01\x1b\x7f \u202e \ufeff \ufffe",
    " ",
    "\n\t\u00a0\u2003",
    "\ufb01 \u2167 \u00bd \u210c \U0001d518\U0001d52b\U0001d526",  # what NFKC writes otherwise
    "[CLS] [SEP] [PAD] [UNK] [MASK] <s> </s>",
    "x" * 3000,
]


@pytest.fixture(scope="module")
def small_store(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small model in the store ``models``."""
    scratch = tmp_path_factory.mktemp("backends")
    store_small_model(minilm_dir, scratch)
    return scratch


@pytest.fixture(scope="module")
def served(small_store: Path) -> Iterator[str]:
    """The base URL of the service's API, with the small model."""
    port = free_port()
    env = {
        "REFDESK_EMBED_PORT": str(port),
        "REFDESK_EMBED_MODEL": NAME,
        "REFDESK_MODELS_DIR": str(small_store / "models"),
        "REFDESK_DATA_DIR": str(small_store / "data"),
    }
    url = f"http://127.0.0.1:{port}"
    service = ServiceProcess("embed", url, env, small_store / "embed.log")
    try:
        service.start()
        yield f"{url}/v1"
    finally:
        service.stop()


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=["onnx int8", "onnx fp32", "sentence-transformers", "flag", "remote"],
)
async def model(request: pytest.FixtureRequest, small_store: Path) -> AsyncIterator[EmbeddingModel]:
    backend, _, precision = request.param.partition(" ")
    settings = Settings(
        data_dir=small_store / "data",
        models_dir=small_store / "models",
        embed_precision=precision or "auto",
        embed_device="cpu",
        embed_remote_url=request.getfixturevalue("served") if backend == "remote" else "",
    )
    model = await open_model(NAME, backend, settings)
    yield model
    await model.close()


def matrix(readings: list[Reading]) -> Vectors:
    """The texts' vectors, float32 [n, d]."""
    return np.stack([vector for one in readings if (vector := one.dense) is not None])


@contextmanager
def after(milliseconds: float) -> Iterator[None]:
    """A request whose caller waits so long."""
    enter(RequestContext("test", Deadline.after_ms(milliseconds), LOCAL))
    try:
        yield
    finally:
        enter(RequestContext("test", Deadline(float("inf")), LOCAL))


async def test_it_says_what_it_is(model: EmbeddingModel) -> None:
    info = model.info
    assert info.dimension == 384
    assert info.kinds[0] == "dense"
    assert (info.max_tokens, info.special_tokens) == (256, 2)
    assert (info.prompts, info.default_prompt) == ({}, "")
    assert info.revision
    assert (model.nbytes > 0) == (info.backend != "remote")


async def test_it_gives_a_unit_vector_for_each_text_in_order(model: EmbeddingModel) -> None:
    texts = ["a cat", "word " * 40, "a tax return", "a kitten", "so many words, of all lengths"]
    readings = await model.read(texts, DENSE)
    vectors = matrix(readings)
    assert vectors.shape == (len(texts), model.info.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert sum(one.tokens for one in readings) == 4 + 42 + 5 + 4 + 9  # with the special ones
    assert all(one.cut == 0 for one in readings)
    assert all(one.sparse is None and one.token_vectors is None for one in readings)
    alone = matrix([(await model.read([text], DENSE))[0] for text in texts])
    assert (vectors @ alone.T).argmax(axis=1).tolist() == list(range(len(texts)))


async def test_no_texts_get_no_readings(model: EmbeddingModel) -> None:
    assert await model.read([], DENSE) == []


async def test_any_text_of_unicode_gets_a_vector(model: EmbeddingModel) -> None:
    vectors = matrix(await model.read(STRANGE, DENSE))
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_a_very_long_text_is_cut_and_it_is_told_by_how_much(model: EmbeddingModel) -> None:
    short, long = await model.read(["word", "word " * 100_000], DENSE)
    assert (short.cut, long.cut) == (0, 100_002 - 256)
    assert short.tokens + long.tokens == 3 + 256
    [at_the_limit] = await model.read(["word " * 254], DENSE)
    assert at_the_limit.cut == 0
    assert np.allclose(long.dense, at_the_limit.dense, atol=1e-6)


async def test_a_text_to_be_read_whole_is_refused_with_its_length(model: EmbeddingModel) -> None:
    fits = "word " * 254
    with pytest.raises(TextTooLongError) as caught:
        await model.read(["short", fits, fits + "word", "word " * 999], DENSE, whole=True)
    assert (caught.value.place, caught.value.tokens, caught.value.limit) == (2, 257, 256)
    assert len(await model.read(["short", fits], DENSE, whole=True)) == 2


async def test_the_end_of_a_text_can_be_kept_or_it_is_refused(model: EmbeddingModel) -> None:
    text = "early " * 400 + "late " * 254
    if model.info.backend == "remote":
        with pytest.raises(ApiError) as caught:
            await model.read([text], DENSE, keep="end")
        assert caught.value.status == 424
        return
    [end] = await model.read([text], DENSE, keep="end")
    [late] = await model.read(["late " * 254], DENSE)
    assert end.cut == 400
    assert np.allclose(end.dense, late.dense, atol=1e-6)


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.long)])
async def test_thousands_of_texts_get_what_each_gets_alone(
    model: EmbeddingModel, count: int
) -> None:
    texts = [f"number {place}" for place in range(count)]
    vectors = matrix(await model.read(texts, DENSE))
    assert vectors.shape == (count, 384)
    for place in (0, 7, count // 2, count - 1):
        [alone] = await model.read([texts[place]], DENSE)
        assert np.allclose(vectors[place], alone.dense, atol=_BY_BATCH[model.info.backend])


async def test_equal_texts_get_equal_vectors_whatever_is_read_with_them(
    model: EmbeddingModel,
) -> None:
    text = "How do I reset my password?"
    [alone] = await model.read([text], DENSE)
    others = [f"{'filler ' * (number % 90)}{number}" for number in range(200)]
    among = await model.read([text, *others, text], DENSE)
    for one in (among[0], among[-1]):
        assert np.allclose(one.dense, alone.dense, atol=_BY_BATCH[model.info.backend])


async def test_what_is_asked_for_comes_alone_or_together_alike(model: EmbeddingModel) -> None:
    texts = ["a cat sat on a mat", "a tax return"]
    every: frozenset[Kind] = frozenset(model.info.kinds)
    together = await model.read(texts, every)
    for kind in model.info.kinds:
        for one, whole in zip(await model.read(texts, frozenset({kind})), together, strict=True):
            assert (one.dense is None, one.sparse is None, one.token_vectors is None) == (
                kind != "dense",
                kind != "sparse",
                kind != "tokens",
            )
            given = {"dense": one.dense, "tokens": one.token_vectors}.get(kind)
            if given is not None:
                made = {"dense": whole.dense, "tokens": whole.token_vectors}[kind]
                assert np.allclose(given, made, atol=1e-6)
            else:
                assert one.sparse == pytest.approx(whole.sparse)


async def test_token_vectors_are_unit_rows_of_the_text_alone(model: EmbeddingModel) -> None:
    if model.info.backend == "remote":  # the API has none
        return
    texts = ["a cat", "word " * 100, "x"]
    readings = await model.read(texts, frozenset({"tokens"}))
    first = 1 if model.info.backend == "flag" else 0  # it has none for the first token
    for one in readings:
        assert one.token_vectors is not None
        assert one.token_vectors.shape == (one.tokens - first, 384)
        assert one.token_vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(one.token_vectors, axis=1), 1, atol=1e-5)


async def test_what_it_does_not_make_is_refused_before_anything_is_read(
    model: EmbeddingModel,
) -> None:
    kinds: tuple[Kind, ...] = ("sparse", "tokens")
    for kind in set(kinds) - set(model.info.kinds):
        with pytest.raises(ApiError) as caught:
            await model.read(["a cat"], frozenset({"dense", kind}))
        assert (caught.value.status, caught.value.code) == (424, "no_such_output")


async def test_its_tokenizer_counts_as_it_does(model: EmbeddingModel) -> None:
    tokenizer = Tokenizer.from_buffer(model.tokenizer_json())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = ["a cat", *STRANGE[:4], "reset my password"]
    counted = sum(len(encoding) for encoding in tokenizer.encode_batch(texts))
    assert sum(one.tokens for one in await model.read(texts, DENSE)) == counted


async def test_many_requests_at_once_each_get_their_own(model: EmbeddingModel) -> None:
    texts = [f"text {number}" for number in range(40)]
    together = matrix(await model.read(texts, DENSE))
    apart = await asyncio.gather(*(model.read([text], DENSE) for text in texts))
    assert np.allclose(matrix([one for [one] in apart]), together, atol=1e-6)


async def test_a_caller_who_leaves_holds_up_nobody(model: EmbeddingModel) -> None:
    reading = asyncio.create_task(
        model.read([f"{'a long text ' * 60}{number}" for number in range(2_000)], DENSE)
    )
    await asyncio.sleep(0.2)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(await model.read(["a cat"], DENSE)) == 1
    # Nothing of it waits any more; a remote model's queue is seen in test_embed_remote.py.
    queued = REGISTRY.get_sample_value("refdesk_batch_queued_items", {"model": model.info.model})
    assert not queued


async def test_a_request_out_of_time_is_not_begun(model: EmbeddingModel) -> None:
    with after(0), pytest.raises(ApiError) as caught:
        await model.read(["a cat"], DENSE)
    assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")


async def test_the_same_weights_give_the_same_vectors_on_every_runtime(small_store: Path) -> None:
    texts = ["a cat", "How do I reset my password?", *STRANGE, "word " * 300]
    vectors = {}
    for backend in ("onnx", "sentence-transformers"):
        settings = Settings(
            data_dir=small_store / "data",
            models_dir=small_store / "models",
            embed_precision="fp32",
            embed_device="cpu",
        )
        model = await open_model(NAME, backend, settings)
        vectors[backend] = matrix(await model.read(texts, DENSE))
        await model.close()
    cosines = (vectors["onnx"] * vectors["sentence-transformers"]).sum(axis=1)
    assert cosines.min() > 0.99999
