"""The desk over HTTP, with real services around it."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.suite import Suite

TEXTS = {
    "moon": ("The Moon", "The Moon is 384,400 kilometres away from Earth. Its far side is rugged."),
    "tides": ("Tides", "Tides are raised by the pull of the Moon and, more weakly, of the Sun."),
    "bread": ("Sourdough", "A sourdough starter is flour and water, fed daily until it bubbles."),
    "oven": ("Ovens", "Bread wants a hot oven and steam for the first fifteen minutes."),
    "bees": ("Honey bees", "Worker bees dance to tell the hive where flowers are."),
    "sql": ("Transactions", "A transaction is atomic: either all of its changes are kept or none."),
    "chess": ("Castling", "In castling the king moves two squares towards a rook."),
    "tea": ("Green tea", "Green tea turns bitter when it is brewed with boiling water."),
}


@pytest.fixture(scope="module")
def desk(suite: Suite) -> Iterator[httpx.Client]:
    """A client of the desk, whose corpora `library` and `notes` hold a few documents."""
    with httpx.Client(base_url=suite.url("retrieve"), timeout=60) as client:
        client.put("/corpora/library").raise_for_status()
        client.put("/corpora/notes").raise_for_status()
        documents = [
            {"id": key, "title": title, "text": text, "url": f"https://example.org/{key}"}
            for key, (title, text) in TEXTS.items()
        ]
        store(client, "library", *documents)
        store(client, "notes", {"id": "moon", "text": "My note: look at the Moon tonight."})
        yield client


def store(client: httpx.Client, corpus: str, *documents: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(f"/corpora/{corpus}/documents", json={"documents": documents})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ask(client: httpx.Client, query: str, *corpora: str, **more: Any) -> dict[str, Any]:
    body = {"query": query, "corpora": corpora or ["library"], **more}
    answer = client.post("/retrieve", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def fault(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which has the one shape and this status."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_a_question_finds_the_passage_that_answers_it(desk: httpx.Client) -> None:
    found = ask(desk, "How far away is the Moon?")
    hit = found["hits"][0]
    assert (hit["id"], hit["document_id"], hit["corpus"]) == ("moon#0", "moon", "library")
    assert hit["title"] == "The Moon"
    assert hit["url"] == "https://example.org/moon"
    assert [one["rank"] for one in found["hits"]] == [1, 2, 3, 4, 5]
    assert found["degraded"] == []
    assert found["dropped"] == []
    assert found["query_id"]


def test_a_hits_position_points_into_the_documents_text(desk: httpx.Client) -> None:
    text = " ".join(f"Sentence number {n} speaks of lighthouse {n}." for n in range(120))
    store(desk, "notes", {"id": "long", "text": text})
    stored = desk.get("/corpora/notes/documents/long").json()
    found = ask(desk, "lighthouse 77", "notes", top_k=50)
    hits = [hit for hit in found["hits"] if hit["document_id"] == "long"]
    assert len(hits) == stored["chunks"] > 1
    for hit in hits:
        place = hit["position"]
        assert place["chunks"] == stored["chunks"]
        assert stored["text"][place["start"] : place["end"]] == hit["text"]
        assert hit["id"] == f"long#{place['chunk']}"


@pytest.mark.parametrize("curate", [True, False])
def test_scores_are_in_0_to_1_and_never_rise(desk: httpx.Client, curate: bool) -> None:
    found = ask(desk, "hot water for tea", "library", "notes", curate=curate, top_k=100)
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert found["signals"]["top_score"] == scores[0]


def test_a_threshold_applies_to_the_score_that_is_shown(desk: httpx.Client) -> None:
    everything = ask(desk, "king and rook")["hits"]
    least = everything[1]["score"]
    found = ask(desk, "king and rook", min_score=least)
    assert [hit["id"] for hit in found["hits"]] == [
        hit["id"] for hit in everything if hit["score"] >= least
    ]
    assert [(drop["id"], drop["reason"]) for drop in found["dropped"]] == [
        (hit["id"], "below_min_score") for hit in everything if hit["score"] < least
    ]


def test_a_threshold_that_nothing_reaches_gives_no_hits_and_says_what_was_left_out(
    desk: httpx.Client,
) -> None:
    found = ask(desk, "quantum chromodynamics", min_score=1.0)
    assert found["hits"] == []
    assert len(found["dropped"]) == 5
    assert found["signals"]["top_score"] == 0
    assert found["signals"]["documents"] == 0


def test_the_token_budget_is_kept_and_what_did_not_fit_is_named(desk: httpx.Client) -> None:
    free = ask(desk, "bread and tea")["hits"]
    budget = sum(hit["tokens"] for hit in free[:2])
    found = ask(desk, "bread and tea", max_tokens=budget)
    assert sum(hit["tokens"] for hit in found["hits"]) <= budget
    assert {hit["id"] for hit in found["hits"]} | {drop["id"] for drop in found["dropped"]} == {
        hit["id"] for hit in free
    }
    assert {drop["reason"] for drop in found["dropped"]} == {"over_budget"}


def test_explain_tells_where_every_part_of_a_place_comes_from(desk: httpx.Client) -> None:
    found = ask(desk, "How far away is the Moon?", explain=True, top_k=8)
    assert found["hits"][0]["explain"]["arms"]["bm25"]["rank"] == 1
    for rank, hit in enumerate(found["hits"], start=1):
        why = hit["explain"]
        shares = sum(arm["share"] for arm in why["arms"].values())
        assert why["fused_score"] == pytest.approx(shares)
        assert all(arm["score"] is not None for arm in why["arms"].values())
        curation = why["curation"]
        assert curation["rank_after"] == rank
        assert curation["rank_before"] == why["fused_rank"]
        assert set(curation["z"]) == {"curator", "bm25", "dense"}
        assert curation["blended"] == pytest.approx(sum(curation["z"].values()) / 3)
    plain = ask(desk, "How far away is the Moon?", top_k=8)
    assert [hit["id"] for hit in plain["hits"]] == [hit["id"] for hit in found["hits"]]
    assert {hit["explain"] for hit in plain["hits"]} == {None}


def test_without_curation_hits_are_explained_by_the_arms_alone(desk: httpx.Client) -> None:
    found = ask(desk, "How far is the Moon?", explain=True, curate=False)
    assert {hit["explain"]["curation"] for hit in found["hits"]} == {None}
    assert found["timings_ms"]["curate"] == 0
    assert found["degraded"] == []


def test_one_arm_can_be_asked_alone(desk: httpx.Client) -> None:
    words = ask(desk, "castling", arms=["bm25"], curate=False, explain=True)
    assert [hit["document_id"] for hit in words["hits"]] == ["chess"]
    assert set(words["hits"][0]["explain"]["arms"]) == {"bm25"}
    assert words["timings_ms"]["embed"] == 0
    vectors = ask(desk, "castling", arms=["dense"], curate=False)
    assert vectors["hits"][0]["document_id"] == "chess"
    assert len(vectors["hits"]) == 5
    assert vectors["signals"]["agreement"] == 0


def test_several_corpora_are_searched_together_and_kept_apart(desk: httpx.Client) -> None:
    found = ask(desk, "the Moon", "library", "notes", top_k=3)
    first = {(hit["corpus"], hit["document_id"]) for hit in found["hits"]}
    assert {("library", "moon"), ("notes", "moon")} <= first
    assert found["signals"]["documents"] == len(first)


def test_signals_tell_a_clear_answer_from_none(desk: httpx.Client) -> None:
    clear = ask(desk, "worker bees dance hive flowers")["signals"]
    none = ask(desk, "diesel engine torque")["signals"]
    assert clear["coverage"] == 1
    assert none["coverage"] == 0
    assert clear["top_score"] > none["top_score"]
    assert clear["margin"] > none["margin"]


def test_every_stage_is_timed(desk: httpx.Client) -> None:
    timings = ask(desk, "tides")["timings_ms"]
    stages = {"understand", "embed", "bm25", "dense", "sparse", "fuse", "curate", "pack", "total"}
    assert set(timings) == stages
    assert timings.pop("sparse") == 0  # this corpus has no sparse vectors
    assert all(milliseconds > 0 for milliseconds in timings.values())
    assert timings["total"] >= max(timings.values())
    metrics = desk.get("/metrics").text
    for stage in timings:
        assert f'refdesk_retrieve_stage_seconds_count{{stage="{stage}"}}' in metrics


def test_an_empty_corpus_answers_with_nothing(desk: httpx.Client) -> None:
    desk.put("/corpora/empty").raise_for_status()
    found = ask(desk, "anything", "empty", explain=True)
    assert found["hits"] == []
    assert found["signals"] == {
        "top_score": 0,
        "margin": 0,
        "agreement": 0,
        "coverage": 0,
        "documents": 0,
        "freshness": None,
    }


@pytest.mark.parametrize("query", ["?!", "🦊", "the of and", "a" * 8192, "x\x00y", "\u202e\u0301"])
def test_odd_queries_are_answered(desk: httpx.Client, query: str) -> None:
    assert ask(desk, query)["degraded"] == []


def test_the_desk_is_ready_and_tells_what_it_depends_on(desk: httpx.Client) -> None:
    body = desk.get("/ready").json()
    assert body["dependencies"] == {
        "embed": "answers",
        "rerank": "answers",
        "catalogue": "answers",
    }
    assert body["corpora"] >= 2
    assert (body["damaged"], body["of_another_model"], body["faults"]) == (0, 0, {})


def test_an_unknown_corpus_is_refused_naming_those_there_are(desk: httpx.Client) -> None:
    body = {"query": "q", "corpora": ["library", "nowhere"]}
    error = fault(desk.post("/retrieve", json=body), 404)
    assert error["code"] == "corpus_not_found"
    assert error["param"] == "corpora.1"
    for name in ("nowhere", "library", "notes"):
        assert name in error["message"]


@pytest.mark.parametrize(
    ("content", "status", "param"),
    [
        (b"", 422, None),
        (b"null", 422, None),
        (b"[]", 422, None),
        (b"hello", 400, None),
        (b'{"query": "q", "corpora": ["library"]', 400, None),
        (b'{"query": "\xff\xfe", "corpora": ["library"]}', 400, None),
        (b'{"query": "\\ud800", "corpora": ["library"]}', 400, None),
        (b'{"query": "q", "corpora": ["library"], "\\ud800": 1}', 400, None),
        (b'{"query": "q", "corpora": ["library"], "min_score": NaN}', 400, None),
        (b'{"query": "q", "corpora": ["library"], "fusion": {"k": Infinity}}', 400, None),
        (b'{"query": "q", "corpora": ["library"], "fusion": {"k": 1e999}}', 400, None),
        (b'{"query": "q", "corpora": ["library"], "top_k": 0}', 422, "top_k"),
        (b'{"query": "q", "corpora": ["library"], "top_k": -1}', 422, "top_k"),
        (b'{"query": "q", "corpora": ["library"], "top_k": 1000000000}', 422, "top_k"),
        (b'{"query": "q", "corpora": ["library"], "top_k": 1' + b"0" * 400 + b"}", 400, None),
        (b'{"query": "", "corpora": ["library"]}', 422, "query"),
        (b'{"query": " \\n ", "corpora": ["library"]}', 422, "query"),
        (b'{"corpora": ["library"]}', 422, "query"),
        (b'{"query": "q"}', 422, "corpora"),
        (b'{"query": "q", "corpora": "library"}', 422, "corpora"),
        (b'{"query": "q", "corpora": ["../library"]}', 404, "corpora.0"),
        (b'{"query": "q", "corpora": ["library"], "topk": 3}', 422, "topk"),
        (b"[" * 100_000 + b"]" * 100_000, 400, None),
    ],
)
def test_a_bad_question_is_refused_in_the_one_shape(
    desk: httpx.Client, content: bytes, status: int, param: str | None
) -> None:
    headers = {"content-type": "application/json"}
    error = fault(desk.post("/retrieve", content=content, headers=headers), status)
    assert error["param"] == param
    assert error["message"]


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ('{"id": "a"}', "documents.0.text"),
        ('{"text": "t"}', "documents.0.id"),
        ('{"id": "a", "text": ""}', "documents.0.text"),
        ('{"id": "a", "text": "t", "metadata": {"a": {"b": {"c": 1}}}}', "documents.0.metadata.a"),
        ('{"id": "a", "text": "t", "metadata": {"a": null}}', "documents.0.metadata.a"),
        ('{"id": "a", "text": "t", "colour": "red"}', "documents.0.colour"),
    ],
)
def test_a_request_with_nothing_but_a_bad_document_is_refused(
    desk: httpx.Client, document: str, param: str | None
) -> None:
    before = desk.get("/corpora/notes").json()
    content = f'{{"documents": [{document}]}}'
    answer = desk.post(
        "/corpora/notes/documents", content=content, headers={"content-type": "application/json"}
    )
    assert fault(answer, 422)["param"] == param
    assert desk.get("/corpora/notes").json() == before


def test_ten_megabytes_in_one_field_are_refused_by_name(desk: httpx.Client) -> None:
    body = {"documents": [{"id": "big", "text": "word " * 2_000_000}]}
    error = fault(desk.post("/corpora/notes/documents", json=body), 422)
    assert error["param"] == "documents.0.text"
    assert "at most 2000000 are stored while a request waits" in error["message"]


def test_a_document_is_created_replaced_left_alone_and_deleted(desk: httpx.Client) -> None:
    metadata = {"n": 1, "x": 0.5, "flag": True, "tags": ["a", "b"], "who": "me"}
    document = {"id": "cycle", "text": "first wording", "title": "T", "metadata": metadata}
    first = store(desk, "notes", document)
    assert first["results"] == [{"id": "cycle", "status": "created", "chunks": 1}]
    assert store(desk, "notes", document)["results"][0]["status"] == "unchanged"
    second = store(desk, "notes", {**document, "text": "second wording"})
    assert second["results"][0]["status"] == "replaced"
    assert second["writes"] > first["writes"]
    assert second["documents"] == first["documents"]
    whole = desk.get("/corpora/notes/documents/cycle").json()
    assert (whole["text"], whole["metadata"], whole["title"]) == ("second wording", metadata, "T")
    hit = ask(desk, "second wording", "notes")["hits"][0]
    assert (hit["text"], hit["metadata"]) == ("second wording", metadata)
    assert desk.delete("/corpora/notes/documents/cycle").status_code == 204
    fault(desk.get("/corpora/notes/documents/cycle"), 404)
    assert fault(desk.delete("/corpora/notes/documents/cycle"), 404)["code"] == "document_not_found"
    assert "cycle" not in {hit["document_id"] for hit in ask(desk, "wording", "notes")["hits"]}


@pytest.mark.parametrize("name", ["a/b/c.md", "größe & co?", "100%", "#1", "Ω/🦊", "a b"])
def test_any_name_can_be_a_documents_id(desk: httpx.Client, name: str) -> None:
    store(desk, "notes", {"id": name, "text": f"a document called {name}"})
    path = f"/corpora/notes/documents/{quote(name, safe='')}"
    assert desk.get(path).json()["id"] == name
    assert desk.delete(path).status_code == 204
    fault(desk.get(path), 404)


def test_documents_are_listed_in_pages(desk: httpx.Client) -> None:
    ids: list[str] = []
    after: str | None = None
    while True:
        params: dict[str, str | int] = {"limit": 3, **({"after": after} if after else {})}
        page = desk.get("/corpora/library/documents", params=params).json()
        ids += [document["id"] for document in page["documents"]]
        after = page["next"]
        if after is None:
            break
    assert ids == sorted(TEXTS)
    fault(desk.get("/corpora/library/documents", params={"limit": 0}), 422)


def test_a_corpus_is_made_once_described_and_deleted(desk: httpx.Client) -> None:
    made = desk.put("/corpora/brief", json={"description": "for a moment", "chunk_tokens": 64})
    assert made.status_code == 201
    assert desk.put("/corpora/brief", json={"chunk_tokens": 64}).status_code == 200
    assert fault(desk.put("/corpora/brief", json={"chunk_tokens": 128}), 409)["param"]
    unknown = fault(desk.put("/corpora/kurz", json={"language": "Deutsch"}), 422)
    assert (unknown["code"], unknown["param"]) == ("unknown_language", "language")
    described = desk.get("/corpora/brief").json()
    assert described == made.json()
    assert (described["description"], described["chunk_tokens"]) == ("for a moment", 64)
    assert (described["documents"], described["chunks"]) == (0, 0)
    assert described in desk.get("/corpora").json()["corpora"]
    assert desk.delete("/corpora/brief").status_code == 204
    fault(desk.get("/corpora/brief"), 404)
    fault(desk.delete("/corpora/brief"), 404)
    error = fault(desk.post("/corpora/brief/documents", json={"documents": []}), 422)
    assert error["param"] == "documents"


@pytest.mark.parametrize("name", ["Bad", "-x", "x" * 64, "ünicode", "a.b"])
def test_a_bad_name_of_a_corpus_is_refused(desk: httpx.Client, name: str) -> None:
    fault(desk.put(f"/corpora/{quote(name)}"), 422)


def test_documents_for_a_corpus_that_is_not_there_are_refused(desk: httpx.Client) -> None:
    body = {"documents": [{"id": "a", "text": "t"}]}
    error = fault(desk.post("/corpora/nowhere/documents", json=body), 404)
    assert "PUT /corpora/nowhere" in error["message"]
