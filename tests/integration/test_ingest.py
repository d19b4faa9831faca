"""From documents as they were sent to a corpus that finds them, with embed well and unwell."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import Response

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.chunk import TokenCounter
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.ingest import Ingest
from services.retrieve.corpus.reindex.protocol import ReindexRequest
from services.retrieve.corpus.reindex.target import target
from services.retrieve.corpus.source import SourceDocument
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from services.retrieve.stores.local.database import Database
from shared.auth import LOCAL
from shared.client import ServiceClient
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError
from shared.settings import Settings
from tests.corpora import DIMENSION, STAMP, vector_of
from tests.ingesting import Desk, Embed, encoded, entries, open_desk
from tests.suite import free_port, serving

LONG = "\n\n".join(f"Paragraph {n}." + " It has some more words in it." * 12 for n in range(40))


@pytest.fixture(scope="session")
def tokenizer(minilm_dir: Path) -> bytes:
    """The default model's tokenizer."""
    return (minilm_dir / "tokenizer.json").read_bytes()


@pytest.fixture
async def desk(tmp_path: Path, tokenizer: bytes) -> AsyncIterator[Desk]:
    """A desk whose embed is well."""
    async with open_desk(tmp_path, Embed(tokenizer)) as desk:
        yield desk


async def test_a_long_document_is_found_by_each_of_its_parts(desk: Desk) -> None:
    assert await desk.write(SourceDocument("d", LONG, "Long one")) == [("d", "created")]
    store = desk.catalog.get("c")
    assert store.info.chunks > 10
    for number in (0, 20, 39):
        key, _ = store.bm25(f"paragraph {number}", 1)[0]
        assert f"Paragraph {number}." in store.fetch([key])[key].text
    for key, record in store.fetch(range(1, store.info.chunks + 1)).items():
        near, cosine = store.dense(vector_of(f"Long one\n{record.text}"), 1)[0]
        assert near == key
        assert cosine == pytest.approx(1.0, abs=1e-5)


async def test_every_chunk_reaches_the_embedder_whole_behind_the_title(desk: Desk) -> None:
    await desk.write(SourceDocument("d", LONG, "Long one"), SourceDocument("e", LONG))
    counter = TokenCounter(desk.embed.tokenizer)
    sent = [text for batch in desk.embed.inputs for text in batch]
    stored = desk.catalog.get("c").fetch(range(1, 1000)).values()
    assert sorted(sent) == sorted(
        f"Long one\n{record.text}" if record.title else record.text for record in stored
    )
    assert max(counter.count(text) for text in sent) <= 254  # and two special tokens
    assert max(len(batch) for batch in desk.embed.inputs) <= 32


async def test_each_format_is_parsed_and_a_found_title_is_kept(desk: Desk) -> None:
    await desk.write(
        SourceDocument("m", "# Moss\n\nGrows [here](x).", format="markdown"),
        SourceDocument("h", "<title>Heath</title><p>Purple &amp; wide</p>", format="html"),
        SourceDocument("t", "# Plain", "Given"),
    )
    store = desk.catalog.get("c")
    parsed = {name: store.document(name) for name in "mht"}
    assert {name: (one.title, one.text) for name, one in parsed.items() if one} == {
        "m": ("Moss", "Moss\n\nGrows here."),
        "h": ("Heath", "Purple & wide"),
        "t": ("Given", "# Plain"),
    }


async def test_only_what_changed_is_embedded_and_written(desk: Desk) -> None:
    first = SourceDocument("a", "First text", "T", "https://x/a", metadata={"k": ["v"]})
    other = SourceDocument("b", "Second text")
    await desk.write(first, other)
    desk.embed.inputs.clear()
    assert await desk.write(other, first) == [("b", "unchanged"), ("a", "unchanged")]
    assert desk.embed.inputs == []
    assert desk.catalog.get("c").info.writes == 1
    changes = [
        replace(first, text="First text!"),
        replace(first, title="U"),
        replace(first, url="https://x/b"),
        replace(first, metadata={"k": ["w"]}),
        replace(first, format="markdown"),
        replace(first, readers=()),
        replace(first, readers=("hr",)),
    ]
    for changed in changes:
        assert await desk.write(other, changed) == [("b", "unchanged"), ("a", "replaced")]
    assert desk.catalog.get("c").info.writes == 1 + len(changes)


