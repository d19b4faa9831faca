"""What goes over the wire of the writers: OpenAI's chat shapes and our extension `refdesk`.

Bodies of foreign clients: unknown fields are ignored. Our own extension object refuses them.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.errors import ApiError, shown

MAX_QUESTION_CHARACTERS = 8192  # the desk takes no longer query
_MAX_MESSAGES = 512
_MAX_CONVERSATION_CHARACTERS = 400_000
_CORPUS_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Own(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- requests --------------------------------------------------------------------------------


class ContentPart(_Foreign):
    """A part of a message's content; only parts of type ``text`` are taken."""

    type: str
    text: str = ""


class Message(_Foreign):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """The content as one text; parts are joined by line breaks."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content)


class StreamOptions(_Foreign):
    """include_usage: send a last chunk with the usage."""

    include_usage: bool = False


def _names_a_corpus(value: str) -> str:
    if not re.fullmatch(_CORPUS_NAME, value):
        raise ValueError(
            "can't be the name of a corpus: it has 1 to 63 small letters, digits, '-' and '_', the "
            "first a letter or digit"
        )
    return value


CorpusName = Annotated[
    str, AfterValidator(_names_a_corpus), Field(json_schema_extra={"pattern": _CORPUS_NAME})
]


class Options(_Own):
    """Our extension of the request: where to look, how much to read, and who may write.

    corpora: names, default is the service's setting or else every corpus that the caller may read.
    top_k: passages. max_tokens: budget of all passages together, in tokens of the desk's embedder.
    curate: whether the curator reorders the candidates; None: as the corpora say.
    data_class: of the question, by the policy's names; the strictest of this, what is found in the
    texts, the corpora's and the default one counts. tiers: those that may write, None for all.
    budget_nano_dollars: what one draft may cost at most.
    """

    corpora: Annotated[list[CorpusName], Field(min_length=1, max_length=16)] | None = None
    top_k: Annotated[int, Field(ge=1, le=50)] = 5
    max_tokens: Annotated[int, Field(ge=32, le=100_000)] = 1200
    curate: bool | None = None
    data_class: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    tiers: Annotated[list[str], Field(min_length=1, max_length=64)] | None = None
    budget_nano_dollars: Annotated[int, Field(ge=0, le=10**15)] | None = None


class ChatRequest(_Foreign):
    """The body of POST /v1/chat/completions. The last user message is the question.

    max_tokens, max_completion_tokens: longest draft of a language model; by default the service's.
    """

    model: Annotated[str, Field(max_length=200)] = "auto"
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MAX_MESSAGES)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: Any = None
    refdesk: Options = Options()

    @field_validator("refdesk", mode="before")
    @classmethod
    def _null_is_default(cls, value: object) -> object:
        return Options() if value is None else value

    @field_validator("stream", mode="before")
    @classmethod
    def _null_is_whole(cls, value: object) -> object:
        return False if value is None else value

    @model_validator(mode="after")
    def _conversation_is_bounded(self) -> Self:
        if sum(len(message.text) for message in self.messages) > _MAX_CONVERSATION_CHARACTERS:
            raise ValueError(
                f"messages hold over {_MAX_CONVERSATION_CHARACTERS:,} characters; send fewer turns"
            )
        return self

    def question(self) -> str:
        """The text of the last user message, stripped.

        Raises ApiError 400 where there is none, it is blank or too long, or holds something that is
        not text.
        """
        users = [place for place, one in enumerate(self.messages) if one.role == "user"]
        if not users:
            raise _bad("messages", "no message has the role 'user': there is no question to answer")
        place = users[-1]
        where = f"messages.{place}.content"
        message = self.messages[place]
        if isinstance(message.content, list):
            for part in message.content:
                if part.type != "text":
                    raise _bad(
                        where, f"parts of type '{shown(part.type)}' are not taken; send text alone"
                    )
        text = message.text.strip()
        if not text:
            raise _bad(where, "the last user message is blank: there is no question to answer")
        if len(text) > MAX_QUESTION_CHARACTERS:
            raise _bad(
                where,
                f"the question has {len(text):,} characters, {MAX_QUESTION_CHARACTERS:,} are the "
                "most; put long texts into a corpus instead",
            )
        return text

    @property
    def turns(self) -> int:
        """Messages of the user."""
        return sum(message.role == "user" for message in self.messages)

    @property
    def needs(self) -> frozenset[str]:
        """What a model must be able to do beyond text, by the names of `policy.schema`."""
        kind = self.response_format.get("type") if isinstance(self.response_format, dict) else None
        needs = {"tools"} if self.tools or self.functions else set()
        return frozenset(needs | ({"schema"} if kind in ("json_schema", "json_object") else set()))

    def refuse_what_is_not_done(self) -> None:
        """Raise ApiError 400 where the request asks for what this service does not do."""
        if self.n is not None and self.n != 1:
            raise _bad("n", "only one answer is given: leave n out or send 1")
        if self.tools or self.functions:
            raise _bad("tools", "tools are not called: leave them out")


def _bad(param: str, message: str) -> ApiError:
    return ApiError(400, "invalid_request", f"{param}: {message}", param=param)


# --- answers ---------------------------------------------------------------------------------


class UrlCitation(_Own):
    """Characters [start_index, end_index) of the content rest on this document."""

    start_index: int
    end_index: int
    title: str
    url: str


class AnnotationBody(_Own):
    """OpenAI's form of a citation."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class AssistantMessage(_Own):
    """The answer. content has inline markers ``[1]`` that name passages by their n."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[AnnotationBody]


class Choice(_Own):
    """The only choice."""

    index: Literal[0] = 0
    message: AssistantMessage
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class Usage(_Own):
    """Tokens that language models read and wrote for this answer, failed drafts included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class PassageBody(_Own):
    """A passage that the answer was written from, with the number it is cited by."""

    n: int
    id: str
    document_id: str
    corpus: str
    title: str | None
    url: str | None
    text: str
    score: float


