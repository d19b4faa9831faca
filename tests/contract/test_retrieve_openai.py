"""OpenAI's vector stores on the desk, by the official client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shared.auth import hash_key
from tests.library import DESCRIPTION, DOCUMENTS, IDS, LIBRARY, QUERY, fill_library
from tests.shelf import desk
from tests.suite import Suite

if TYPE_CHECKING:
    import openai


@pytest.fixture(scope="module")
def url(suite: Suite) -> str:
    url = suite.url("retrieve")
    fill_library(url)
    return url


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def found(client: openai.OpenAI, **more: Any) -> list[str]:
    """The documents that a search finds, best first."""
    body = {"query": QUERY, **more}
    return [one.file_id for one in client.vector_stores.search(LIBRARY, **body)]


def test_a_corpus_is_a_vector_store(client: openai.OpenAI) -> None:
    import openai

    store = client.vector_stores.retrieve(LIBRARY)
    assert (store.id, store.name, store.object) == (LIBRARY, LIBRARY, "vector_store")
    assert store.status == "completed"
    assert store.file_counts.completed == store.file_counts.total == len(DOCUMENTS)
    assert store.to_dict()["description"] == DESCRIPTION
    with pytest.raises(openai.NotFoundError, match="there is no corpus 'nothing'"):
        client.vector_stores.retrieve("nothing")


def test_all_vector_stores_are_listed_page_by_page(client: openai.OpenAI, url: str) -> None:
    import openai

    for name in ("openai-pages-1", "openai-pages-2"):
        httpx.put(f"{url}/corpora/{name}", timeout=60).raise_for_status()
    names = {corpus["name"] for corpus in httpx.get(f"{url}/corpora").json()["corpora"]}
    stores = list(client.vector_stores.list(limit=1))
    assert {store.id for store in stores} == names
    assert len(stores) == len(names)
    upwards = [store.id for store in client.vector_stores.list(order="asc", limit=2)]
    assert upwards == [store.id for store in stores][::-1]
    page = client.vector_stores.list(limit=2).to_dict()
    assert page["first_id"] == stores[0].id
    assert page["last_id"] == stores[1].id
    assert page["has_more"] is True
    before = client.vector_stores.list(before=stores[2].id, limit=1)
    assert [store.id for store in before.data] == [stores[1].id]
    with pytest.raises(openai.BadRequestError, match="no vector store 'gone'"):
        client.vector_stores.list(after="gone")


def test_a_search_gives_the_passages_of_the_page_that_the_client_reads(
    client: openai.OpenAI,
) -> None:
    page = client.vector_stores.search(LIBRARY, query=QUERY)
    best = page.data[0]
    assert (best.file_id, best.filename) == ("sky/moon.md", "The Moon")
    assert [part.text for part in best.content] == [DOCUMENTS[0]["text"]]
    expected = {"year": 2021, "topic": "sky", "tags": "night, orbit", "day": "2021-03-01"}
    assert best.attributes == expected
    scores = [one.score for one in page.data]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    body = page.to_dict()
    assert body["object"] == "vector_store.search_results.page"
    assert body["search_query"] == [QUERY]
    assert (body["has_more"], body["next_page"]) == (False, None)
    untitled = next(one for one in page.data if one.file_id == "bread")
    assert untitled.filename == "bread"


def test_filters_counts_and_thresholds_are_those_of_the_desk(client: openai.OpenAI) -> None:
    sky: Any = {"type": "eq", "key": "topic", "value": "sky"}
    late: Any = {"type": "gte", "key": "year", "value": 2023}
    assert set(found(client, filters=sky)) == {"sky/moon.md", "sky/tides.md"}
    assert found(client, filters={"type": "and", "filters": [sky, late]}) == ["sky/tides.md"]
    assert set(found(client, filters={})) == set(IDS)
    assert len(found(client, max_num_results=2)) == 2
    everything = client.vector_stores.search(LIBRARY, query=QUERY).data
    threshold = everything[1].score
    kept = found(client, ranking_options={"score_threshold": threshold})
    assert kept == [one.file_id for one in everything if one.score >= threshold]
    plain = found(client, ranking_options={"ranker": "none"}, rewrite_query=True)
    assert plain[0] == "sky/moon.md"


def test_several_queries_are_answered_together_each_passage_once(client: openai.OpenAI) -> None:
    queries = [QUERY, "What does the king do in castling?"]
    page = client.vector_stores.search(LIBRARY, query=queries, max_num_results=2)
    assert {one.file_id for one in page.data} == {"sky/moon.md", IDS[3]}
    assert page.to_dict()["search_query"] == queries
    everything = client.vector_stores.search(LIBRARY, query=queries).data
    assert len(everything) == len({one.file_id for one in everything}) == len(IDS)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": []}, "query"),
        ({"query": ["x"] * 17}, "query"),
        ({"query": " "}, "query: is blank"),
        ({"query": ""}, "query: is blank"),
        ({"query": ["x", ""]}, "query.1: is blank"),
        ({"query": ["x", "x" * 8193]}, "query.1: "),
        ({"query": None}, "query: Field required"),
        ({"query": "x" * 8193}, "query"),
        ({"query": 7}, "query"),
        ({"query": "x", "max_num_results": 0}, "max_num_results"),
        ({"query": "x", "max_num_results": 51}, "max_num_results"),
        ({"query": "x", "max_num_results": "many"}, "max_num_results"),
        ({"query": "x", "filters": "year=3"}, "filters: must be a JSON object"),
        ({"query": "x", "ranking_options": 7}, "ranking_options: must be a JSON object"),
        ({"query": "x", "filters": {"type": "like", "key": "a", "value": "b"}}, "filters.type"),
        (
            {"query": "x", "filters": {"type": "or", "filters": [{"type": "eq", "key": "a"}]}},
            "filters.filters.0.value",
        ),
        (
            {"query": "x", "ranking_options": {"score_threshold": 2}},
            "ranking_options.score_threshold",
        ),
    ],
)
def test_what_is_wrong_with_a_search_is_said_in_openais_words(
    url: str, body: dict[str, Any], param: str
) -> None:
    answer = httpx.post(f"{url}/v1/vector_stores/{LIBRARY}/search", json=body, timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["param"] or "").startswith(param) or param in error["message"]


def test_a_document_is_a_file(client: openai.OpenAI) -> None:
    import openai

    files = client.vector_stores.files
    assert {one.id for one in files.list(LIBRARY, limit=1)} == set(IDS)
    assert [one.id for one in files.list(LIBRARY, filter="failed")] == []
    for document in DOCUMENTS:
        file = files.retrieve(document["id"], vector_store_id=LIBRARY)
        assert (file.id, file.vector_store_id) == (document["id"], LIBRARY)
        assert file.status == "completed"
        assert file.usage_bytes == len(document["text"].encode())
        [content] = files.content(document["id"], vector_store_id=LIBRARY).data
        assert (content.type, content.text) == ("text", document["text"])
    with pytest.raises(openai.NotFoundError, match="no document 'nothing'"):
        files.retrieve("nothing", vector_store_id=LIBRARY)


def test_a_file_whose_id_ends_in_content_is_a_file_of_its_own(
    client: openai.OpenAI, url: str
) -> None:
    texts = {"a": "The first one.", "a/content": "The second one."}
    documents = [{"id": id_, "text": text} for id_, text in texts.items()]
    httpx.put(f"{url}/corpora/slashes", timeout=60).raise_for_status()
    path = f"{url}/corpora/slashes/documents"
    httpx.post(path, json={"documents": documents}, timeout=60).raise_for_status()
    for id_, text in texts.items():
        assert client.vector_stores.files.retrieve(id_, vector_store_id="slashes").id == id_
        [content] = client.vector_stores.files.content(id_, vector_store_id="slashes").data
        assert content.text == text
    files = f"{url}/v1/vector_stores/slashes/files"
    assert httpx.get(f"{files}/a%2fcontent").json()["id"] == "a/content"
    assert httpx.get(f"{files}/a/content").json()["data"][0]["text"] == texts["a"]
    whole = httpx.get(f"{files}/a/content/content").json()["data"][0]["text"]
    assert whole == texts["a/content"]


@pytest.mark.parametrize("option", ["order", "before"])
def test_an_order_of_files_that_there_is_not_is_refused(client: openai.OpenAI, option: str) -> None:
    import openai

    with pytest.raises(openai.BadRequestError, match=f"{option}: can't be used here"):
        client.vector_stores.files.list(LIBRARY, extra_query={option: "asc"})


def test_null_is_the_same_as_absent(url: str) -> None:
    path = f"{url}/v1/vector_stores/{LIBRARY}/search"
    nulls = {"max_num_results": None, "filters": None, "ranking_options": {"ranker": None}}
    answer = httpx.post(path, json={"query": QUERY, **nulls}, timeout=60)
    assert answer.json() == httpx.post(path, json={"query": QUERY}, timeout=60).json()


async def test_a_header_says_what_the_search_went_without(shelf: Path, suite: Suite) -> None:
    async with desk(shelf, embed=suite.url("embed")) as http:
        sent = {"query": [QUERY, "Moon"], "ranking_options": {"ranker": "auto"}}
        answer = await http.post("/v1/vector_stores/shelf/search", json=sent)
        assert answer.headers["x-refdesk-degraded"] == "curate"
        whole = await http.post(
            "/v1/vector_stores/shelf/search",
            json={"query": QUERY, "ranking_options": {"ranker": "none"}},
        )
        assert "x-refdesk-degraded" not in whole.headers


def test_a_store_that_a_key_may_not_read_is_one_that_is_not_there(
    shelf: Path, suite: Suite, tmp_path: Path
) -> None:
    import openai

    keys = tmp_path / "keys.json"
    entry = {"name": "one", "sha256": hash_key("k-one"), "corpora": ["shelf"]}
    keys.write_text(json.dumps({"keys": [entry]}))

    async def refused(work: Any, name: str) -> str:
        with pytest.raises(openai.NotFoundError) as caught:
            await work
        return caught.value.message.replace(name, "…")

    async def main() -> None:
        async with desk(shelf, embed=suite.url("embed"), keys_file=keys) as http:
            base = f"{http.base_url}/v1"
            client = openai.AsyncOpenAI(base_url=base, api_key="k-one", max_retries=0)
            stores = client.vector_stores
            assert [store.id async for store in stores.list()] == ["shelf"]
            for work in (
                stores.retrieve,
                lambda name: stores.files.list(name),
                lambda name: stores.files.retrieve("moon", vector_store_id=name),
                lambda name: stores.files.content("moon", vector_store_id=name),
                lambda name: stores.search(name, query="Moon"),
            ):
                assert await refused(work("secret"), "secret") == await refused(
                    work("not-there"), "not-there"
                )
            stranger = openai.AsyncOpenAI(base_url=base, api_key="wrong", max_retries=0)
            with pytest.raises(openai.AuthenticationError):
                await stranger.vector_stores.list()

    asyncio.run(main())