async def test_a_document_that_can_not_be_taken_keeps_out_itself_alone(desk: Desk) -> None:
    good, bad = SourceDocument("good", "Some text"), SourceDocument("bad", "%PDF-1.7 and so on")
    assert await desk.write(bad, good) == [("bad", "unsupported_format"), ("good", "created")]
    store = desk.catalog.get("c")
    assert (store.info.documents, store.info.writes) == (1, 1)
    assert await desk.write(good, bad) == [("good", "unchanged"), ("bad", "unsupported_format")]


async def test_of_atomic_documents_one_that_can_not_be_taken_keeps_out_all(desk: Desk) -> None:
    good = SourceDocument("good", "Some text")
    with pytest.raises(ApiError) as failure:
        await desk.write(good, SourceDocument("bad", "%PDF-1.7 and so on"), atomic=True)
    assert (failure.value.status, failure.value.param) == (415, "documents.1.text")
    assert desk.embed.inputs == []
    assert desk.catalog.get("c").info.writes == 0


async def test_where_no_document_can_be_taken_the_first_ones_error_is_the_answer(
    desk: Desk,
) -> None:
    with pytest.raises(ApiError) as failure:
        await desk.write(SourceDocument("bad", "%PDF-1.7"), SourceDocument("void", "\u200b\x07"))
    assert (failure.value.status, failure.value.param) == (415, "documents.0.text")


async def test_overlapping_requests_all_take_effect(desk: Desk) -> None:
    batches = [
        [SourceDocument(f"d{n}", f"text {n}"), SourceDocument("all", LONG + str(n))]
        for n in range(8)
    ]
    await asyncio.gather(*(desk.write(*batch) for batch in batches))
    store = desk.catalog.get("c")
    assert store.info.documents == 9
    stored = store.document("all")
    assert stored is not None
    assert stored.text in {batch[1].text for batch in batches}
    for record in store.fetch([key for key, _ in store.bm25("paragraph", 1000)]).values():
        assert stored.text[record.start : record.end] == record.text


async def test_deleting_a_document_tells_whether_it_was_there(desk: Desk) -> None:
    await desk.write(SourceDocument("d", "text"))
    assert await desk.ingest.delete("c", ["e", "d"]) == ["d"]
    assert await desk.ingest.delete("c", ["d"]) == []


async def test_an_unknown_corpus_is_refused_before_embed_is_asked(desk: Desk) -> None:
    with pytest.raises(ApiError) as failure:
        await desk.ingest.write("nobody", entries(SourceDocument("d", "text")))
    assert failure.value.status == 404
    assert desk.embed.inputs == []


def change_vector(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], Any]:
    """Spoil the last vector of an answer."""

    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        last = answer["data"][-1]
        vector = np.frombuffer(base64.b64decode(last["embedding"]), "<f4").copy()
        last["embedding"] = encoded(change(vector))
        return answer

    return spoil


def with_nan(vector: Any) -> Any:
    vector[3] = np.nan
    return vector


