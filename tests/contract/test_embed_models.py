"""embed with several models: each found by its name, loaded on first use, unloaded for room.

The models are small (tests/small_model.py), so that many can be loaded and 10,000 texts be read.
"""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.embed import pool
from services.embed.app import build
from shared.errors import StartupError
from shared.modelstore.folder import FolderSource
from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.small_model import NAME, make_small_model, store_small_model
from tests.suite import serving

PLAIN, PROMPTED, BROKEN = "plain", "prompted", "broken"
TIGHT = 22  # MiB: room for one of the models, each of some 14 MiB
MANY = 10_000


@pytest.fixture(scope="module")
def store(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the small model under three names: as it is, with a default prompt, and
    one whose configuration is damaged."""
    folder = tmp_path_factory.mktemp("models")
    small = make_small_model(minilm_dir, folder / NAME)
    changes = {
        PLAIN: {},
        PROMPTED: {
            "config_sentence_transformers.json": json.dumps(
                {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
            )
        },
        BROKEN: {"config.json": "{"},
    }
    for name, files in changes.items():
        source = shutil.copytree(small, folder / "sources" / name)
        for file, content in files.items():
            (source / file).write_text(content)
        ModelStore(folder / "store").pull(FolderSource(source, name))
    shutil.rmtree(folder / "sources")
    return folder / "store"


def folders(store: Path) -> dict[str, Any]:
    """The settings that name the model store and, beside it, where graphs are built."""
    return {"models_dir": store, "data_dir": store.parent / "data"}


@asynccontextmanager
async def service(store: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of embed with the model `plain`; the others are known to it."""
    others = {PROMPTED: None, BROKEN: None}
    given: dict[str, Any] = {"embed_model": PLAIN, "embed_models": others}
    app = await build(Settings(**folders(store), **(given | settings)))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=120) as client:
        yield client


async def vectors(client: httpx.AsyncClient, **body: Any) -> np.ndarray[Any, Any]:
    """float32 [n, d]"""
    response = await client.post("/v1/embeddings", json={"encoding_format": "base64"} | body)
    data = response.raise_for_status().json()["data"]
    return np.stack([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in data])


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"refdesk_{name}", labels) or 0


def loads(model: str, result: str = "ok") -> float:
    return metric("embed_model_loads_total", model=model, result=result)


def texts_run() -> float:
    return metric("batch_items_sum", model=PLAIN)


def texts_wait() -> bool:
    return metric("batch_queued_items", model=PLAIN) > 0


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.001)


def is_loaded(model: str) -> bool:
    return metric("embed_model_bytes", model=model) > 0


async def test_each_model_answers_under_its_name(store: Path) -> None:
    before = loads(PROMPTED)
    async with service(store) as client:
        assert [one["id"] for one in (await client.get("/v1/models")).json()["data"]] == [
            PLAIN, PROMPTED, BROKEN
        ]  # fmt: skip
        plain = await vectors(client, input="a cat")
        assert np.array_equal(await vectors(client, input="a cat", model=PLAIN), plain)
        assert loads(PROMPTED) == before
        prompted = await vectors(client, input="a cat", model=PROMPTED)
        by_hand = await vectors(client, input="query: a cat", model=PLAIN)
        assert not np.allclose(prompted, plain, atol=0.01)
        assert np.allclose(prompted, by_hand, atol=1e-4)
        assert np.array_equal(await vectors(client, input="a cat", model=PROMPTED), prompted)
        [tei] = (await client.post("/embed", json={"inputs": "a cat"})).json()
        assert np.allclose(tei, plain, atol=1e-6)
        response = await client.post("/v1/embeddings", json={"input": "x", "model": PROMPTED})
        assert response.json()["model"] == PROMPTED
        assert loads(PROMPTED) == before + 1


async def test_what_is_told_of_a_model_is_found_by_its_name(store: Path) -> None:
    async with service(store) as client:
        default = (await client.get("/info")).json()
        other = (await client.get("/info", params={"model": PROMPTED})).json()
        assert (default["model"], default["default_prompt"]) == (PLAIN, "")
        assert (other["model"], other["default_prompt"]) == (PROMPTED, "query: ")
        tokenizer = (await client.get(f"/v1/models/{PROMPTED}/tokenizer")).json()
        assert tokenizer["model"]["type"] == "WordPiece"


