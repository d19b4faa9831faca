"""rerank in the form of text-embeddings-inference: a bare sorted list, and its own errors."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.rerank.tei import ERROR_SHAPES, RERANK_PATHS
from shared.errors import ApiError
from tests.suite import Suite

QUERY = "How do I reset my password?"
TEXTS = ["The cafeteria opens at noon.", "Reset your password on the account page.", "", " "]
LONG = "word " * 300  # 302 tokens, where the model reads 256


@pytest.fixture
def client(suite: Suite) -> httpx.Client:
    return httpx.Client(base_url=suite.url("rerank"), timeout=60)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_every_text_is_in_the_list_best_first(client: httpx.Client, path: str) -> None:
    ranks = client.post(path, json={"query": QUERY, "texts": [*TEXTS, TEXTS[1]]}).json()
    assert [rank["index"] for rank in ranks] == [1, 4, 0, 2, 3]
    assert all(rank.keys() == {"index", "score"} for rank in ranks)
    assert all(0 <= rank["score"] <= 1 for rank in ranks)
    assert ranks[0]["score"] == ranks[1]["score"]
    assert [rank["score"] for rank in ranks[3:]] == [0.0, 0.0]


def test_texts_are_returned_when_asked_for(client: httpx.Client) -> None:
    ranks = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "return_text": True})
    assert [rank["text"] for rank in ranks.json()] == [TEXTS[1], TEXTS[0], "", " "]


def test_a_raw_score_is_what_the_relevance_is_made_of(
    client: httpx.Client, relevance: Callable[[float], float]
) -> None:
    body = {"query": QUERY, "texts": TEXTS}
    ranks = client.post("/rerank", json=body).json()
    raw = client.post("/rerank", json={**body, "raw_scores": True}).json()
    assert [rank["index"] for rank in raw] == [rank["index"] for rank in ranks]
    for one, other in zip(raw, ranks, strict=True):
        assert relevance(one["score"]) == pytest.approx(other["score"], abs=0.03)


@pytest.mark.parametrize(
    "body", [{"query": QUERY, "texts": ["x", LONG]}, {"query": LONG, "texts": ["x"]}]
)
def test_truncate_false_refuses_what_is_too_long(client: httpx.Client, body: Any) -> None:
    for allowed in ({}, {"truncate": True}, {"truncate": None}):
        answer = client.post("/rerank", json={**body, **allowed})
        assert len(answer.json()) == len(body["texts"])
    response = client.post("/rerank", json={**body, "truncate": False})
    assert response.status_code == 413
    error = response.json()
    assert error.keys() == {"error", "error_type"}
    assert error["error_type"] == "Validation"
    assert "302 tokens" in error["error"]
    assert "256" in error["error"]


@pytest.mark.parametrize("spelling", [str.lower, str.title])
def test_the_direction_says_which_side_of_a_long_text_is_cut_off(
    client: httpx.Client, spelling: Any
) -> None:
    body = {"query": "cat", "texts": ["cat " + LONG, LONG + " cat"]}

    def best(direction: str) -> int:
        answer = client.post("/rerank", json={**body, "truncation_direction": spelling(direction)})
        index: int = answer.json()[0]["index"]
        return index

    assert best("right") == 0
    assert best("left") == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"texts": ["x"]}, "query"),
        ({"query": " ", "texts": ["x"]}, "query"),
        ({"query": "x", "texts": []}, "texts"),
        ({"query": "x", "texts": "x"}, "texts"),
        ({"query": "x", "texts": ["x"] * 4097}, "texts"),
        ({"query": "x", "texts": ["x", 1]}, "texts.1"),
        ({"query": "x", "texts": [{"text": "x"}]}, "texts.0"),
        ({"query": "x", "texts": ["x"], "truncation_direction": "Up"}, "truncation_direction"),
        ({"query": "x", "texts": ["x"], "raw_scores": "perhaps"}, "raw_scores"),
    ],
)
@pytest.mark.parametrize(("path", "status"), [("/rerank", 422), ("/v1/rerank", 400)])
def test_bad_bodies_are_refused_in_the_same_form(
    client: httpx.Client, path: str, status: int, body: Any, field: str
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == status
    assert response.json()["error_type"] == "Validation"
    assert response.json()["error"].startswith(f"{field}: ")


def test_an_unknown_model_names_the_known_one(client: httpx.Client) -> None:
    response = client.post("/rerank", json={"query": "x", "texts": ["x"], "model": "bge"})
    assert response.status_code == 404
    assert response.json()["error_type"] == "Validation"
    assert "all-MiniLM-L6-v2" in response.json()["error"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (413, "Validation"),
        (429, "Overloaded"),
        (424, "Backend"),
        (503, "Unhealthy"),
        (504, "Overloaded"),
    ],
)
def test_each_status_has_its_word(status: int, kind: str) -> None:
    [shape] = {ERROR_SHAPES[path] for path in RERANK_PATHS}
    error = ApiError(status, "any", "why")
    assert shape(error, {"texts": ["x"]}) == {"error": "why", "error_type": kind}
    for other in (None, {}, {"documents": ["x"]}, {"texts": None}, ["x"], "x"):
        assert shape(error, other) == error.body()
