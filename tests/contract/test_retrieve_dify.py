"""Dify's external knowledge API on the desk, in the bodies that Dify sends."""

import asyncio
import json
from pathlib import Path
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