@pytest.mark.parametrize("name", ["text-embedding-3-small", "", "../plain", "x" * 256])
async def test_an_unknown_model_is_told_all_that_are_known(store: Path, name: str) -> None:
    async with service(store) as client:
        answers = [
            await client.post("/v1/embeddings", json={"input": "x", "model": name}),
            await client.get("/info", params={"model": name}),
        ]
        if name and not name.startswith("."):
            answers.append(await client.get(f"/v1/models/{name}/tokenizer"))
        for answer in answers:
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("unknown_model", "model")
            assert error["message"].endswith("there is: plain, prompted, broken")


async def test_a_model_that_the_store_does_not_have_is_said_to_be_missing(store: Path) -> None:
    async with service(store, embed_models="absent, ../odd=onnx") as client:
        for name, reason in (("absent", "refdesk models pull"), ("../odd", "cannot be the name")):
            answer = await client.post("/v1/embeddings", json={"input": "x", "model": name})
            assert answer.status_code == 503
            assert reason in answer.json()["error"]["message"]


async def test_a_model_is_loaded_once_however_many_ask_first(store: Path) -> None:
    before = loads(PROMPTED)
    async with service(store) as client:
        answers = await asyncio.gather(
            *(vectors(client, input=f"number {n}", model=PROMPTED) for n in range(30))
        )
        assert [answer.shape for answer in answers] == [(1, 384)] * 30
        assert loads(PROMPTED) == before + 1


async def test_a_model_that_cannot_be_loaded_harms_no_other(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(store) as client:
        right = await vectors(client, input="a cat")
        before = loads(BROKEN, "failed")
        body = {"input": "x", "model": BROKEN}
        answers = await asyncio.gather(
            client.post("/v1/embeddings", json=body),
            client.post("/v1/embeddings", json=body),
            vectors(client, input=["a cat", "a dog"]),
        )
        for answer in answers[:2]:
            assert answer.status_code == 503
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("model_unavailable", "model")
            assert "config.json" in error["message"]
        assert np.allclose(answers[2][0], right[0], atol=1e-5)
        failed = loads(BROKEN, "failed")
        assert failed > before
        # Not tried again at once, as each try may unload others for it, but later it is.
        assert (await client.get("/info", params={"model": BROKEN})).status_code == 503
        assert loads(BROKEN, "failed") == failed
        monkeypatch.setattr(pool, "_TRY_AGAIN_S", 0.0)  # in place of waiting for it
        assert (await client.get("/info", params={"model": BROKEN})).status_code == 503
        assert loads(BROKEN, "failed") == failed + 1
        assert (await client.get("/ready")).status_code == 200


async def test_the_default_model_must_be_there(store: Path) -> None:
    with pytest.raises(StartupError, match=r"config\.json"):
        await build(Settings(**folders(store), embed_model=BROKEN))
    with pytest.raises(StartupError, match="REFDESK_EMBED_MEMORY_MB allows 5"):
        await build(Settings(**folders(store), embed_model=PLAIN, embed_memory_mb=5))


async def test_models_make_room_for_each_other(store: Path) -> None:
    async with service(store, embed_memory_mb=TIGHT) as client:
        first = {name: await vectors(client, input="a", model=name) for name in (PLAIN, PROMPTED)}
        assert (is_loaded(PLAIN), is_loaded(PROMPTED)) == (False, True)
        before = loads(PLAIN)
        # What is known about a model, and health, loads nothing.
        assert (await client.get("/info")).json()["model"] == PLAIN
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["model"]) == (200, PLAIN)
        assert loads(PLAIN) == before
        for name in (PLAIN, PROMPTED, PLAIN):
            assert np.array_equal(await vectors(client, input="a", model=name), first[name])
            assert metric("embed_models_loaded") == 1
        assert loads(PLAIN) == before + 2


