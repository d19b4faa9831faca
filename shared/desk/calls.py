"""Every call that the desk takes, as a value: what to send, and how to read the answer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, Unpack
from urllib.parse import quote

from pydantic import BaseModel

from shared.desk.errors import DeskError
from shared.desk.models import (
    Corpus,
    Document,
    DocumentPage,
    Ingested,
    NewDocument,
    Options,
    RecencyDefault,
    Retrieved,
    Turn,
    WhyNot,
)

# Where null is something else than what the desk does by default.
_NONE_IS_SAID = ("recency",)

Result = TypeVar("Result", covariant=True)
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One request. read: the answer's body as a value; raises ValueError where it is none.

    repeatable: whether sending it a second time, after a connection that broke, does the same.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    read: Callable[[bytes], Result]
    body: Mapping[str, Any] | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True


def retrieve(
    question: str | Sequence[Turn], corpora: str | Sequence[str], **options: Unpack[Options]
) -> Call[Retrieved]:
    """Find the passages that answer a question.

    question: a text, or a conversation whose last turn asks it. corpora: one name or several. What
    is None is left to the desk, but for `recency`: None is none at all. The options are those of
    POST /retrieve: docs/services/retrieve.md.
    """
    return Call("POST", "/retrieve", _as(Retrieved), _search(question, corpora, options))


def why_not(
    question: str | Sequence[Turn],
    corpora: str | Sequence[str],
    document_id: str,
    **options: Unpack[Options],
) -> Call[WhyNot]:
    """Say how far a document comes in a search, and why it is not among the hits.

    The other arguments are those of `retrieve`. Raises NotFoundError where no corpus has it.
    """
    body = {**_search(question, corpora, options), "document_id": document_id}
    return Call("POST", "/retrieve/why-not", _as(WhyNot), body)


def corpora() -> Call[list[Corpus]]:
    """The corpora that the key may read, by name."""
    return Call("GET", "/corpora", lambda body: _Corpora.model_validate_json(body).corpora)


def corpus(name: str) -> Call[Corpus]:
    """One corpus."""
    return Call("GET", _corpus_path(name), _as(Corpus))


def create_corpus(
    name: str,
    *,
    description: str | None = None,
    language: str | None = None,
    embedder: str | None = None,
    dimension: int | None = None,
    chunker: str | None = None,
    chunk_tokens: int | None = None,
    chunk_overlap: int | None = None,
    curate: bool | None = None,
    recency: RecencyDefault | None = None,
    readers: Sequence[str] | None = None,
) -> Call[Corpus]:
    """Make a corpus; nothing happens where it is there with these settings.

    What is None is what the desk has by default, or what a corpus that is there has. embedder: a
    model that embed serves, dimension: of its vectors. readers: names of keys and of their groups
    who may read it at all. Raises ConflictError where it is there with others.
    """
    settings = {
        "description": description,
        "language": language,
        "embedder": embedder,
        "dimension": dimension,
        "chunker": chunker,
        "chunk_tokens": chunk_tokens,
        "chunk_overlap": chunk_overlap,
        "curate": curate,
        "recency": recency,
        "readers": None if readers is None else list(readers),
    }
    given = {key: value for key, value in settings.items() if value is not None}
    return Call("PUT", _corpus_path(name), _as(Corpus), given)


def delete_corpus(name: str) -> Call[None]:
    """Remove a corpus with all its documents."""
    return Call("DELETE", _corpus_path(name), _nothing, repeatable=False)


def add_documents(
    corpus: str, documents: Iterable[NewDocument | Mapping[str, Any]], *, atomic: bool = False
) -> Call[Ingested]:
    """Store 1 to 256 documents; durable and searchable once it returns.

    One that is at fault is among the results as `failed`, and the others are stored. Raises a
    RefusedError where all of them are at fault, or, if they are atomic, any: none is stored then.
    """
    bodies = [
        document.model_dump(exclude_unset=True)
        if isinstance(document, NewDocument)
        else dict(document)
        for document in documents
    ]
    path = f"{_corpus_path(corpus)}/documents"
    return Call("POST", path, _as(Ingested), {"documents": bodies, "atomic": atomic})


def document_page(corpus: str, *, limit: int = 100, after: str | None = None) -> Call[DocumentPage]:
    """A page of documents in the order of their ids, those after the id `after`."""
    params = {"limit": str(limit)} | ({} if after is None else {"after": after})
    return Call("GET", f"{_corpus_path(corpus)}/documents", _as(DocumentPage), params=params)


def document(corpus: str, document_id: str) -> Call[Document]:
    """A whole document, as parsed."""
    return Call("GET", _document_path(corpus, document_id), _as(Document))


def delete_document(corpus: str, document_id: str) -> Call[None]:
    """Remove a document."""
    return Call("DELETE", _document_path(corpus, document_id), _nothing, repeatable=False)


def _search(
    question: str | Sequence[Turn], corpora: str | Sequence[str], options: Options
) -> dict[str, Any]:
    """A search's body."""
    asked = {"query": question} if isinstance(question, str) else {"messages": list(question)}
    names = [corpora] if isinstance(corpora, str) else list(corpora)
    given = {
        name: value for name, value in options.items() if value is not None or name in _NONE_IS_SAID
    }
    return {**asked, "corpora": names, **given}


class _Corpora(BaseModel):
    corpora: list[Corpus]


def _as(model: type[Model]) -> Callable[[bytes], Model]:
    return model.model_validate_json


def _nothing(_: bytes) -> None:
    return None


def _corpus_path(name: str) -> str:
    return f"/corpora/{_segment(name)}"


def _document_path(corpus: str, document_id: str) -> str:
    return f"{_corpus_path(corpus)}/documents/{_segment(document_id)}"


def _segment(name: str) -> str:
    """Of a path. Raises DeskError for what can be none."""
    try:
        if name.strip("."):  # dots alone would be taken for a step up, even percent-encoded
            return quote(name, safe="")
    except UnicodeEncodeError:
        pass
    raise DeskError(f"{name!r} can't be the name of a corpus or a document in an address")
