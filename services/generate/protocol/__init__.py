"""What goes over the wire of the writers: OpenAI's chat shapes and our extension `refdesk`.

Bodies of foreign clients: unknown fields are ignored. Our own extension object refuses them.
"""

from services.generate.protocol.answer import (
    AnnotationBody,
    AssistantMessage,
    AttemptBody,
    CallBody,
    CallFunction,
    ChatCompletion,
    Choice,
    DecisionBody,
    Extension,
    FailureBody,
    PassageBody,
    RuledOutBody,
    SignalsBody,
    Timings,
    UrlCitation,
    Usage,
    Verification,
)
from services.generate.protocol.chat import (
    MAX_QUESTION_CHARACTERS,
    ChatRequest,
    StreamOptions,
)
from services.generate.protocol.messages import (
    ContentPart,
    Message,
)
from services.generate.protocol.models import (
    ModelCard,
    ModelList,
)
from services.generate.protocol.options import (
    CorpusName,
    Options,
)
from services.generate.protocol.route import (
    MadeBody,
    ReasonBody,
    RouteAnswer,
    StepBody,
)

__all__ = [
    "MAX_QUESTION_CHARACTERS",
    "AnnotationBody",
    "AssistantMessage",
    "AttemptBody",
    "CallBody",
    "CallFunction",
    "ChatCompletion",
    "ChatRequest",
    "Choice",
    "ContentPart",
    "CorpusName",
    "DecisionBody",
    "Extension",
    "FailureBody",
    "MadeBody",
    "Message",
    "ModelCard",
    "ModelList",
    "Options",
    "PassageBody",
    "ReasonBody",
    "RouteAnswer",
    "RuledOutBody",
    "SignalsBody",
    "StepBody",
    "StreamOptions",
    "Timings",
    "UrlCitation",
    "Usage",
    "Verification",
]
