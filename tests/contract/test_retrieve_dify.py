"""Dify's external knowledge API on the desk, in the bodies that Dify sends."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from shared.auth import hash_key
from tests.library import DOCUMENTS, IDS, LIBRARY, QUERY, fill_library
from tests.shelf import desk
from tests.suite import Suite


@pytest.fixture(scope="module")
def url(suite: Suite) -> str:
    url = suite.url("retrieve")
    fill_library(url)
    return url


def body(condition: Any = None, **setting: Any) -> dict[str, Any]:
    """What Dify sends."""
    settings = {"top_k": 10, "score_threshold": 0.0, **setting}
    asked = {"knowledge_id": LIBRARY, "query": QUERY, "retrieval_setting": settings}
    return asked if condition is None else {**asked, "metadata_condition": condition}


def ask(url: str, sent: Any) -> httpx.Response:
    return httpx.post(f"{url}/retrieval", json=sent, timeout=60)


def found(url: str, *conditions: dict[str, Any], operator: str | None = None) -> set[str]:
    """The documents that a search with these conditions finds."""
    answer = ask(url, body({"logical_operator": operator, "conditions": list(conditions)}))
    assert answer.status_code == 200, answer.text
    return {record["metadata"]["document_id"] for record in answer.json()["records"]}


def test_records_have_text_score_title_and_metadata_which_is_never_null(url: str) -> None:
    answer = ask(url, body())
    assert answer.status_code == 200
    records = answer.json()["records"]
    assert len(records) == len(IDS)
    best = records[0]
    assert set(best) == {"content", "score", "title", "metadata"}
    assert (best["title"], best["content"]) == ("The Moon", DOCUMENTS[0]["text"])
    assert best["metadata"] == {
        "document_id": "sky/moon.md",
        "url": DOCUMENTS[0]["url"],
        **DOCUMENTS[0]["metadata"],
    }
    for record in records:
        assert isinstance(record["metadata"], dict)
        assert isinstance(record["title"], str)
        assert 0 <= record["score"] <= 1
    assert len(ask(url, body(top_k=2)).json()["records"]) == 2
    assert ask(url, body(score_threshold=1.0)).json()["records"] == []


@pytest.mark.parametrize(
    ("name", "operator", "value", "expected"),
    [
        ("topic", "is", "sky", IDS[:2]),
        ("tags", "is", "orbit", IDS[:1]),
        ("topic", "is not", "sky", IDS[2:]),
        ("topic", "in", ["sky", "kitchen"], IDS[:3]),
        ("topic", "not in", ["sky"], IDS[2:]),
        ("year", "=", "2023", IDS[1:2]),
        ("year", "≠", 2023, [IDS[0], *IDS[2:]]),
        ("year", ">", "2021", IDS[1:3]),
        ("year", "≥", 2021, IDS[:3]),
        ("year", "<", 2023.5, IDS[:2]),
        ("year", "≤", "2021", IDS[:1]),
        ("day", "before", "2022-01-01", IDS[:1]),
        ("day", "after", "2022-01-01T00:00:00Z", IDS[1:2]),
        (["tags", "topic"], "is", "sky", IDS[:2]),
        (["tags", "topic"], "is not", "sky", IDS[2:]),
    ],
)
def test_conditions_narrow_the_search_down(
    url: str, name: Any, operator: str, value: Any, expected: list[str]
) -> None:
    condition = {"name": name, "comparison_operator": operator, "value": value}
    assert found(url, condition) == set(expected)


def test_conditions_hold_together_or_one_of_them(url: str) -> None:
    sky = {"name": "topic", "comparison_operator": "is", "value": "sky"}
    late = {"name": "year", "comparison_operator": "≥", "value": 2023}
    assert found(url, sky, late) == found(url, sky, late, operator="and") == {"sky/tides.md"}
    assert found(url, sky, late, operator="or") == set(IDS[:3])
    assert found(url) == set(IDS)


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("contains", "sk"),
        ("not contains", "sk"),
        ("start with", "s"),
        ("end with", "y"),
        ("empty", None),
        ("not empty", None),
        ("like", "s%"),
        (">", "later"),
        ("in", "sky"),
        ("is", None),
        ("is", {"a": 1}),
    ],
)
def test_a_condition_that_cannot_be_kept_is_refused_in_difys_shape(
    url: str, operator: str, value: Any
) -> None:
    condition = {"name": "topic", "comparison_operator": operator, "value": value}
    answer = ask(url, body({"conditions": [condition]}))
    assert answer.status_code == 422
    error = answer.json()
    assert set(error) == {"error_code", "error_msg"}
    assert error["error_code"] == 422
    assert error["error_msg"].startswith("metadata_condition")


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (
            {"name": "topic", "comparison_operator": "before", "value": "z"},
            "value: must be a number or an ISO 8601 date for `<` or `before`, such as",
        ),
        (
            {"name": "topic", "comparison_operator": "in", "value": "sky"},
            "value: must be a list for `in`; for one value use `is`",
        ),
        (
            {"name": ["a", "b"], "comparison_operator": "not in", "value": "sky"},
            "value: must be a list for `not in`; for one value use `is not`",
        ),
        (
            {"name": ["a", "b"], "comparison_operator": "is", "value": ["use eq"]},
            "value: must be one value, no list; `in` and `not in` take a list",
        ),
        (
            {"name": "topic", "comparison_operator": ">", "value": "use eq"},
            "value: must be a number or an ISO 8601 date for `>` or `after`",
        ),
        ({"name": "x" * 200, "comparison_operator": "is", "value": 1}, "name: must be a key"),
        ({"name": ["a", ""], "comparison_operator": "is", "value": 1}, "name.1: must be a key"),
        ({"name": 7, "comparison_operator": "is", "value": 1}, "name: must be a text, or a list"),
        ({"name": ["a"] * 65, "comparison_operator": "is", "value": 1}, "name: must be a text, or"),
    ],
)
def test_what_is_wrong_with_a_condition_is_said_of_the_place_where_it_was_sent(
    url: str, condition: dict[str, Any], says: str
) -> None:
    good = {"name": "topic", "comparison_operator": "is", "value": "sky"}
    answer = ask(url, body({"conditions": [good, condition]}))
    assert answer.status_code == 422
    assert answer.json()["error_msg"].startswith(f"metadata_condition.conditions.1.{says}")


def test_each_name_of_a_condition_counts_as_a_comparison(url: str) -> None:
    many = {"name": ["a"] * 64, "comparison_operator": "is", "value": 1}
    assert ask(url, body({"conditions": [many] * 4})).status_code == 200
    answer = ask(url, body({"conditions": [many] * 5}))
    assert answer.status_code == 422
    message = "metadata_condition.conditions: hold 320 comparisons, one for each name"
    assert answer.json()["error_msg"].startswith(message)


def test_metadata_does_not_pass_for_the_documents_id_and_address(url: str) -> None:
    name = "forged"
    httpx.put(f"{url}/corpora/{name}", timeout=60).raise_for_status()
    forged = {"document_id": "other", "url": "https://evil.example", "topic": "sky"}
    true = {"id": "own", "url": "https://library.example/own"}
    fill = {"documents": [{**true, "text": "The Moon.", "metadata": forged}]}
    httpx.post(f"{url}/corpora/{name}/documents", json=fill, timeout=60).raise_for_status()
    [record] = ask(url, body() | {"knowledge_id": name}).json()["records"]
    assert record["metadata"] == {
        "document_id": "own",
        "url": "https://library.example/own",
        "topic": "sky",
    }


def test_null_is_the_same_as_absent(url: str) -> None:
    plain = ask(url, {"knowledge_id": LIBRARY, "query": QUERY}).json()
    for nulls in (
        {"retrieval_setting": None, "metadata_condition": None},
        {"retrieval_setting": {"top_k": None, "score_threshold": None}},
        {"metadata_condition": {"conditions": None, "logical_operator": None}},
    ):
        assert ask(url, {"knowledge_id": LIBRARY, "query": QUERY, **nulls}).json() == plain


def test_as_many_records_are_found_as_are_asked_for(url: str) -> None:
    name, most = "many-of-dify", 120  # over the 100 candidates that an arm finds by default
    httpx.put(f"{url}/corpora/{name}", timeout=60).raise_for_status()
    letters = Random(7)
    texts = [
        " ".join("".join(letters.choices("abdegiklmnorstu", k=6)) for _ in range(8))
        for _ in range(most)
    ]
    fill = {"documents": [{"id": str(n), "text": text} for n, text in enumerate(texts)]}
    httpx.post(f"{url}/corpora/{name}/documents", json=fill, timeout=60).raise_for_status()
    answer = ask(url, body(top_k=1000) | {"knowledge_id": name})
    assert len(answer.json()["records"]) == most


def test_a_slash_too_many_is_answered_in_difys_shape(url: str) -> None:
    answer = httpx.post(f"{url}/retrieval/", json=body(), timeout=60)
    assert answer.status_code == 404
    assert answer.json()["error_code"] == 404


@pytest.mark.parametrize("query", ["", " "])
def test_a_blank_question_is_refused_in_difys_words(url: str, query: str) -> None:
    answer = ask(url, body() | {"query": query})
    assert answer.json()["error_msg"].startswith("query: is blank")


async def test_a_header_says_what_the_search_went_without(shelf: Path, suite: Suite) -> None:
    async with desk(shelf, embed=suite.url("embed")) as http:
        answer = await http.post("/retrieval", json=body() | {"knowledge_id": "shelf"})
        assert answer.status_code == 200
        assert answer.headers["x-refdesk-degraded"] == "curate"


@pytest.mark.parametrize(
    "sent",
    [
        {},
        [],
        {"knowledge_id": LIBRARY},
        {"knowledge_id": 7, "query": "x"},
        body() | {"query": ""},
        body() | {"query": "x" * 8193},
        body(top_k=0),
        body(top_k=10**9),
        body(score_threshold=2),
        body({"conditions": "all"}),
        body({"conditions": [{"name": "a"}]}),
        body({"conditions": [{"name": [], "comparison_operator": "is", "value": 1}]}),
    ],
)
def test_bad_bodies_are_refused_in_difys_shape(url: str, sent: Any) -> None:
    answer = ask(url, sent)
    assert answer.status_code == 422, answer.text
    assert set(answer.json()) == {"error_code", "error_msg"}


def test_difys_own_error_codes_tell_of_the_key_and_of_the_knowledge(
    shelf: Path, suite: Suite, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    entry = {"name": "one", "sha256": hash_key("k-one"), "corpora": ["shelf"]}
    keys.write_text(json.dumps({"keys": [entry]}))

    async def main() -> None:
        async with desk(shelf, embed=suite.url("embed"), keys_file=keys) as client:

            async def call(authorization: str | None, knowledge: str) -> tuple[int, Any]:
                headers = {} if authorization is None else {"authorization": authorization}
                sent = body() | {"knowledge_id": knowledge}
                answer = await client.post("/retrieval", json=sent, headers=headers)
                return answer.status_code, answer.json()

            for header, code in ((None, 1001), ("Basic abc", 1001), ("Bearer wrong", 1002)):
                status, error = await call(header, "shelf")
                assert (status, error["error_code"]) == (401, code)
            status, answer = await call("Bearer k-one", "shelf")
            assert (status, len(answer["records"])) == (200, 5)
            messages = set()
            for name in ("secret", "not-there"):
                status, error = await call("Bearer k-one", name)
                assert (status, error["error_code"]) == (404, 2001)
                messages.add(error["error_msg"].replace(name, "…"))
            assert len(messages) == 1

    asyncio.run(main())