async def test_a_model_in_use_is_not_unloaded(store: Path) -> None:
    async with service(store, embed_memory_mb=TIGHT, embed_batch_tokens=256) as client:
        ran = texts_run()
        texts = [f"number {n}" for n in range(1000)]
        large = asyncio.create_task(vectors(client, input=texts))
        await until(texts_wait)
        other = asyncio.create_task(vectors(client, input="a", model=PROMPTED))
        later = asyncio.create_task(vectors(client, input=["number 0", "b"]))
        await other
        assert texts_run() - ran >= 1000
        assert (await large).shape == (1000, 384)
        assert np.allclose((await later)[0], (await large)[0], atol=1e-5)
        assert metric("embed_models_loaded") == 1


async def test_who_waits_for_room_and_leaves_leaves_no_trace(store: Path) -> None:
    async with service(store, embed_memory_mb=TIGHT, embed_batch_tokens=256) as client:
        large = asyncio.create_task(vectors(client, input=[f"number {n}" for n in range(500)]))
        await until(texts_wait)
        before = loads(PROMPTED)
        body = {"input": "a", "model": PROMPTED}
        hurry = {"x-deadline-ms": "1"}
        late = await client.post("/v1/embeddings", json=body, headers=hurry)
        assert late.status_code == 504
        assert (await large).shape == (500, 384)
        assert loads(PROMPTED) == before
        assert (await vectors(client, **body)).shape == (1, 384)
        assert (await vectors(client, input="a")).shape == (1, 384)


async def test_ten_thousand_texts_are_answered_in_order_beside_others(store: Path) -> None:
    async with service(store) as client:
        texts = [f"number {n}" for n in range(MANY)]
        large = asyncio.create_task(vectors(client, input=texts))
        await until(texts_wait)
        small = await vectors(client, input=["number 7", "number 9999"])
        assert not large.done()
        assert (await client.get("/ready")).status_code == 200
        answer = await large
        assert answer.shape == (MANY, 384)
        assert np.allclose(answer[[7, 9999]], small, atol=1e-4)
        assert np.allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-5)


async def test_what_a_caller_who_left_had_waiting_is_never_run(store: Path) -> None:
    async with service(store) as client:
        ran = texts_run()
        texts = [f"forsaken {n}" for n in range(MANY)]
        large = asyncio.create_task(vectors(client, input=texts))
        await until(texts_wait)
        large.cancel()
        await until(lambda: not texts_wait())
        request = {"service": "embed", "method": "POST", "route": "/v1/embeddings"}
        assert metric("http_requests_total", status="499", **request) == 1
        assert (await vectors(client, input="still here")).shape == (1, 384)
        assert texts_run() - ran < MANY / 2


async def test_a_model_that_makes_all_kinds_gives_them_in_one_answer(
    minilm_dir: Path, tmp_path: Path
) -> None:
    store_small_model(minilm_dir, tmp_path)
    flag: dict[str, Any] = {"embed_model": NAME, "embed_backend": "flag", "embed_models": {}}
    async with service(tmp_path / "models", **flag) as client:
        texts = ["hello world", "cat", "hello world"]
        rows = (await client.post("/embed_sparse", json={"inputs": texts})).json()
        assert rows[0] == rows[2] != rows[1]
        assert all(one["value"] > 0 for row in rows for one in row)
        body = {"input": texts, "outputs": ["dense", "sparse", "tokens"]}
        answer = await client.post("/v1/embeddings", json=body)
        data = answer.raise_for_status().json()["data"]
        for item, row in zip(data, rows, strict=True):
            assert item["sparse"]["indices"] == [one["index"] for one in row]
            assert np.allclose(item["sparse"]["values"], [one["value"] for one in row], atol=1e-4)
            assert np.linalg.norm(item["embedding"]) == pytest.approx(1, abs=1e-4)
        assert np.shape(data[1]["token_embeddings"])[1] == 384


async def test_another_backend_has_vectors_of_its_own(store: Path) -> None:
    models = {PROMPTED: "sentence-transformers"}
    async with service(store, embed_models=models) as client:
        info = (await client.get("/info", params={"model": PROMPTED})).json()
        assert (info["backend"], info["precision"]) == ("sentence-transformers", "fp32")
        exact = await vectors(client, input="a cat", model=PROMPTED)
        quick = await vectors(client, input="query: a cat")
        assert not np.array_equal(exact, quick)
        assert (exact * quick).sum() > 0.98
