"""The sparse arm of the desk over HTTP, with an embed that makes sparse vectors and with worse."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from services.embed.app import build as build_embed
from shared.auth import hash_key
from shared.settings import Settings
from tests.shelf import QUERY, TEXTS, desk
from tests.small_model import NAME, store_small_model
from tests.suite import Suite, serving

DOCUMENTS: list[dict[str, Any]] = [
    {"id": name, "text": text, "metadata": {"sky": name in ("moon", "tides")}}
    for name, text in TEXTS.items()
]
DOCUMENTS[0]["readers"] = ["ann"]  # the moon


@pytest.fixture(scope="module")
def models(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with a small model that makes sparse vectors."""
    scratch = tmp_path_factory.mktemp("sparse")
    store_small_model(minilm_dir, scratch)
    return scratch / "models"


@asynccontextmanager
async def embedding(models: Path) -> AsyncIterator[str]:
    """The URL of embed with that model."""
    settings = Settings(
        models_dir=models,
        data_dir=models.parent / "data",
        embed_model=NAME,
        embed_backend="flag",
        embed_device="cpu",
    )
    async with serving(await build_embed(settings)) as url:
        yield url


@pytest.fixture(scope="module")
def filled(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the corpus `words`, which has sparse vectors, and `plain`, which has none:
    it was made before its model's server told that it makes some."""
    folder = tmp_path_factory.mktemp("words")

    async def fill() -> None:
        async with embedding(models) as embed:
            async with desk(folder, embed=embed) as client:
                told = await client.put("/corpora/words")
                assert (told.status_code, told.json()["sparse"]) == (201, True)
                await store(client, "words")
            async with (
                serving(relay(embed, silent=True)) as older,
                desk(folder, embed=older) as client,
            ):
                told = await client.put("/corpora/plain")
                assert (told.status_code, told.json()["sparse"]) == (201, False)
                await store(client, "plain")

    asyncio.run(fill())
    return folder


async def store(client: httpx.AsyncClient, corpus: str) -> None:
    path = f"/corpora/{corpus}/documents"
    (await client.post(path, json={"documents": DOCUMENTS})).raise_for_status()


def relay(
    embed: str, *, silent: bool = False, wrong: Any = None, seen: list[Any] | None = None
) -> FastAPI:
    """A server before embed. silent: it does not tell what the model makes. wrong: is put in place
    of each sparse vector. seen: gets what was asked for."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def pass_on(path: str, request: Request) -> Response:
        body = await request.body()
        if seen is not None and body:
            seen.append(json.loads(body))
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.request(
                request.method,
                f"{embed}/{path}",
                params=request.query_params,
                content=body,
                headers={"content-type": "application/json"},
            )
        told = answer.json()
        if silent:
            told.pop("kinds", None)
        for item in told.get("data", []):
            if "sparse" in item and wrong is not None:
                item["sparse"] = wrong
        return Response(json.dumps(told), answer.status_code)

    return app


async def dots(embed: str, query: str) -> dict[str, float]:
    """The dot product of the query with each text that shares a word with it, worked out here."""
    async with httpx.AsyncClient(base_url=embed) as client:
        inputs = {"inputs": [query, *TEXTS.values()]}
        rows = (await client.post("/embed_sparse", json=inputs)).raise_for_status().json()
    asked, *held = ({one["index"]: one["value"] for one in row} for row in rows)
    scores = {
        name: sum(asked[token] * weights[token] for token in asked.keys() & weights.keys())
        for name, weights in zip(TEXTS, held, strict=True)
    }
    return {name: score for name, score in scores.items() if score > 0}


async def ask(client: httpx.AsyncClient, *corpora: str, **more: Any) -> dict[str, Any]:
    body = {"query": QUERY, "corpora": corpora, "curate": False, "explain": True} | more
    answer = await client.post("/retrieve", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["document_id"] for hit in answer["hits"]]


async def test_the_arm_finds_by_the_models_own_weights(models: Path, filled: Path) -> None:
    async with embedding(models) as embed, desk(filled, embed=embed) as client:
        expected = await dots(embed, QUERY)
        assert len(expected) > 1
        found = await ask(client, "words", arms=["sparse"])
        assert ids(found) == sorted(expected, key=lambda name: -expected[name])
        for hit in found["hits"]:
            told = hit["explain"]["arms"]["sparse"]
            assert told["score"] == pytest.approx(
                expected[hit["document_id"]], rel=1e-3
            )  # batched otherwise
            assert told["rank"] == hit["rank"]
        assert found["timings_ms"]["sparse"] > 0
        assert (found["degraded"], found["skipped"]) == ([], [])
        within = await ask(
            client, "words", arms=["sparse"], filter={"type": "eq", "key": "sky", "value": False}
        )
        assert ids(within) == [name for name in ids(found) if name not in ("moon", "tides")]


async def test_it_searches_unasked_where_every_corpus_has_it(models: Path, filled: Path) -> None:
    async with embedding(models) as embed, desk(filled, embed=embed) as client:
        alone = await ask(client, "words")
        assert set(alone["hits"][0]["explain"]["arms"]) == {"bm25", "dense", "sparse"}
        heavy = await ask(client, "words", fusion={"weights": {"sparse": 1000}})
        by_words = await ask(client, "words", arms=["sparse"])
        assert ids(heavy)[: len(ids(by_words))] == ids(by_words)
        both = await ask(client, "words", "plain")
        assert set(both["hits"][0]["explain"]["arms"]) == {"bm25", "dense"}
        assert both["skipped"] == []
        wished = await ask(client, "words", "plain", arms=["sparse", "bm25"])
        assert set(wished["hits"][0]["explain"]["arms"]) == {"bm25"}
        [left_out] = wished["skipped"]
        assert (left_out["stage"], "plain" in left_out["reason"]) == ("sparse", True)
        assert "words" not in left_out["reason"]
        body = {"query": QUERY, "corpora": ["plain"], "arms": ["sparse"]}
        refused = await client.post("/retrieve", json=body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (422, "no_sparse_vectors")
        assert (error["param"], "plain" in error["message"]) == ("arms", True)


async def test_curation_blends_it_and_why_not_and_explain_tell_of_it(
    models: Path, filled: Path, suite: Suite
) -> None:
    async with (
        embedding(models) as embed,
        desk(filled, embed=embed, rerank=suite.url("rerank")) as client,
    ):
        found = await ask(client, "words", curate=True)
        assert found["degraded"] == []
        told = found["hits"][0]["explain"]["curation"]
        assert set(told["z"]) == {"curator", "bm25", "dense", "sparse"}
        assert told["blended"] == pytest.approx(sum(told["z"].values()) / 4)
        body = {"query": QUERY, "corpora": ["words"], "document_id": "chess", "top_k": 1}
        why = (await client.post("/retrieve/why-not", json=body)).raise_for_status().json()
        expected = (await dots(embed, QUERY)).get("chess", 0.0)
        score = why["chunks"][0]["arms"]["sparse"]["score"]
        assert score == pytest.approx(expected, rel=1e-3)


async def test_one_call_to_embed_makes_both_vectors_of_the_query(
    models: Path, filled: Path
) -> None:
    seen: list[Any] = []
    async with (
        embedding(models) as embed,
        serving(relay(embed, seen=seen)) as watched,
        desk(filled, embed=watched) as client,
    ):
        for arms, outputs in (
            (None, ["dense", "sparse"]),
            (["sparse"], ["dense", "sparse"]),
            (["dense", "bm25"], None),
            (["bm25"], None),
        ):
            await ask(client, "words", arms=arms)
            asked, seen[:] = [body.get("outputs") for body in seen], []
            assert asked == ([] if arms == ["bm25"] else [outputs])


async def test_rubbish_is_neither_stored_nor_searched_with(
    models: Path, filled: Path, tmp_path: Path
) -> None:
    wrong = {"indices": [1, 2], "values": [1.0]}
    folder = shutil.copytree(filled, tmp_path / "data")
    async with (
        embedding(models) as embed,
        serving(relay(embed, wrong=wrong)) as bad,
        desk(folder, embed=bad) as client,
    ):
        new = {"documents": [{"id": "new", "text": "The Moon again."}]}
        refused = await client.post("/corpora/words/documents", json=new)
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "bad_upstream")
        assert (await client.get("/corpora/words")).json()["documents"] == len(TEXTS)
        found = await ask(client, "words")
        assert found["degraded"] == ["dense", "sparse"]
        assert ids(found)[0] == "moon"
        body = {"query": QUERY, "corpora": ["words"], "arms": ["sparse"]}
        alone = await client.post("/retrieve", json=body)
        assert (alone.status_code, alone.json()["error"]["code"]) == (503, "no_arm")
        assert (await ask(client, "words", arms=["dense"]))["degraded"] == []


async def test_without_embed_words_answer_and_the_missing_arms_are_named(filled: Path) -> None:
    async with desk(filled) as client:
        found = await ask(client, "words")
        assert (found["degraded"], ids(found)[0]) == (["dense", "sparse"], "moon")
        assert (await ask(client, "words", arms=["bm25", "sparse"]))["degraded"] == ["sparse"]
        body = {"query": QUERY, "corpora": ["words"], "arms": ["dense", "sparse"]}
        refused = await client.post("/retrieve", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_arm")


async def test_what_is_replaced_or_deleted_is_gone_also_after_a_restart(
    models: Path, filled: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(filled, tmp_path / "data")
    async with embedding(models) as embed:
        async with desk(folder, embed=embed) as client:
            before = ids(await ask(client, "words", arms=["sparse"], top_k=50))
            moon = {"documents": [{"id": "moon", "text": TEXTS["moon"] * 2}]}
            (await client.post("/corpora/words/documents", json=moon)).raise_for_status()
            gone = next(name for name in before if name != "moon")
            (await client.delete(f"/corpora/words/documents/{gone}")).raise_for_status()
            after = ids(await ask(client, "words", arms=["sparse"], top_k=50))
            assert set(after) == set(before) - {gone}
        async with desk(folder, embed=embed) as client:
            assert ids(await ask(client, "words", arms=["sparse"], top_k=50)) == after
            assert (await client.get("/ready")).json()["faults"] == {}
            (await client.delete("/corpora/words")).raise_for_status()
            assert not (folder / "corpora" / "words").exists()


async def test_a_document_of_others_is_not_found_by_it(
    models: Path, filled: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    entries = [{"name": name, "sha256": hash_key(f"k-{name}")} for name in ("ann", "bob")]
    keys.write_text(json.dumps({"keys": entries}))
    async with embedding(models) as embed, desk(filled, embed=embed, keys_file=keys) as client:
        for name, sees in (("ann", True), ("bob", False)):
            client.headers["authorization"] = f"Bearer k-{name}"
            found = ids(await ask(client, "words", arms=["sparse"], top_k=50))
            assert ("moon" in found) == sees
            assert len(found) > 0
