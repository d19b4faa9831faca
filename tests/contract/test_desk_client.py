"""The Python client, sync and async, against the real desk."""

import asyncio
import gc
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from shared.desk import (
    AsyncClient,
    Client,
    ConflictError,
    DeskError,
    GivenChunk,
    InvalidRequestError,
    NewDocument,
    NotFoundError,
    RefusedError,
    Stamp,
)
from tests.suite import REPOSITORY, Suite

MOON = "The Moon is 384,400 kilometres away from Earth. Its far side is rugged."


@pytest.fixture(scope="module")
def desk(suite: Suite) -> Iterator[Client]:
    """A client of the desk, whose corpus `client` holds a few documents."""
    with Client(suite.url("retrieve")) as client:
        client.create_corpus("client", description="for the client")
        client.add_documents(
            "client",
            [
                NewDocument(id="moon", title="The Moon", text=MOON, metadata={"year": 2024}),
                {"id": "shelf/a b.md", "text": "A sourdough starter is flour and water."},
                *({"id": f"n{place}", "text": f"Note {place} on tides."} for place in range(7)),
            ],
        )
        yield client


def test_a_question_finds_its_passage(desk: Client) -> None:
    found = desk.retrieve("How far away is the Moon?", "client", top_k=2, explain=True)
    [hit, _] = found.hits
    assert (hit.document_id, hit.corpus, hit.rank) == ("moon", "client", 1)
    assert hit.metadata == {"year": 2024}
    assert hit.text == MOON[hit.position.start : hit.position.end]
    assert hit.explain is not None
    assert found.signals.top_score == hit.score
    assert found.timings_ms["total"] > 0


def test_a_hits_metadata_can_be_had_with_where_it_is_from(desk: Client) -> None:
    [hit] = desk.retrieve("How far away is the Moon?", "client", top_k=1).hits
    place = {"corpus": "client", "document_id": "moon", "title": "The Moon", "url": None}
    assert hit.all_metadata == {"year": 2024, **place}
    mine = hit.model_copy(update={"metadata": {"title": "of mine", "a": 1}})
    assert mine.all_metadata == {"a": 1, **place}


def test_every_option_that_the_desk_has_can_be_sent(desk: Client) -> None:
    found = desk.retrieve(
        "tides",
        ["client"],
        top_k=3,
        candidates=20,
        rerank_window=5,
        arms=["bm25"],
        fusion={"method": "rrf", "k": 10, "weights": {"bm25": 2}},
        curate=False,
        min_score=0.0,
        max_tokens=100,
    )
    assert [hit.document_id[0] for hit in found.hits] == ["n"] * 3


def test_a_conversation_and_wishes_for_other_wordings_can_be_sent(desk: Client) -> None:
    found = desk.retrieve(
        [
            {"role": "user", "content": "How far away is the Moon?"},
            {"role": "assistant", "content": "384,400 kilometres [1]."},
            {"role": "user", "content": [{"type": "text", "text": "And what of its far side?"}]},
        ],
        "client",
        recency={"half_life_days": 30, "weight": 0.1},
        filter={"type": "eq", "key": "year", "value": 2024},
        curate="auto",
        neighbors=1,
        diversity=0.1,
        expand={"queries": 1, "hyde": False},
    )
    assert [hit.document_id for hit in found.hits] == ["moon"]
    assert found.searched.query == "And what of its far side? away Moon"
    assert found.searched.how == "carried: away, Moon"
    assert [skipped.stage for skipped in found.skipped].count("queries") == 1


def test_what_is_young_is_preferred_as_the_corpus_says_unless_a_search_wants_none(
    desk: Client,
) -> None:
    made = desk.create_corpus("fresh", recency={"half_life_days": 7}, readers=["everyone"])
    assert made.recency is not None
    assert (made.recency.half_life_days, made.recency.field) == (7, None)
    assert (made.readers, made.generation, made.engine) == (["everyone"], 1, "local")
    desk.add_documents("fresh", [NewDocument(id="moon", text=MOON)])
    [as_it_says] = desk.retrieve("the Moon", "fresh", explain=True).hits
    [without] = desk.retrieve("the Moon", "fresh", explain=True, recency=None).hits
    assert as_it_says.explain is not None
    assert without.explain is not None
    assert as_it_says.explain["recency"] is not None
    assert without.explain["recency"] is None


