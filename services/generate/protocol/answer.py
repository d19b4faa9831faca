"""An answer: OpenAI's chat shapes and our extension `refdesk`."""

from typing import Literal

from services.generate.protocol.base import Own


class UrlCitation(Own):
    """Characters [start_index, end_index) of the content rest on this document."""

    start_index: int
    end_index: int
    title: str
    url: str


class AnnotationBody(Own):
    """OpenAI's form of a citation."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class CallFunction(Own):
    """What is to be called. arguments: a JSON object that fits the tool's parameters."""

    name: str
    arguments: str


class CallBody(Own):
    """A call that the client is asked to make."""

    id: str
    type: Literal["function"] = "function"
    function: CallFunction


class AssistantMessage(Own):
    """The answer. content has inline markers ``[1]`` that name passages by their n; it is null
    where the answer is tool calls."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[CallBody] | None = None
    refusal: None = None
    annotations: list[AnnotationBody]


class Choice(Own):
    """The only choice."""

    index: Literal[0] = 0
    message: AssistantMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: None = None


class Usage(Own):
    """Tokens that language models read and wrote for this answer, failed drafts included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class PassageBody(Own):
    """A passage that the answer was written from, with the number it is cited by."""

    n: int
    id: str
    document_id: str
    corpus: str
    title: str | None
    url: str | None
    text: str
    score: float


class SignalsBody(Own):
    """The desk's signals, passed on."""

    top_score: float
    margin: float
    agreement: float
    coverage: float
    documents: int


class FailureBody(Own):
    """A failed check of verification. evidence: the source sentence the claim was held against."""

    check: str
    detail: str
    evidence: str = ""


class Verification(Own):
    """How the first draft fared. Where it failed, another answer is shown: see `DecisionBody`."""

    passed: bool
    failures: list[FailureBody]


class RuledOutBody(Own):
    """A model that might not write this time; rule: a word for programs, why: for people."""

    model: str
    rule: str
    why: str


class DecisionBody(Own):
    """Who wrote what is shown, and why.

    answered: False where the content only says that the sources do not answer. reasons: in order.
    escalated_from: ``tier:endpoint`` whose draft is not shown: the first that failed its checks,
    which the verification is told of, or the first writer that had no draft; null where there is
    none. rule: what decided. data_class: of question and passages. policy: SHA-256 of the policy's
    content. ruled_out: the models that might not write.
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


class AttemptBody(Own):
    """A model that was asked for a draft.

    ended: ``drafted``, ``failed``, or ``stopped`` where nobody waited any more. exact: whether the
    tokens were counted by the server, not estimated. cost_nano_dollars: null without a price.
    """

    model: str
    endpoint: str
    ended: str
    prompt_tokens: int
    completion_tokens: int
    exact: bool
    cost_nano_dollars: int | None


class Timings(Own):
    """Milliseconds of each stage; total is all of it, waiting included."""

    retrieve: float
    route: float
    draft: float
    verify: float
    total: float


class Extension(Own):
    """What only this service tells about an answer.

    cached: whether it was given before. attempts: who was asked for it this time, in order.
    cost_nano_dollars: of all attempts, null where one has no price.
    """

    decision: DecisionBody
    attempts: list[AttemptBody]
    cost_nano_dollars: int | None
    cached: bool
    passages: list[PassageBody]
    signals: SignalsBody
    degraded: list[str]
    timings_ms: Timings


class ChatCompletion(Own):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    refdesk: Extension
