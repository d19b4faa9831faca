"""What a search can be asked for beside a question, over HTTP with real services around it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.auth import hash_key
from shared.settings import Settings
from tests.e2e.command import refdesk
from tests.suite import Suite, serving

NOW = datetime.now(UTC)


def days_ago(days: float) -> str:
    return (NOW - timedelta(days=days)).isoformat()


LEAVE = "Everyone has thirty days of annual leave. Ask for leave two weeks ahead of it."
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "leave", "text": LEAVE, "metadata": {"team": "people", "year": 2026}},
    {"id": "leave-copy", "text": f"{LEAVE} Printed.", "metadata": {"team": "archive"}},
    {
        "id": "staff",
        "text": "Annual leave of the office staff is thirty two days.",
        "metadata": {"team": "people", "year": 2020, "written": days_ago(2000)},
    },
    {
        "id": "drivers",
        "text": "Annual leave of the drivers is twenty nine days.",
        "metadata": {"team": "fleet", "written": days_ago(1)},
    },
    {"id": "lathe", "text": "The lathe is oiled every morning.", "metadata": {"team": "shop"}},
    {
        "id": "long",
        "text": "\n\n".join(
            f"Rule {number} of the kiln: never open door {number} before lamp {number} is out. "
            + "It takes time to cool. " * 12
            for number in range(12)
        ),
    },
]
QUERY = "how many days of annual leave"


@pytest.fixture(scope="module")
def desk(suite: Suite) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=suite.url("retrieve"), timeout=60) as client:
        client.put("/corpora/options", json={"chunk_tokens": 128}).raise_for_status()
        body = {"documents": DOCUMENTS}
        client.post("/corpora/options/documents", json=body).raise_for_status()
        yield client


def ask(client: httpx.Client, query: str = QUERY, **more: Any) -> dict[str, Any]:
    body = {"query": query, "corpora": ["options"], **more}
    answer = client.post("/retrieve", json={k: v for k, v in body.items() if v is not None})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(found: dict[str, Any]) -> list[str]:
    return [hit["document_id"] for hit in found["hits"]]


def test_a_filter_leaves_only_what_it_lets_through(desk: httpx.Client) -> None:
    only = {"type": "eq", "key": "team", "value": "people"}
    assert set(ids(ask(desk, filter=only))) == {"leave", "staff"}
    recent = {"type": "and", "filters": [only, {"type": "gte", "key": "year", "value": 2025}]}
    assert ids(ask(desk, filter=recent)) == ["leave"]
    assert ids(ask(desk, filter={"type": "eq", "key": "team", "value": "nobody"})) == []
    assert "lathe" in ids(ask(desk, filter={}, top_k=20))


def test_a_filter_that_is_none_is_refused_with_its_place(desk: httpx.Client) -> None:
    wrong = {"type": "and", "filters": [{"type": "like", "key": "team", "value": "x"}]}
    body = {"query": QUERY, "corpora": ["options"], "filter": wrong}
    answer = desk.post("/retrieve", json=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("bad_filter", "filter.filters.0.type")


def test_near_duplicates_stand_behind_one_hit(desk: httpx.Client) -> None:
    found = ask(desk, top_k=10)
    assert len(set(ids(found)) & {"leave", "leave-copy"}) == 1
    [hit] = [hit for hit in found["hits"] if hit["document_id"].startswith("leave")]
    [twin] = hit["duplicates"]
    assert {hit["document_id"], twin["document_id"]} == {"leave", "leave-copy"}


def test_younger_documents_are_preferred_where_that_is_asked_for(desk: httpx.Client) -> None:
    plain = ids(ask(desk, "annual leave days staff drivers", explain=True))
    dated = {"half_life_days": 100, "weight": 1, "field": "written"}
    found = ask(desk, "annual leave days staff drivers", recency=dated, explain=True)
    order = ids(found)
    assert order.index("drivers") < order.index("staff")
    assert order.index("drivers") <= plain.index("drivers")
    by_id = {hit["document_id"]: hit["explain"]["recency"] for hit in found["hits"]}
    assert by_id["drivers"]["age_days"] == pytest.approx(1, abs=0.1)
    assert by_id["drivers"]["in_fusion"] > 0.2
    assert by_id["lathe" if "lathe" in by_id else "leave"] is None
    for team, freshness in (("fleet", pytest.approx(0.5**0.01, abs=0.001)), ("shop", None)):
        only = {"type": "eq", "key": "team", "value": team}  # one document, so it is the best hit
        assert ask(desk, recency=dated, filter=only)["signals"]["freshness"] == freshness
    asked = ask(desk, recency=dated | {"when": "asked"})
    assert asked["skipped"] == [
        {"stage": "recency", "reason": "the question asks for nothing recent"}
    ]
    assert ask(desk, "latest " + QUERY, recency=dated | {"when": "asked"})["skipped"] == []


def test_a_hit_is_widened_by_its_neighbours_or_to_its_document(desk: httpx.Client) -> None:
    query = "rule 5 of the kiln"
    [narrow] = ask(desk, query, top_k=1)["hits"]
    [wide] = ask(desk, query, top_k=1, neighbors=1)["hits"]
    [whole] = ask(desk, query, top_k=1, neighbors="document")["hits"]
    text = desk.get("/corpora/options/documents/long").json()["text"]
    assert narrow["text"] in wide["text"]
    assert len(narrow["text"]) < len(wide["text"]) < len(whole["text"])
    for hit in (narrow, wide, whole):
        start, end = hit["position"]["start"], hit["position"]["end"]
        assert hit["text"].split() == text[start:end].split()
    assert (whole["position"]["start"], whole["position"]["end"]) == (0, len(text))
    assert narrow["tokens"] < wide["tokens"] < whole["tokens"]
    several = ask(desk, "rule of the kiln door lamp", top_k=5, neighbors="document")
    assert ids(several).count("long") == 1


def test_the_budget_is_kept_in_the_tokens_of_the_model_that_is_named(desk: httpx.Client) -> None:
    model = desk.get("/corpora/options").json()["model"]
    budget = 150
    found = ask(desk, "rule of the kiln", top_k=20, max_tokens=budget, tokenizer=model)
    assert sum(hit["tokens"] for hit in found["hits"]) <= budget
    assert "over_budget" in {drop["reason"] for drop in found["dropped"]}
    wide = ask(desk, "rule 5 of the kiln", max_tokens=budget, neighbors="document")
    assert sum(hit["tokens"] for hit in wide["hits"]) <= budget
    body: dict[str, Any] = {"query": QUERY, "corpora": ["options"]}
    for name in ("no-such-model", "../x", "/etc"):
        refused = desk.post("/retrieve", json=body | {"tokenizer": name})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (404, "tokenizer")
        assert "/models" not in error["message"]  # where they are kept is not for callers


def test_diversity_puts_something_else_before_more_of_the_same(desk: httpx.Client) -> None:
    query = "rule of the kiln door lamp"
    same = ids(ask(desk, query, top_k=4))
    mixed = ids(ask(desk, query, top_k=4, diversity=0.9))
    assert same[0] == mixed[0]
    assert len(set(mixed)) > len(set(same))


def test_the_exact_arm_finds_what_the_fast_one_does(desk: httpx.Client) -> None:
    fast = ask(desk, arms=["bm25"], curate=False, top_k=20, explain=True)
    exact = ask(desk, arms=["bm25-exact"], curate=False, top_k=20, explain=True)
    assert set(ids(fast)) == set(ids(exact))
    assert exact["hits"][0]["explain"]["arms"]["bm25-exact"]["score"] > 0
    only = {"type": "eq", "key": "team", "value": "fleet"}
    assert ids(ask(desk, arms=["bm25-exact"], curate=False, filter=only)) == ["drivers"]


def test_the_gate_says_why_it_left_curation_out_or_curates(desk: httpx.Client) -> None:
    found = ask(desk, "the lathe is oiled every morning", curate="auto", explain=True)
    assert [one["stage"] for one in found["skipped"]] == ["curate"]
    assert ids(found)[0] == "lathe"
    assert found["hits"][0]["explain"]["curation"] is None
    unsure = ask(desk, curate="auto", explain=True)
    assert unsure["skipped"] == []
    assert unsure["hits"][0]["explain"]["curation"] is not None


def test_a_corpus_may_say_that_it_is_not_curated(desk: httpx.Client) -> None:
    desk.put("/corpora/plain", json={"curate": False}).raise_for_status()
    assert desk.put("/corpora/plain", json={}).status_code == 200
    assert desk.put("/corpora/plain", json={"curate": True}).status_code == 409
    body = {"documents": DOCUMENTS[:3]}
    desk.post("/corpora/plain/documents", json=body).raise_for_status()
    left = ask(desk, corpora=["plain"])
    assert [one["stage"] for one in left["skipped"]] == ["curate"]
    assert left["timings_ms"]["curate"] == 0
    for more in ({"curate": True, "corpora": ["plain"]}, {"corpora": ["plain", "options"]}):
        found = ask(desk, **more)
        assert (found["skipped"], found["timings_ms"]["curate"] > 0) == ([], True)


def test_a_conversation_is_searched_by_a_question_of_its_own(desk: httpx.Client) -> None:
    turns = [
        {"role": "user", "content": "How many days of annual leave are there?"},
        {"role": "assistant", "content": "Thirty days."},
        {"role": "user", "content": [{"type": "text", "text": "And for drivers?"}]},
    ]
    found = ask(desk, query=None, messages=turns)  # type: ignore[arg-type]  # left out of the body
    assert ids(found)[0] == "drivers"
    assert "leave" in found["searched"]["query"]
    assert found["searched"]["how"] != "as asked"
    plain = ask(desk)
    assert plain["searched"] == {"query": QUERY, "how": "as asked", "variants": []}


def test_other_wordings_need_a_tier_and_say_so_without(desk: httpx.Client) -> None:
    found = ask(desk, expand={"queries": 2, "hyde": True})
    assert [one["stage"] for one in found["skipped"]] == ["queries", "hyde"]
    assert "REFDESK_UTILITY_URL" in found["skipped"][0]["reason"]
    assert found["hits"]


def test_the_command_line_asks_for_what_its_options_say(desk: httpx.Client) -> None:
    model = desk.get("/corpora/options").json()["model"]
    only = {"type": "in", "key": "team", "value": ["people", "fleet"]}
    options = ["--arms", "bm25, bm25-exact", "--filter", json.dumps(only), "--min-score", "0.01"]
    options += ["--max-tokens", "60", "--tokenizer", model, "--neighbors", "1", "--no-curate"]
    command = ["retrieve", QUERY, "--corpus", "options", "--explain", *options, "--json"]
    shown = refdesk(*command, "--url", str(desk.base_url))
    assert shown.returncode == 0, shown.stderr
    arms = ["bm25", "bm25-exact"]
    more: dict[str, Any] = {"tokenizer": model, "min_score": 0.01, "max_tokens": 60}
    more |= {"arms": arms, "filter": only, "neighbors": 1, "curate": False, "explain": True}
    expected = ask(desk, **more)
    told = json.loads(shown.stdout)
    assert told["hits"] == expected["hits"]
    assert told["dropped"] == expected["dropped"]
    assert set(told["hits"][0]["explain"]["arms"]) == set(arms)


def test_the_command_line_curates_as_the_corpus_says_and_tells_so(desk: httpx.Client) -> None:
    desk.put("/corpora/terminal", json={"curate": False}).raise_for_status()
    body = {"documents": DOCUMENTS[:3]}
    desk.post("/corpora/terminal/documents", json=body).raise_for_status()
    command = ["retrieve", QUERY, "--corpus", "terminal", "--url", str(desk.base_url)]
    assert "without curate: " in refdesk(*command).stderr
    assert "without curate: " not in refdesk(*command, "--curate").stderr


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "x", "messages": [{"role": "user", "content": "x"}]}, "query"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"messages": [{"role": "user", "content": one} for one in ("leave?", " ")]}, "messages"),
        ({"query": "x", "neighbors": 21}, "neighbors"),
        ({"query": "x", "diversity": 2}, "diversity"),
        ({"query": "x", "recency": {"half_life_days": 0}}, "recency.half_life_days"),
        ({"query": "x", "expand": {"queries": 9}}, "expand.queries"),
        ({"query": "x", "curate": "maybe"}, "curate"),
        ({"query": "x", "filter": []}, "filter"),
        ({"query": "x", "top_k": 10**9}, "top_k"),
    ],
)
def test_what_can_not_be_meant_is_refused_by_name(
    desk: httpx.Client, body: dict[str, Any], param: str
) -> None:
    answer = desk.post("/retrieve", json={"corpora": ["options"], **body})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"].startswith(param)


# --- why not ---------------------------------------------------------------------------------


def why(client: httpx.Client, document: str, query: str = QUERY, **more: Any) -> dict[str, Any]:
    body = {"query": query, "corpora": ["options"], "document_id": document, **more}
    answer = client.post("/retrieve/why-not", json=body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_why_a_document_is_not_among_the_hits_is_told(desk: httpx.Client) -> None:
    first = ids(ask(desk))[0]
    assert why(desk, first)["reason"] == "returned"
    assert why(desk, "lathe", top_k=1)["reason"] == "less_relevant"
    assert why(desk, "lathe", min_score=0.99, top_k=20)["reason"] == "below_min_score"
    words = why(desk, "lathe", arms=["bm25"])
    assert words["reason"] == "not_a_candidate"
    assert words["chunks"][0]["arms"]["bm25"] == {"rank": None, "score": 0.0, "last": None}
    only = {"type": "eq", "key": "team", "value": "people"}
    assert why(desk, "lathe", filter=only)["reason"] == "filtered"
    assert why(desk, "long", "rule of the kiln", max_tokens=1)["reason"] == "over_budget"
    twins = {why(desk, name, top_k=10)["reason"] for name in ("leave", "leave-copy")}
    assert twins == {"returned", "duplicate"}
    told = why(desk, "long", "rule 5 of the kiln", top_k=2)
    assert told["reason"] == told["chunks"][0]["reason"] == "returned"
    assert len(told["chunks"]) > 2
    assert all(chunk["message"] for chunk in told["chunks"])


def test_a_budget_that_cuts_a_copy_off_is_not_said_of_the_document_itself(
    desk: httpx.Client,
) -> None:
    desk.put("/corpora/copies").raise_for_status()
    documents = [{"id": "lathe", "text": "The lathe is oiled by whoever comes first, at dawn."}]
    body: dict[str, Any] = {"documents": documents}
    desk.post("/corpora/copies/documents", json=body).raise_for_status()
    both = {"corpora": ["options", "copies"], "top_k": 2}
    found = ask(desk, "the lathe is oiled every morning", **both)
    first, second = found["hits"]
    assert (first["document_id"], second["document_id"]) == ("lathe", "lathe")
    budget = first["tokens"]
    told = why(desk, "lathe", "the lathe is oiled every morning", **both, max_tokens=budget)
    reasons = {chunk["corpus"]: chunk["reason"] for chunk in told["chunks"]}
    assert reasons == {first["corpus"]: "returned", second["corpus"]: "over_budget"}


def test_of_a_document_that_is_not_there_nothing_is_told(desk: httpx.Client) -> None:
    body = {"query": QUERY, "corpora": ["options"], "document_id": "nobody"}
    answer = desk.post("/retrieve/why-not", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "document_not_found")


# --- readers ---------------------------------------------------------------------------------


async def test_a_document_with_readers_is_there_for_them_alone(
    suite: Suite, tmp_path: Path
) -> None:
    from services.retrieve.app import build

    keys = tmp_path / "keys.json"
    entries = [
        {"name": "boss", "sha256": hash_key("k-boss"), "role": "admin"},
        {"name": "ann", "sha256": hash_key("k-ann"), "groups": ["people"]},
        {"name": "bob", "sha256": hash_key("k-bob")},
    ]
    keys.write_text(json.dumps({"keys": entries}))
    settings = Settings(
        data_dir=tmp_path / "data",
        keys_file=keys,
        embed_url=suite.url("embed"),
        rerank_url=suite.url("rerank"),
    )
    async with (
        serving(await build(settings)) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):

        async def call(who: str, method: str, path: str, body: Any = None) -> httpx.Response:
            headers = {"authorization": f"Bearer k-{who}"}
            return await client.request(method, path, json=body, headers=headers)

        documents = [
            {"id": "open", "text": "The salary round is in May."},
            {
                "id": "closed",
                "text": "The salary of the director is secret.",
                "readers": ["people"],
            },
            {"id": "bobs", "text": "The salary of Bob is his own.", "readers": ["bob"]},
            {"id": "nobodys", "text": "The salary of the spy is unknown.", "readers": []},
        ]
        assert (await call("boss", "PUT", "/corpora/pay")).status_code == 201
        body: dict[str, Any] = {"documents": documents}
        assert (await call("boss", "POST", "/corpora/pay/documents", body)).status_code == 200
        sees = {
            "boss": {"open", "closed", "bobs", "nobodys"},
            "ann": {"open", "closed"},
            "bob": {"open", "bobs"},
        }
        for who, expected in sees.items():
            for arms in (["bm25"], ["dense"], ["bm25-exact"], ["bm25", "dense"]):
                body = {"query": "salary", "corpora": ["pay"], "arms": arms, "top_k": 20}
                answer = (await call(who, "POST", "/retrieve", body)).json()
                assert {hit["document_id"] for hit in answer["hits"]} == expected, (who, arms)
            listed = (await call(who, "GET", "/corpora/pay/documents")).json()["documents"]
            assert {one["id"] for one in listed} == expected
            for document in documents:
                there = document["id"] in expected
                read = await call(who, "GET", f"/corpora/pay/documents/{document['id']}")
                assert read.status_code == (200 if there else 404)
                if there:  # who else may read it is for those who say so
                    shown = document.get("readers") if who == "boss" else None
                    assert read.json()["readers"] == shown
                body = {"query": "salary", "corpora": ["pay"], "document_id": document["id"]}
                told = await call(who, "POST", "/retrieve/why-not", body)
                assert told.status_code == (200 if there else 404)