BAD_ANSWERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "NaN": change_vector(with_nan),
    "infinity": change_vector(lambda vector: vector * np.inf),
    "zeros": change_vector(np.zeros_like),
    "not of length 1": change_vector(lambda vector: vector * 0.38),
    "another dimension": change_vector(lambda vector: vector[:-1]),
    "every vector of another dimension": lambda answer: {
        "data": [{"index": one["index"], "embedding": encoded([1.0])} for one in answer["data"]]
    },
    "one too few": lambda answer: answer | {"data": answer["data"][:-1]},
    "one too many": lambda answer: answer | {"data": [*answer["data"], answer["data"][0]]},
    "none": lambda answer: answer | {"data": []},
    "an index twice": lambda answer: (
        answer | {"data": [one | {"index": 0} for one in answer["data"]]}
    ),
    "an index out of range": lambda answer: (
        answer | {"data": [one | {"index": 99} for one in answer["data"]]}
    ),
    "half a number": lambda answer: (
        answer | {"data": [one | {"embedding": "AAA="} for one in answer["data"]]}
    ),
    "no base64": lambda answer: (
        answer | {"data": [one | {"embedding": "?"} for one in answer["data"]]}
    ),
    "numbers": lambda answer: (
        answer | {"data": [one | {"embedding": [1.0] * DIMENSION} for one in answer["data"]]}
    ),
    "a chunk that was cut": lambda answer: answer | {"truncated": [{"index": 0, "tokens_cut": 3}]},
    "a list": lambda answer: [answer],
    "null": lambda _: None,
    "no JSON": lambda _: Response("<html>busy</html>", media_type="text/html"),
    "an error": lambda _: Response("boom", status_code=500),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
async def test_nothing_is_stored_when_embed_answers_rubbish(
    tmp_path: Path, tokenizer: bytes, kind: str
) -> None:
    async with open_desk(tmp_path, Embed(tokenizer)) as desk:
        await desk.write(SourceDocument("old", "Kept as it is"))
        desk.embed.spoil = BAD_ANSWERS[kind]
        with pytest.raises(ApiError) as failure:
            await desk.write(SourceDocument("new", LONG), SourceDocument("old", "Lost?"))
        assert failure.value.status == 502, failure.value.message
        store = desk.catalog.get("c")
        assert (store.info.documents, store.info.writes) == (1, 1)
        stored = store.document("old")
        assert stored is not None
        assert stored.text == "Kept as it is"
        desk.embed.spoil = lambda answer: answer
        assert await desk.write(SourceDocument("new", LONG)) == [("new", "created")]


async def test_nothing_is_stored_when_embed_hangs_up(tmp_path: Path, tokenizer: bytes) -> None:
    class HangUp(Response):
        async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'{"data": [', "more_body": True})
            raise ConnectionAbortedError

    async with open_desk(tmp_path, Embed(tokenizer, spoil=lambda _: HangUp())) as desk:
        with pytest.raises(ApiError) as failure:
            await desk.write(SourceDocument("new", LONG))
        assert failure.value.status in (502, 503)
        assert desk.catalog.get("c").info.writes == 0


async def test_another_model_is_refused_with_the_way_out(desk: Desk) -> None:
    await desk.write(SourceDocument("d", "text"))
    for other in (
        replace(STAMP, model="other-model"),
        replace(STAMP, revision="ffff-int8"),
        replace(STAMP, dimension=STAMP.dimension - 1),
    ):
        desk.embed.stamp = other
        with pytest.raises(ApiError, match="start embed with the corpus's model") as failure:
            await desk.write(SourceDocument("d", "changed"))
        assert (failure.value.status, failure.value.code) == (409, "model_mismatch")
        assert other.model in failure.value.message
        assert STAMP.revision in failure.value.message
    assert desk.catalog.get("c").info.writes == 1


async def test_a_corpus_keeps_its_dimension_where_its_model_has_another_revision(
    desk: Desk,
) -> None:
    short, more, fewer = 8, DIMENSION, 4
    await desk.ingest.create(CorpusSpec("short"), dimension=short)
    for served, kept in ((more, short), (fewer, fewer)):
        desk.embed.stamp = ModelStamp(STAMP.model, "ffff-int8", served)
        cut = await target(desk.catalog.get("short").info, ReindexRequest(), desk.librarian)
        assert cut.stamp == ModelStamp(STAMP.model, "ffff-int8", kept)
    desk.embed.stamp = replace(STAMP, revision="ffff-int8")
    info, made = await desk.ingest.create(CorpusSpec("short"), embedder=STAMP.model)
    assert (info.dimension, made) == (short, False)
    desk.embed.stamp = replace(STAMP, model="other-model")
    cut = await target(info, ReindexRequest(embedder="other-model"), desk.librarian)
    assert cut.stamp.dimension == DIMENSION


