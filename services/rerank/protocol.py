"""Request and response bodies of rerank, as the clients of each API that it speaks know them.

`/rerank` takes two forms and tells them apart by the body: `documents` is the form of Cohere, Jina
and vLLM, `texts` that of text-embeddings-inference (TEI). `/score` is vLLM's, `/v1/ranking` NIM's.
Fields of foreign clients that mean nothing here are ignored, and a null is an absent field: that is
how the clients of Cohere and others send an option that was not set.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

MAX_DOCUMENTS = 4096
MAX_CHARACTERS = 1_000_000


def _has_words(value: str) -> str:
    if not value.strip():
        raise ValueError("the query is blank")
    return value


def _texts(value: Any) -> Any:
    """The text of each document that came as an object."""
    if not isinstance(value, list):
        return value
    return [one["text"] if isinstance(one, dict) and "text" in one else one for one in value]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _token_limit(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError("send a number of tokens, or -1 for the model's window")
    return value


def _capitalised(value: Any) -> Any:
    return value.capitalize() if isinstance(value, str) else value


# 0 is no false, and "yes" no true.
Flag = Annotated[bool, Field(strict=True)]
Query = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS), AfterValidator(_has_words)]
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class TextObject(BaseModel):
    """A text, where an API wraps it in an object."""

    text: Text


class QueryObject(BaseModel):
    """A query, where an API wraps it in an object."""

    text: Query


def _optional_may_be_null(schema: dict[str, Any]) -> None:
    """Let the document say of each optional field that null is taken for its absence."""
    for name, field in schema["properties"].items():
        forms = field.get("anyOf", [field])
        if name not in schema.get("required", ()) and {"type": "null"} not in forms:
            told = {key: field.pop(key) for key in ("default", "title") if key in field}
            schema["properties"][name] = {"anyOf": [*forms, {"type": "null"}], **told}


class Body(BaseModel):
    """What all requests have in common. model: another than the one that is served is a 404."""

    model_config = ConfigDict(extra="ignore", json_schema_extra=_optional_may_be_null)

    model: str | None = Field(None, max_length=256)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {field: one for field, one in value.items() if one is not None}


class RerankRequest(Body):
    """A query and the documents to judge: the form of Cohere, Jina and vLLM.

    documents: texts, or objects with a `text`. top_n: answer with the best ones only; without it
    every document is answered. return_documents: repeat each text beside its score. raw_scores:
    the model's own score instead of the relevance. max_tokens_per_doc: read so many tokens of each
    document at most, its special ones not counted. truncate_prompt_tokens: the same under vLLM's
    name, -1 for the model's window; where both are sent, the smaller one holds.
    """

    query: Query
    documents: Annotated[
        list[Text],
        Field(min_length=1, max_length=MAX_DOCUMENTS),
        BeforeValidator(
            _texts,
            json_schema_input_type=Annotated[
                list[Text | TextObject], Field(min_length=1, max_length=MAX_DOCUMENTS)
            ],
        ),
    ]
    top_n: int | None = Field(None, ge=1, strict=True)
    return_documents: Flag = False
    raw_scores: Flag = False
    max_tokens_per_doc: int | None = Field(None, ge=1, strict=True)
    truncate_prompt_tokens: Annotated[int, Field(strict=True), AfterValidator(_token_limit)] = -1

    @property
    def max_tokens(self) -> int | None:
        """Tokens to read of each document; None for all that the model's window holds."""
        limits = (self.max_tokens_per_doc, self.truncate_prompt_tokens)
        return min((limit for limit in limits if limit is not None and limit > 0), default=None)


