"""Corpora as their admins see them: settings, figures, who may read them, documents found."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from shared.auth import hash_key
from tests.mcp_wire import HEADERS
from tests.mcp_wire import call as tool
from tests.shelf import QUERY, TEXTS, desk
from tests.suite import Suite

Client = httpx.AsyncClient
DOCUMENTS = [
    {"id": f"{folder}/{key}", "text": text, "metadata": {"kind": folder, "year": year}}
    for folder, year in (("old", 2020), ("new", 2026))
    for key, text in TEXTS.items()
]


def served(
    suite: Suite, folder: Path, work: Callable[[Client], Awaitable[None]], **more: Any
) -> None:
    """Run `work` with a client of a desk over a folder."""

    async def main() -> None:
        async with desk(folder, embed=suite.url("embed"), **more) as client:
            await work(client)

    asyncio.run(main())


async def fill(client: Client, name: str, **settings: Any) -> None:
    (await client.put(f"/corpora/{name}", json=settings)).raise_for_status()
    answer = await client.post(f"/corpora/{name}/documents", json={"documents": DOCUMENTS})
    answer.raise_for_status()


async def got(client: Client, path: str, **parameters: Any) -> Any:
    answer = await client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def error_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


def test_settings_are_given_shown_changed_and_cleared(suite: Suite, tmp_path: Path) -> None:
    recency = {"half_life_days": 90.0, "weight": 0.2, "field": "written"}

    async def work(client: Client) -> None:
        asked = {"description": "one", "curate": False, "recency": recency, "readers": ["hr"]}
        made = await client.put("/corpora/c", json=asked)
        assert made.status_code == 201
        shown = made.json()
        assert {name: shown[name] for name in asked} == asked
        assert (shown["generation"], shown["engine"], shown["writes"]) == (1, "local", 0)
        assert shown["chunker"]
        assert (await client.put("/corpora/c", json=asked)).status_code == 200
        error_of(await client.put("/corpora/c", json={"readers": ["it"]}), 409, "corpus_exists")

        changed = await client.patch("/corpora/c", json={"description": "two"})
        assert changed.status_code == 200
        assert changed.json() == {**shown, "description": "two", "writes": changed.json()["writes"]}
        cleared = dict.fromkeys(("description", "curate", "recency", "readers"))
        assert (await client.patch("/corpora/c", json=cleared)).status_code == 200
        shown = await got(client, "/corpora/c")
        expected = {"description": "", "curate": True, "recency": None, "readers": None}
        assert {name: shown[name] for name in expected} == expected
        assert (await client.patch("/corpora/c", json={})).status_code == 200
        for bad in (
            {"language": "de"},
            {"recency": {"weight": 2}},
            {"recency": {"half_life_days": 0}},
            {"readers": ["a", "a"]},
            {"readers": [""]},
            {"curate": "yes please"},
        ):
            error_of(await client.patch("/corpora/c", json=bad), 422, "invalid_request")
        error_of(await client.patch("/corpora/none", json={}), 404, "corpus_not_found")

    served(suite, tmp_path, work)

    async def after(client: Client) -> None:
        shown = await got(client, "/corpora/c")
        assert (shown["description"], shown["curate"]) == ("", True)

    served(suite, tmp_path, after)


def test_embedder_dimension_and_chunker_are_chosen_when_a_corpus_is_made(
    suite: Suite, tmp_path: Path
) -> None:
    model = "all-MiniLM-L6-v2"
    asked = {"embedder": model, "dimension": 128, "chunker": "semchunk-1", "chunk_tokens": 128}

    async def work(client: Client) -> None:
        for body, status, code, param in (
            ({"embedder": "no-such-model"}, 404, "unknown_model", "model"),
            ({"chunker": "scissors-9"}, 422, "unknown_chunker", "chunker"),
            ({"dimension": 385}, 422, "too_many_dimensions", "dimension"),
            ({"dimension": 0}, 422, "invalid_request", "dimension"),
            ({"chunk_tokens": 8192}, 422, "chunk_too_long", "chunk_tokens"),
        ):
            answer = await client.put("/corpora/c", json=body)
            assert error_of(answer, status, code)["param"] == param
        assert (await got(client, "/corpora"))["corpora"] == []

        made = await client.put("/corpora/c", json=asked)
        assert made.status_code == 201, made.text
        shown = made.json()
        assert (shown["model"], shown["dimension"]) == (model, 128)
        assert (shown["chunker"], shown["chunk_tokens"]) == ("semchunk-1", 128)
        # What is left out asks for nothing of a corpus that is there.
        for again in ({}, asked, {"embedder": ""}, {"chunker": "semchunk-1"}):
            assert (await client.put("/corpora/c", json=again)).status_code == 200
        for other, param in (
            ({"chunker": "structure-1"}, "chunker"),
            ({"dimension": 64}, "dimension"),
            ({"chunk_tokens": 64}, "chunk_tokens"),
        ):
            answer = await client.put("/corpora/c", json=other)
            assert error_of(answer, 409, "corpus_exists")["param"] == param

        answer = await client.post("/corpora/c/documents", json={"documents": DOCUMENTS})
        assert answer.status_code == 200, answer.text
        (await client.put("/corpora/whole", json={})).raise_for_status()
        await client.post("/corpora/whole/documents", json={"documents": DOCUMENTS})
        for corpora in (["c"], ["whole"], ["c", "whole"]):
            search = {"query": QUERY, "corpora": corpora, "curate": False, "arms": ["dense"]}
            answer = await client.post("/retrieve", json=search)
            assert answer.status_code == 200, answer.text
            assert answer.json()["hits"][0]["document_id"] in ("old/moon", "new/moon")
        ready = await got(client, "/ready")
        assert (ready["of_another_model"], ready["faults"]) == (0, {})
        dry = {"dry_run": True, "dimension": 384}
        told = (await client.post("/corpora/c/reindex", json=dry)).json()
        assert (told["now"]["dimension"], told["then"]["dimension"]) == (128, 384)
        kept = {"dry_run": True, "chunk_tokens": 64}
        told = (await client.post("/corpora/c/reindex", json=kept)).json()
        assert (told["then"]["dimension"], told["then"]["chunker"]) == (128, "semchunk-1")

    served(suite, tmp_path, work)


def test_changes_of_two_at_once_both_count(suite: Suite, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        await client.put("/corpora/c", json={})
        changes: list[dict[str, Any]] = [
            {"description": "d"},
            {"curate": False},
            {"readers": ["a"]},
            {"recency": {"half_life_days": 5}},
        ]
        await asyncio.gather(*(client.patch("/corpora/c", json=one) for one in changes))
        shown = await got(client, "/corpora/c")
        assert (shown["description"], shown["curate"], shown["readers"]) == ("d", False, ["a"])
        assert shown["recency"]["half_life_days"] == 5

    served(suite, tmp_path, work)


def test_a_corpus_in_numbers(suite: Suite, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        await client.put("/corpora/empty", json={})
        found = await got(client, "/corpora/empty/stats")
        assert (found["documents"], found["tokens"], found["last_write"]) == (0, 0, None)
        assert (found["formats"], found["longest"]) == ({}, [])
        await fill(client, "c")
        long = {"id": "long", "text": "Many words. " * 900, "format": "markdown"}
        await client.post("/corpora/c/documents", json={"documents": [long]})
        found = await got(client, "/corpora/c/stats")
        listed = await got(client, "/corpora/c/documents", limit=1000)
        assert found["documents"] == len(DOCUMENTS) + 1
        assert found["chunks"] == sum(one["chunks"] for one in listed["documents"])
        assert found["formats"] == {"text": len(DOCUMENTS), "markdown": 1}
        assert found["tokens"] > 1800
        assert found["longest"][0]["id"] == "long"
        assert len(found["longest"]) == 10
        assert found["last_write"] == max(one["updated_at"] for one in listed["documents"])
        assert found["bytes"]["database"] > 0
        assert found["bytes"]["words"] > 0
        (generation,) = found["generations"]
        assert (generation["generation"], generation["state"]) == (1, "live")
        assert generation["documents"] == found["documents"]

    served(suite, tmp_path, work)


def test_documents_are_found_by_prefix_and_filter(suite: Suite, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        await fill(client, "c")

        async def ids(**parameters: Any) -> list[str]:
            page = await got(client, "/corpora/c/documents", **parameters)
            return [one["id"] for one in page["documents"]]

        assert await ids(prefix="new/") == sorted(f"new/{key}" for key in TEXTS)
        recent = json.dumps({"type": "gte", "key": "year", "value": 2025})
        assert await ids(filter=recent) == sorted(f"new/{key}" for key in TEXTS)
        assert await ids(filter=recent, prefix="old/") == []
        assert await ids(filter=recent, prefix="new/b") == ["new/bees", "new/bread"]
        first = await got(client, "/corpora/c/documents", filter=recent, limit=2)
        assert first["next"] == "new/bread"
        rest = await ids(filter=recent, after=first["next"])
        assert rest == ["new/chess", "new/moon", "new/tides"]
        for bad, where in (
            ("{", "filter"),
            ('"year"', "filter"),
            ('{"type": "eq", "key": "year"}', "filter.value"),
            ('{"type": "gt", "key": "year", "value": NaN}', "filter"),
        ):
            answer = await client.get("/corpora/c/documents", params={"filter": bad})
            assert error_of(answer, 422, "bad_filter")["param"] == where

    served(suite, tmp_path, work)


def test_a_search_that_does_not_say_goes_by_the_recency_of_each_corpus(
    suite: Suite, tmp_path: Path
) -> None:
    async def work(client: Client) -> None:
        recency = {"half_life_days": 30, "weight": 1, "field": "written"}
        await client.put("/corpora/dated", json={"recency": recency, "curate": False})
        await client.put("/corpora/plain", json={"curate": False})
        for name in ("dated", "plain"):
            documents = [
                {"id": "old", "text": TEXTS["moon"], "metadata": {"written": "1990-01-01"}},
                {
                    "id": "young",
                    "text": "The Moon is far away from Earth.",
                    "metadata": {"written": "2999-01-01"},
                },
            ]
            body = {"documents": documents}
            (await client.post(f"/corpora/{name}/documents", json=body)).raise_for_status()

        async def lifts(corpora: list[str], **more: Any) -> dict[tuple[str, str], float]:
            body = {"query": QUERY, "corpora": corpora, "explain": True, **more}
            answer = await client.post("/retrieve", json=body)
            assert answer.status_code == 200, answer.text
            return {
                (hit["corpus"], hit["document_id"]): (hit["explain"]["recency"] or {}).get(
                    "in_fusion", 0.0
                )
                for hit in answer.json()["hits"]
            }

        found = await lifts(["dated"])
        assert found["dated", "young"] > 0.3
        assert found["dated", "old"] < 0.001
        assert set((await lifts(["plain"])).values()) == {0.0}
        assert set((await lifts(["dated"], recency=None)).values()) == {0.0}
        own = await lifts(["plain"], recency=recency)
        assert own["plain", "young"] > 0.3
        both = await lifts(["dated", "plain"])
        assert {key for key, lift in both.items() if lift > 0.1} == {("dated", "young")}
        await client.patch("/corpora/dated", json={"recency": None})
        assert set((await lifts(["dated"])).values()) == {0.0}

    served(suite, tmp_path, work)


def test_a_corpus_is_not_there_for_those_whom_it_does_not_name(
    suite: Suite, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    entries: list[dict[str, Any]] = [
        {"name": "admin", "role": "admin"},
        {"name": "other-admin", "role": "admin", "corpora": ["open"]},
        {"name": "anna", "groups": ["hr"]},
        {"name": "bob"},
    ]
    entries = [{**one, "sha256": hash_key(f"k-{one['name']}")} for one in entries]
    keys.write_text(json.dumps({"keys": entries}))

    async def work(client: Client) -> None:
        async def call(who: str, method: str, path: str, body: Any = None) -> httpx.Response:
            headers = {**HEADERS, "authorization": f"Bearer k-{who}"}
            return await client.request(method, path, json=body, headers=headers)

        for name, readers in (("open", None), ("people", ["hr"]), ("own", ["bob"]), ("none", [])):
            answer = await call("admin", "PUT", f"/corpora/{name}", {"readers": readers})
            assert answer.status_code == 201
            answer = await call(
                "admin", "POST", f"/corpora/{name}/documents", {"documents": DOCUMENTS[:2]}
            )
            assert answer.status_code == 200

        async def listed(who: str) -> dict[str, Any]:
            answer = await call(who, "GET", "/corpora")
            return {one["name"]: one["readers"] for one in answer.json()["corpora"]}

        assert await listed("admin") == {
            "none": [],
            "open": None,
            "own": ["bob"],
            "people": ["hr"],
        }
        assert await listed("other-admin") == {"open": None}
        # Who else may read a corpus is for those who say so.
        assert await listed("anna") == {"open": None, "people": None}
        assert await listed("bob") == {"open": None, "own": None}

        search = {"query": QUERY, "corpora": ["people"], "curate": False}
        asked: list[tuple[str, str, Any]] = [
            ("GET", "/corpora/{name}", None),
            ("GET", "/corpora/{name}/documents", None),
            ("GET", "/corpora/{name}/documents/old/moon", None),
            ("POST", "/retrieve", {**search, "corpora": ["{name}"]}),
            ("POST", "/retrieve/why-not", {**search, "corpora": ["{name}"], "document_id": "x"}),
            ("POST", "/v1/vector_stores/{name}/search", {"query": QUERY}),
            ("GET", "/v1/vector_stores/{name}", None),
            (
                "POST",
                "/retrieval",
                {
                    "knowledge_id": "{name}",
                    "query": QUERY,
                    "retrieval_setting": {"top_k": 2, "score_threshold": 0},
                },
            ),
            ("POST", "/knowledgebases/{name}/retrieve", {"retrievalQuery": {"text": QUERY}}),
            ("POST", "/mcp", tool("retrieve", {"query": QUERY, "corpora": ["{name}"]})),
        ]
        for method, path, body in asked:

            def of(name: str, path: str = path, body: Any = body) -> tuple[str, Any]:
                filled = json.loads(json.dumps(body).replace("{name}", name))
                return path.replace("{name}", name), filled

            for who, hidden in (("bob", "people"), ("anna", "own"), ("anna", "none")):
                refused = await call(who, method, *of(hidden))
                missing = await call(who, method, *of("nowhere"))
                assert refused.status_code == missing.status_code, (path, refused.text)
                # Word for word as if it were not there, other corpora's names among the rest.
                assert refused.text.replace(hidden, "nowhere") == missing.text
            if "why-not" in path:
                continue
            seen = await call("anna", method, *of("people"))
            assert seen.status_code == 200, (path, seen.text)

        told = await call("bob", "POST", "/retrieve", search)
        assert told.status_code == 404
        assert told.json()["error"]["message"].partition("; ")[2].startswith("there is: open, own;")
        mixed = await call("bob", "POST", "/retrieve", {**search, "corpora": ["own", "people"]})
        assert mixed.json()["error"]["param"] == "corpora.1"
        every = await call("bob", "GET", "/v1/vector_stores")
        assert {one["id"] for one in every.json()["data"]} == {"open", "own"}

        # What was said once holds at once.
        answer = await call("admin", "PATCH", "/corpora/people", {"readers": ["bob"]})
        assert answer.status_code == 200
        assert (await call("bob", "POST", "/retrieve", search)).status_code == 200
        assert (await call("anna", "POST", "/retrieve", search)).status_code == 404
        for method, path in (
            ("PATCH", "/corpora/people"),
            ("GET", "/corpora/people/stats"),
            ("GET", "/corpora/people/export"),
            ("GET", "/corpora/people/backup"),
            ("POST", "/corpora/people/restore"),
            ("POST", "/corpora/people/reindex"),
            ("POST", "/corpora/people/rollback"),
            ("GET", "/corpora/people/generations"),
        ):
            for who in ("anna", "bob", "other-admin"):
                body = {} if method == "PATCH" else None
                error_of(await call(who, method, path, body), 403, "forbidden_write")

    served(suite, tmp_path / "data", work, keys_file=keys)