async def test_vectors_of_another_revision_are_not_stored(desk: Desk) -> None:
    """embed was started anew with other weights after it had told which ones it has."""
    await desk.write(SourceDocument("d", "text"))
    desk.embed.spoil = lambda answer: answer | {"revision": "ffff-int8"}
    with pytest.raises(ApiError, match="ffff-int8") as failure:
        await desk.write(SourceDocument("d", "changed"))
    assert (failure.value.status, failure.value.code) == (409, "model_mismatch")
    assert desk.catalog.get("c").info.writes == 1
    desk.embed.spoil = lambda answer: answer | {"revision": STAMP.revision}
    assert await desk.write(SourceDocument("d", "changed")) == [("d", "replaced")]


async def test_nothing_more_is_parsed_once_nobody_waits(desk: Desk) -> None:
    await desk.write(SourceDocument("d", "text"))
    enter(RequestContext("id", Deadline.after_ms(0), LOCAL))
    with pytest.raises(ApiError) as failure:
        await desk.write(SourceDocument("e", "%PDF-1.7 would be refused if it were looked at"))
    assert (failure.value.status, failure.value.code) == (504, "deadline_exceeded")


async def test_a_corpus_cut_by_another_chunker_takes_no_more_documents(
    desk: Desk, tmp_path: Path
) -> None:
    folder = tmp_path / "corpora"
    desk.catalog.close()
    (folder / "old").mkdir()
    Database.create(folder / "old", CorpusSpec("old"), STAMP, "chunker-of-yore")
    catalog = Catalog.open(folder)
    async with serving(desk.embed.app()) as url:
        client = ServiceClient("embed", url, settings=Settings())
        ingest = Ingest(catalog, Librarian(client))
        with pytest.raises(ApiError, match="chunker-of-yore") as failure:
            await ingest.write("old", entries(SourceDocument("d", "text")))
        await client.close()
    assert (failure.value.status, failure.value.code) == (409, "chunker_mismatch")
    catalog.close()


async def test_chunks_longer_than_the_model_reads_are_refused(desk: Desk) -> None:
    with pytest.raises(ApiError, match="at most 256") as failure:
        await desk.ingest.create(CorpusSpec("long", chunk_tokens=512))
    assert (failure.value.status, failure.value.param) == (422, "chunk_tokens")
    assert [info.name for info in desk.catalog.list()] == ["c"]


async def test_a_tokenizer_that_is_none_is_refused(tmp_path: Path) -> None:
    async with open_desk(tmp_path, Embed(b"<html>")) as desk:
        with pytest.raises(ApiError, match="tokenizer") as failure:
            await desk.write(SourceDocument("d", "text"))
        assert (failure.value.status, failure.value.code) == (502, "bad_upstream")


async def test_without_embed_nothing_is_stored_and_the_way_out_is_told(tmp_path: Path) -> None:
    catalog = Catalog.open(tmp_path / "corpora")
    catalog.create(CorpusSpec("c"), STAMP)
    client = ServiceClient("embed", f"http://127.0.0.1:{free_port()}", settings=Settings())
    ingest = Ingest(catalog, Librarian(client))
    for attempt in (
        ingest.write("c", entries(SourceDocument("d", "text"))),
        ingest.create(CorpusSpec("new")),
    ):
        with pytest.raises(ApiError, match="refdesk up --only embed") as failure:
            await attempt
        assert failure.value.status == 503
    assert [info.writes for info in catalog.list()] == [0]
    await client.close()
    catalog.close()