def test_a_document_can_bring_its_own_chunks_and_vectors(desk: Client) -> None:
    corpus = desk.corpus("client")
    stamp = Stamp(model=corpus.model, revision=corpus.revision, dimension=corpus.dimension)
    vector = [1.0] + [0.0] * (corpus.dimension - 1)
    text = "Cut elsewhere. In two."
    chunks = [
        GivenChunk(start=0, end=14, vector=vector),
        GivenChunk(start=15, end=22, vector=vector),
    ]
    document = NewDocument(id="own", text=text, chunks=chunks, stamp=stamp)
    stored = desk.add_documents("client", [document])
    assert (stored.results[0].status, stored.results[0].chunks) == ("created", 2)
    other = document.model_copy(update={"stamp": stamp.model_copy(update={"model": "other"})})
    with pytest.raises(RefusedError):
        desk.add_documents("client", [other])
    desk.delete_document("client", "own")


async def test_why_a_document_is_not_among_the_hits_is_told(suite: Suite, desk: Client) -> None:
    asked = ("How far away is the Moon?", "client", "shelf/a b.md")
    told = desk.why_not(*asked, top_k=1, curate=False)
    assert (told.document_id, told.reason) == ("shelf/a b.md", told.chunks[0].reason)
    assert told.reason != "returned"
    assert told.message
    assert set(told.chunks[0].arms) == {"bm25", "dense"}
    assert desk.why_not("the Moon", ["client"], "moon").reason == "returned"
    async with AsyncClient(suite.url("retrieve")) as client:
        assert (await client.why_not(*asked, top_k=1, curate=False)).reason == told.reason
    with pytest.raises(NotFoundError):
        desk.why_not("the Moon", "client", "nowhere")


def test_corpora_come_and_go(desk: Client) -> None:
    made = desk.create_corpus("passing", chunk_tokens=64, chunk_overlap=8)
    assert (made.chunk_tokens, made.documents) == (64, 0)
    assert {"client", "passing"} <= {corpus.name for corpus in desk.corpora()}
    assert desk.corpus("passing").model == "all-MiniLM-L6-v2"
    with pytest.raises(ConflictError):
        desk.create_corpus("passing", chunk_tokens=128)
    assert desk.delete_corpus("passing") is None
    with pytest.raises(NotFoundError) as raised:
        desk.corpus("passing")
    assert raised.value.code == "corpus_not_found"


def test_documents_come_and_go(desk: Client) -> None:
    stored = desk.add_documents("client", [NewDocument(id="gone", text="Soon gone.")])
    assert stored.results[0].status == "created"
    again = desk.add_documents("client", [{"id": "gone", "text": "Soon gone."}, {"id": "bad"}])
    assert [one.status for one in again.results] == ["unchanged", "failed"]
    assert again.results[1].error is not None
    assert again.results[1].error.param == "documents.1.text"
    with pytest.raises(InvalidRequestError):
        desk.add_documents("client", [{"id": "new", "text": "t"}, {"id": "bad"}], atomic=True)
    assert desk.document("client", "shelf/a b.md").text.startswith("A sourdough")
    desk.delete_document("client", "gone")
    with pytest.raises(NotFoundError) as raised:
        desk.delete_document("client", "gone")
    assert raised.value.code == "document_not_found"


def test_all_documents_are_listed_page_by_page(desk: Client) -> None:
    ids = [line.id for line in desk.documents("client", page_size=2)]
    assert ids == sorted(ids)
    assert len(ids) == len(set(ids)) == desk.corpus("client").documents


async def test_the_async_client_does_the_same(suite: Suite, desk: Client) -> None:
    async with AsyncClient(suite.url("retrieve")) as client:
        one, two = await asyncio.gather(
            client.retrieve("How far away is the Moon?", "client"), client.corpus("client")
        )
        assert one.hits[0].document_id == "moon"
        assert two.name == "client"
        listed = [line.id async for line in client.documents("client", page_size=3)]
        assert listed == [line.id for line in desk.documents("client")]
        with pytest.raises(NotFoundError):
            await client.document("client", "nowhere")


