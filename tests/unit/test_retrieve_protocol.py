"""What the desk takes and refuses in its bodies."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from services.retrieve.corpus.protocol import Document, DocumentBatch, Unfit
from services.retrieve.corpus.settings_protocol import CorpusSettings
from services.retrieve.protocol import RetrieveRequest


def first_fault(model: type[BaseModel], body: dict[str, Any]) -> tuple[str, str]:
    """Where and what the first fault of a body is, as the API tells it."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    fault = caught.value.errors()[0]
    return ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")


def fault_of(body: dict[str, Any], place: int = 0) -> tuple[str | None, str]:
    """Where and what is wrong with a document of a batch, which as a whole is none the worse."""
    found = DocumentBatch.model_validate(body).documents[place]
    assert isinstance(found, Unfit)
    error = found.error("documents", place)
    return error.param, error.message


def question(**more: Any) -> dict[str, Any]:
    return {"query": "what is a chunk?", "corpora": ["handbook"], **more}


def batch(*documents: dict[str, Any]) -> dict[str, Any]:
    return {"documents": [{"id": "a", "text": "some text", **one} for one in documents]}


def test_a_question_needs_only_a_query_and_a_corpus() -> None:
    request = RetrieveRequest.model_validate(question())
    assert (request.top_k, request.candidates, request.rerank_window) == (5, 100, 50)
    assert request.arms is None
    assert request.fusion.k == 60
    assert request.curate is None
    assert request.max_tokens is None


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (question(query=""), "query"),
        (question(query=" \n\t "), "query"),
        (question(query="x" * 8193), "query"),
        (question(query=None), "query"),
        (question(corpora=[]), "corpora"),
        (question(corpora=["a", "a"]), "corpora"),
        (question(corpora=[f"c{n}" for n in range(17)]), "corpora"),
        (question(top_k=0), "top_k"),
        (question(top_k=-1), "top_k"),
        (question(top_k=10**9), "top_k"),
        (question(top_k=2.5), "top_k"),
        (question(candidates=0), "candidates"),
        (question(candidates=1001), "candidates"),
        (question(rerank_window=-1), "rerank_window"),
        (question(rerank_window=201), "rerank_window"),
        (question(arms=[]), "arms"),
        (question(arms=["bm25", "bm25"]), "arms"),
        (question(arms=["psychic"]), "arms.0"),
        (question(fusion={"method": "magic"}), "fusion.method"),
        (question(fusion={"k": 0}), "fusion.k"),
        (question(fusion={"k": float("nan")}), "fusion.k"),
        (question(fusion={"weights": {"bm25": 0}}), "fusion.weights.bm25"),
        (question(fusion={"weights": {"bm25": 5e-324}}), "fusion.weights.bm25"),
        (question(fusion={"weights": {"bm25": float("inf")}}), "fusion.weights.bm25"),
        (question(fusion={"weights": {"splade": 1}}), "fusion.weights.splade"),
        (question(min_score=1.01), "min_score"),
        (question(min_score=float("nan")), "min_score"),
        (question(max_tokens=0), "max_tokens"),
        (question(topk=3), "topk"),
    ],
)
def test_a_wrong_field_of_a_question_is_refused_by_name(body: dict[str, Any], where: str) -> None:
    assert first_fault(RetrieveRequest, body)[0] == where


def test_a_blank_query_is_told_so() -> None:
    assert "blank" in first_fault(RetrieveRequest, question(query="  "))[1]


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"id": ""}, "documents.0.id"),
        ({"id": "  "}, "documents.0.id"),
        ({"id": "a\nb"}, "documents.0.id"),
        ({"id": "a\x00b"}, "documents.0.id"),
        ({"id": "x" * 513}, "documents.0.id"),
        ({"id": 7}, "documents.0.id"),
        ({"text": ""}, "documents.0.text"),
        ({"text": " \n "}, "documents.0.text"),
        ({"text": "x" * 2_000_001}, "documents.0.text"),
        ({"title": "t" * 1025}, "documents.0.title"),
        ({"url": "javascript:alert(1)"}, "documents.0.url"),
        ({"url": " JavaScript:alert(1)"}, "documents.0.url"),
        ({"format": "odt"}, "documents.0.format"),
        ({"author": "me"}, "documents.0.author"),
        ({"metadata": {"": "x"}}, "documents.0.metadata..[key]"),
        ({"metadata": {f"k{n}": 1 for n in range(65)}}, "documents.0.metadata"),
        ({"metadata": {"a": {"b": 1}}}, "documents.0.metadata.a"),
        ({"metadata": {"a": None}}, "documents.0.metadata.a"),
        ({"metadata": {"a": [1]}}, "documents.0.metadata.a"),
        ({"metadata": {"a": ["x"] * 257}}, "documents.0.metadata.a"),
        ({"metadata": {"a": "x" * 4097}}, "documents.0.metadata.a"),
        ({"metadata": {"a": float("nan")}}, "documents.0.metadata.a"),
        ({"metadata": {"a": 2**63}}, "documents.0.metadata.a"),
        ({"metadata": {f"k{n}": "x" * 4096 for n in range(17)}}, "documents.0.metadata"),
    ],
)
def test_a_wrong_field_of_a_document_is_refused_by_name(
    document: dict[str, Any], where: str
) -> None:
    assert fault_of(batch(document))[0] == where


def test_a_document_without_id_or_text_is_refused_by_name() -> None:
    assert fault_of({"documents": [{"text": "x"}]})[0] == "documents.0.id"
    assert fault_of({"documents": [{"id": "x"}]})[0] == "documents.0.text"


def test_the_same_id_twice_in_a_request_is_refused_naming_both_places() -> None:
    where, what = fault_of(batch({}, {"id": "b"}, {}), 2)
    assert where == "documents.2.id"
    assert "documents.0" in what


def test_no_documents_and_too_many_are_refused() -> None:
    assert first_fault(DocumentBatch, batch())[0] == "documents"
    assert (
        first_fault(DocumentBatch, batch(*[{"id": str(n)} for n in range(257)]))[0] == "documents"
    )


def test_metadata_keeps_its_types() -> None:
    metadata = {"a": "1", "b": 1, "c": 1.5, "d": True, "e": ["x", "y"], "f": []}
    kept = Document.model_validate(batch({"metadata": metadata})["documents"][0]).metadata
    assert kept == metadata
    assert [type(value) for value in kept.values()] == [str, int, float, bool, list, list]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"language": "l" * 65}, "language"),
        ({"chunk_tokens": 31}, "chunk_tokens"),
        ({"chunk_overlap": -1}, "chunk_overlap"),
        ({"description": "d" * 2001}, "description"),
        ({"model": "mine"}, "model"),
    ],
)
def test_a_wrong_setting_of_a_corpus_is_refused_by_name(body: dict[str, Any], where: str) -> None:
    assert first_fault(CorpusSettings, body)[0] == where