class TeiRequest(Body):
    """A query and the texts to judge: the form of text-embeddings-inference.

    truncate: false refuses a query or text that is longer than the model's window; otherwise it is
    read as far as the window goes. truncation_direction: which side of a longer text is cut off.
    raw_scores: the model's own score instead of the relevance. return_text: repeat each text.
    """

    query: Query
    texts: list[Text] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    truncate: Flag = True
    truncation_direction: Annotated[
        Literal["Left", "Right"],
        BeforeValidator(
            _capitalised, json_schema_input_type=Literal["left", "right", "Left", "Right"]
        ),
    ] = "Right"
    raw_scores: Flag = False
    return_text: Flag = False


def is_tei(body: Any) -> bool:
    """Whether a parsed body is in the form of text-embeddings-inference."""
    return isinstance(body, dict) and body.get("texts") is not None


def _by_form(value: Any, _: ValidatorFunctionWrapHandler) -> TeiRequest | RerankRequest:
    # A union's own errors would name every field of both forms.
    return (TeiRequest if is_tei(value) else RerankRequest).model_validate(value)


AnyRerankRequest = Annotated[TeiRequest | RerankRequest, WrapValidator(_by_form)]


class ScoreRequest(Body):
    """Pairs of texts: one with each of many, or as many with as many, in order."""

    text_1: Annotated[
        list[Query],
        Field(
            min_length=1,
            max_length=MAX_DOCUMENTS,
            validation_alias=AliasChoices("text_1", "queries"),
        ),
        BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    ]
    text_2: Annotated[
        list[Text],
        Field(
            min_length=1,
            max_length=MAX_DOCUMENTS,
            validation_alias=AliasChoices("text_2", "documents"),
        ),
        BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    ]
    truncate_prompt_tokens: Annotated[int, Field(strict=True), AfterValidator(_token_limit)] = -1

    @field_validator("text_2")
    @classmethod
    def _pairs(cls, value: list[str], info: ValidationInfo) -> list[str]:
        first = info.data.get("text_1", value)  # absent where it was found wrong itself
        if len(first) not in (1, len(value)):
            raise ValueError(
                f"{len(first)} texts can't be paired with {len(value)}: send one and any number, "
                "or equally many"
            )
        return value


class RankingRequest(Body):
    """NIM's form. truncate: NONE refuses what is longer than the window, END cuts it there."""

    query: QueryObject
    passages: list[TextObject] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    truncate: Literal["NONE", "END"] = "END"


class Truncated(BaseModel):
    """A document that was not read whole: its index and how many of its tokens were left out."""

    index: int
    tokens_cut: int


class Usage(BaseModel):
    """Tokens of query and documents, as the model reads them; both fields are the same number."""

    prompt_tokens: int
    total_tokens: int


class Report(BaseModel):
    """What the object forms tell beside the scores.

    usage: absent where a remote model does not tell its tokens. truncated: documents that were not
    read whole; absent where all were. query_tokens_cut: how many tokens of the query were left out;
    absent where none were.
    """

    usage: Usage | None = None
    truncated: list[Truncated] | None = None
    query_tokens_cut: int | None = None


class RerankResult(BaseModel):
    """One document's place: its index in the request and its relevance, 0..1 unless raw."""

    index: int
    relevance_score: float
    document: TextObject | None = None


class RerankResponse(Report):
    """Results, best first, equal scores by index. `meta` is what Cohere's clients read.

    tokens_saved: tokens of the documents that `top_n` left out, so that they need not be paid for
    further on; absent where it left none out.
    """

    id: str
    model: str
    results: list[RerankResult]
    tokens_saved: int | None = None
    meta: dict[str, dict[str, str | int]]


class Rank(BaseModel):
    """One text's place in TEI's bare list."""

    index: int
    score: float
    text: str | None = None


class PairScore(BaseModel):
    """The relevance of one pair, 0..1."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreResponse(Report):
    """The score of each pair, in the order of the request."""

    id: str
    object: Literal["list"] = "list"
    model: str
    data: list[PairScore]


class Ranking(BaseModel):
    """One passage's place: `logit` is the model's own score."""

    index: int
    logit: float


class RankingResponse(Report):
    """All passages, best first, equal scores by index."""

    rankings: list[Ranking]