def test_an_async_client_lives_through_several_event_loops(suite: Suite, desk: Client) -> None:
    client = AsyncClient(suite.url("retrieve"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            assert asyncio.run(client.corpus("client")).name == "client"
        del client
        gc.collect()
    assert [str(one.message) for one in told if one.category is ResourceWarning] == []


async def test_a_closed_client_says_so(suite: Suite) -> None:
    client = Client(suite.url("retrieve"))
    client.close()
    with pytest.raises(DeskError, match="this client is closed"):
        client.corpora()
    later = AsyncClient(suite.url("retrieve"))
    await later.corpora()
    await later.close()
    await later.close()
    with pytest.raises(DeskError, match="this client is closed"):
        await later.corpora()


def test_the_samples_of_the_guide_run_and_print(
    suite: Suite, desk: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As printed, but for the address; the corpus that the guide speaks of holds one document."""
    monkeypatch.delenv("DESK_KEY", raising=False)
    desk.create_corpus("handbook")
    desk.add_documents("handbook", [{"id": "a", "text": "A corpus is a set of documents."}])
    guide = (REPOSITORY / "docs/guides/python.md").read_text()
    samples = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(samples) == 7
    for sample in samples:
        code = re.sub(r'Client\((?:"http://[^"]*")?\)', "Client(URL)", sample)
        code = re.sub(r"(DeskRetriever\(.*)\)\n", r"\1, url=URL)\n", code)
        capsys.readouterr()
        exec(compile(code, "sample", "exec"), {"URL": suite.url("retrieve")})
        assert bool(capsys.readouterr().out) == ("print(" in sample), sample
    assert sum("print(" in sample for sample in samples) == 6


def test_an_error_says_what_was_wrong_and_where(desk: Client) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        desk.retrieve("moon", "client", top_k=0)
    error = raised.value
    assert (error.status, error.code, error.param) == (422, "invalid_request", "top_k")
    assert error.request_id
    assert error.request_id in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.param) == (str(error), "top_k")


def test_both_clients_offer_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
    assert "passages" in str(Client.retrieve.__doc__)


@pytest.mark.parametrize("name", [".", "..", "", "\ud800"])
def test_a_name_that_no_address_can_hold_is_refused(desk: Client, name: str) -> None:
    with pytest.raises(DeskError, match="can't be the name"):
        desk.document("client", name)


def test_what_is_no_json_is_refused(desk: Client) -> None:
    with pytest.raises(DeskError, match="can't be sent"):
        desk.retrieve("half a character \ud800", "client")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"min_score": float("nan")}, "min_score"),
        ({"fusion": {"weights": {"bm25": float("inf")}}}, "fusion.weights.bm25"),
        ({"filter": {"value": [1, float("-inf")]}}, "filter.value.1"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_name(
    desk: Client, options: Any, field: str
) -> None:
    with pytest.raises(DeskError, match=f"^{field}: is no finite number"):
        desk.retrieve("moon", "client", **options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "127.0.0.1:8003"},
        {"api_key": "two words"},
        {"api_key": "schlüssel"},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"retries": -1},
    ],
)
def test_a_client_of_nothing_is_not_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Client(**wrong)


def test_the_key_is_shown_nowhere() -> None:
    assert "secret" not in repr(Client(api_key="secret"))


# --- where a framework is missing ------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llamaindex", "llama_index", "llamaindex"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_a_missing_framework_is_named_with_its_extra(module: str, package: str, extra: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; import shared.desk.{module}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"pip install -e '.[{extra}]'" in done.stderr.splitlines()[-1]


def test_the_client_alone_brings_no_framework_and_no_service() -> None:
    code = (
        "import sys, shared.desk; "
        "print([m for m in ('langchain_core', 'llama_index', 'haystack', 'services', 'fastapi', "
        "'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