class SignalsBody(_Own):
    """The desk's signals, passed on."""

    top_score: float
    margin: float
    agreement: float
    coverage: float
    documents: int


class FailureBody(_Own):
    """A failed check of verification. evidence: the source sentence the claim was held against."""

    check: str
    detail: str
    evidence: str = ""


class Verification(_Own):
    """How the first draft fared; where it failed, the answer shown is another, see `Decision`."""

    passed: bool
    failures: list[FailureBody]


class RuledOutBody(_Own):
    """A model that might not write this time; rule: a word for programs, why: for people."""

    model: str
    rule: str
    why: str


class DecisionBody(_Own):
    """Who wrote what is shown, and why.

    answered: False where the content only says that the sources do not answer. reasons: in order.
    escalated_from: ``tier:endpoint`` whose draft is not shown, or null. rule: what decided.
    data_class: of question and passages. policy: SHA-256 of the policy's content. ruled_out: the
    models that might not write.
    """

    tier: str
    endpoint: str
    model: str
    answered: bool
    reasons: list[str]
    verification: Verification
    escalated_from: str | None
    rule: str
    data_class: str
    policy: str
    ruled_out: list[RuledOutBody]


class Timings(_Own):
    """Milliseconds of each stage; total is all of it, waiting included."""

    retrieve: float
    route: float
    draft: float
    verify: float
    total: float


class Extension(_Own):
    """What only this service tells about an answer."""

    decision: DecisionBody
    passages: list[PassageBody]
    signals: SignalsBody
    degraded: list[str]
    timings_ms: Timings


class ChatCompletion(_Own):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    refdesk: Extension


class ReasonBody(_Own):
    """What counted in a decision; weight: in a score, 1 for what decided alone, 0 if only told."""

    name: str
    weight: float
    seen: str


class StepBody(_Own):
    """A tier, with its models that may write: the first, then its fallbacks."""

    tier: str
    models: list[str]


class RouteAnswer(_Own):
    """Where a question would go, and why. See `routing.router.Decision`.

    declines: the sources don't say, so that no writer would be asked. confidence: of the evidence.
    """

    tier: str | None
    model: str | None
    version: str
    fallbacks: list[str]
    escalation: list[StepBody]
    last_resort: str | None
    declines: bool
    checks: str
    rule: str
    data_class: str
    data_class_source: str
    policy: str
    reasons: list[ReasonBody]
    ruled_out: list[RuledOutBody]
    confidence: float
    signals: SignalsBody
    degraded: list[str]
    timings_ms: dict[str, float]


class ModelCard(_Own):
    """A name that `model` may have."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "refdesk"


class ModelList(_Own):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
