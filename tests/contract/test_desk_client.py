"""The Python client, sync and async, against the real desk, and against one that misbehaves."""

import asyncio
import gc
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from shared.desk import (
    AsyncClient,
    BusyError,
    Client,
    ConflictError,
    DeskError,
    InvalidRequestError,
    NewDocument,
    NotFoundError,
    OutOfTimeError,
    ServerError,
    UnreachableError,
)
from shared.desk.models import Options
from tests.suite import REPOSITORY, Suite, free_port, serving

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
    assert found.searched is not None
    assert found.searched.query == "And what of its far side? away Moon"
    assert found.searched.how == "carried: away, Moon"
    assert [skipped.stage for skipped in found.skipped].count("queries") == 1


def test_the_options_are_those_of_the_desk(suite: Suite) -> None:
    """None is forgotten, and none made up."""
    with Client(suite.url("retrieve")) as client:
        schema = client._http.get(f"{suite.url('retrieve')}/openapi.json").json()
    fields = set(schema["components"]["schemas"]["RetrieveRequest"]["properties"])
    offered = {"corpora", *Options.__annotations__}
    assert fields - offered == {"query", "messages"}
    assert offered <= fields


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


# --- a desk that misbehaves ------------------------------------------------------------------


class Peer:
    """A server whose answers are a list, used in turn; it keeps the headers of the requests."""

    def __init__(self, *answers: Response | Callable[..., Any]) -> None:
        self.answers = list(answers)
        self.seen: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        self.seen.append(dict(request.headers))
        await self.answers[min(len(self.seen), len(self.answers)) - 1](scope, receive, send)


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def refusal(status: int, code: str, **headers: str) -> JSONResponse:
    error = {"message": "no", "type": "x", "param": None, "code": code}
    return JSONResponse({"error": error}, status, headers)


EMPTY = JSONResponse({"corpora": []})


async def both(url: str, ask: Callable[[Any], Any], **options: Any) -> list[Any]:
    """What each client makes of a call: a result or an error."""

    def sync() -> Any:
        with Client(url, **options) as client:
            return ask(client)

    async def in_loop() -> Any:
        async with AsyncClient(url, **options) as client:
            return await ask(client)

    return await asyncio.gather(asyncio.to_thread(sync), in_loop(), return_exceptions=True)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_desk_is_asked_again_when_it_says_so(status: int) -> None:
    for kind in (Client, AsyncClient):
        peer = Peer(refusal(status, "busy", **{"Retry-After": "0"}), EMPTY)
        async with serving(peer) as url:
            if kind is Client:
                assert await asyncio.to_thread(Client(url).corpora) == []
            else:
                assert await AsyncClient(url).corpora() == []
        assert len(peer.seen) == 2


async def test_a_desk_that_stays_busy_is_given_up_on() -> None:
    peer = Peer(refusal(503, "stopping"))
    async with serving(peer) as url:
        errors = await both(url, lambda client: client.corpora(), retries=1)
    assert [type(error) for error in errors] == [BusyError, BusyError]
    assert errors[0].code == "stopping"
    assert len(peer.seen) == 4


async def test_a_desk_that_wants_no_second_try_or_a_long_wait_is_left_alone() -> None:
    for answer in (
        refusal(503, "upstream_unavailable", **{"x-should-retry": "false"}),
        refusal(429, "queue_full", **{"Retry-After": "3600"}),
        refusal(500, "internal_error"),
    ):
        peer = Peer(answer)
        async with serving(peer) as url:
            errors = await both(url, lambda client: client.corpora())
        assert all(isinstance(error, BusyError | ServerError) for error in errors)
        assert len(peer.seen) == 2


async def test_the_desk_is_told_how_long_it_has_and_who_asks() -> None:
    peer = Peer(EMPTY)
    async with serving(peer) as url:
        await both(url, lambda client: client.corpora(), timeout_s=7, api_key="k-1")
    for headers in peer.seen:
        assert 6000 < int(headers["x-deadline-ms"]) <= 7000
        assert headers["authorization"] == "Bearer k-1"


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("<html>hello</html>"),
        PlainTextResponse("gone", 502),
        JSONResponse({"corpora": "many"}),
        JSONResponse({"error": "no"}, 400),
        refusal(404, "unknown_path"),
    ],
)
async def test_what_is_no_desk_is_named_as_such(answer: Response) -> None:
    async with serving(Peer(answer)) as url:
        errors = await both(url, lambda client: client.corpora())
    for error in errors:
        assert isinstance(error, UnreachableError)
        assert "is no desk" in str(error)


async def test_a_desk_that_hangs_runs_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.desk.exchange._GRACE_S", 0.0)
    peer = Peer(hang)
    async with serving(peer) as url:
        errors = await both(url, lambda client: client.corpora(), timeout_s=0.3)
    assert [type(error) for error in errors] == [OutOfTimeError, OutOfTimeError]
    assert len(peer.seen) == 2


async def test_a_desk_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    errors = await both(url, lambda client: client.corpora(), retries=1)
    for error in errors:
        assert isinstance(error, UnreachableError)
        assert url in str(error)


async def test_a_broken_connection_is_tried_again_but_not_for_a_delete() -> None:
    tries = []

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(await reader.readline())
        writer.transport.abort()

    port = free_port()
    async with await asyncio.start_server(cut, "127.0.0.1", port):
        url = f"http://127.0.0.1:{port}"
        errors = await both(url, lambda client: client.corpora(), retries=1)
        assert [type(error) for error in errors] == [UnreachableError, UnreachableError]
        assert len(tries) == 4
        errors = await both(url, lambda client: client.delete_corpus("x"), retries=1)
        assert [type(error) for error in errors] == [UnreachableError, UnreachableError]
        assert len(tries) == 6


async def test_an_address_that_can_not_be_called_is_a_desk_error() -> None:
    for url in (f"http://{'x' * 70}.example", "http://[::1", "http://a\x00b"):
        for error in await both(url, lambda client: client.corpora(), retries=0):
            assert isinstance(error, DeskError), error
