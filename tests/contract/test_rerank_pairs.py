"""rerank in the forms of vLLM's /score and NIM's /v1/ranking."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.suite import Suite

LONG = "word " * 300  # 302 tokens, where the model reads 256


@pytest.fixture
def client(suite: Suite) -> httpx.Client:
    return httpx.Client(base_url=suite.url("rerank"), timeout=60)


def scores(client: httpx.Client, **body: Any) -> list[float]:
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return [one["score"] for one in data]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_one_text_is_scored_with_each_of_many(client: httpx.Client, path: str) -> None:
    body = {"text_1": "a cat", "text_2": ["a tax return", "a kitten", "", "a kitten"]}
    answer = client.post(path, json=body).json()
    assert answer["object"] == "list"
    assert answer["model"] == "all-MiniLM-L6-v2"
    assert answer["usage"]["total_tokens"] > 10
    found = [one["score"] for one in answer["data"]]
    assert all(one["object"] == "score" for one in answer["data"])
    assert found[1] == found[3] > found[0] > found[2] == 0.0


def test_texts_are_scored_pair_by_pair(client: httpx.Client) -> None:
    queries = ["a cat", "a cat", "income", "a cat"]
    documents = ["a kitten", "a tax return", "a tax return", "a kitten"]
    found = scores(client, text_1=queries, text_2=documents)
    alone = [
        scores(client, text_1=query, text_2=document)[0]
        for query, document in zip(queries, documents, strict=True)
    ]
    assert found == pytest.approx(alone, abs=0.01)


def test_many_different_queries_are_scored_in_order(client: httpx.Client) -> None:
    queries = [f"item {number}" for number in range(40)]
    found = scores(client, queries=queries, documents=queries)
    assert len(found) == 40
    assert min(found) > 0.99


def test_one_query_in_a_list_goes_with_all_documents(client: httpx.Client) -> None:
    assert scores(client, queries=["a cat"], documents=["a kitten", "a tax return"]) == (
        scores(client, queries="a cat", documents=["a kitten", "a tax return"])
    )


def test_a_pair_that_was_cut_is_told(client: httpx.Client) -> None:
    body: Any = {"text_1": ["x", "y"], "text_2": ["x", LONG], "truncate_prompt_tokens": None}
    answer = client.post("/score", json=body).json()
    assert answer["truncated"] == [{"index": 1, "tokens_cut": 46}]
    body = {"text_1": "x", "text_2": ["x", LONG], "truncate_prompt_tokens": 100}
    answer = client.post("/score", json=body).json()
    assert answer["truncated"] == [{"index": 1, "tokens_cut": 200}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text_1": "x"}, "text_2"),
        ({"text_1": "x", "texts": ["x"]}, "text_2"),
        ({"text_2": "x"}, "text_1"),
        ({"text_1": ["x", "y"], "text_2": ["x"]}, "text_2"),
        ({"queries": ["x", "y"], "documents": ["x", "y", "z"]}, "documents"),
        ({"text_1": [], "text_2": []}, "text_1"),
        ({"text_1": "x", "text_2": []}, "text_2"),
        ({"text_1": "", "text_2": "x"}, "text_1.0"),
        ({"text_1": ["x", " "], "text_2": ["x", "y"]}, "text_1.1"),
        ({"text_1": "x", "text_2": ["x", 3]}, "text_2.1"),
        ({"text_1": 3, "text_2": "x"}, "text_1"),
        ({"text_1": "x", "text_2": ["x"] * 4097}, "text_2"),
    ],
)
@pytest.mark.parametrize(("path", "status"), [("/score", 422), ("/v1/score", 400)])
def test_pairs_that_make_no_sense_name_their_field(
    client: httpx.Client, path: str, status: int, body: Any, param: str
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == status
    assert response.json()["error"]["param"] == param


def test_passages_are_ranked_best_first(
    client: httpx.Client, relevance: Callable[[float], float]
) -> None:
    texts = ["a tax return", "a kitten", "", "a kitten"]
    body = {"query": {"text": "a cat"}, "passages": [{"text": text} for text in texts]}
    answer = client.post("/v1/ranking", json=body).json()
    assert [one["index"] for one in answer["rankings"]] == [1, 3, 0, 2]
    logits = [one["logit"] for one in answer["rankings"]]
    assert logits == sorted(logits, reverse=True)
    assert logits[-1] == -1.0
    [score] = scores(client, text_1="a cat", text_2="a kitten")
    assert relevance(logits[0]) == pytest.approx(score, abs=0.03)


def test_a_long_passage_is_cut_or_refused(client: httpx.Client) -> None:
    body = {"query": {"text": "x"}, "passages": [{"text": "x"}, {"text": LONG}]}
    for allowed in ({}, {"truncate": "END"}, {"truncate": None}):
        answer = client.post("/v1/ranking", json={**body, **allowed}).json()
        assert answer["truncated"] == [{"index": 1, "tokens_cut": 46}]
    response = client.post("/v1/ranking", json={**body, "truncate": "NONE"})
    assert response.status_code == 413
    assert response.json()["error"]["param"] == "passages.1"
    assert "302" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "x", "passages": [{"text": "x"}]}, "query"),
        ({"query": {"text": " "}, "passages": [{"text": "x"}]}, "query.text"),
        ({"query": {"text": "x"}, "passages": []}, "passages"),
        ({"query": {"text": "x"}, "passages": ["x"]}, "passages.0"),
        ({"query": {"text": "x"}, "passages": [{"text": None}]}, "passages.0.text"),
        ({"query": {"text": "x"}, "passages": [{"text": "x"}] * 4097}, "passages"),
        ({"query": {"text": "x"}, "passages": [{"text": "x"}], "truncate": "LEFT"}, "truncate"),
    ],
)
def test_a_ranking_that_makes_no_sense_names_its_field(
    client: httpx.Client, body: Any, param: str
) -> None:
    response = client.post("/v1/ranking", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", {"text_1": "x", "text_2": "x"}),
        ("/v1/ranking", {"query": {"text": "x"}, "passages": [{"text": "x"}]}),
    ],
)
def test_an_unknown_model_names_the_known_one(client: httpx.Client, path: str, body: Any) -> None:
    response = client.post(path, json={**body, "model": "other"})
    assert response.status_code == 404
    assert "all-MiniLM-L6-v2" in response.json()["error"]["message"]
