"""The way of an answer over writers that do as they are told: who is asked, what comes of it."""

from collections.abc import Callable

from services.generate.answer.escalate import respond
from services.generate.answer.outcome import Outcome, Spending
from services.generate.peers.librarian import Librarian
from services.generate.policy.schema import Policy
from services.generate.prompting.chat import PLAIN as CHAT
from services.generate.prompting.chat import Chat
from services.generate.reading.evidence import gather
from services.generate.reading.passages import Passage, Signals
from services.generate.reading.question import features
from services.generate.routing.decision import Decision
from services.generate.routing.features import RoutingFeatures
from services.generate.tiers.endpoint import Draft, DraftRequest
from services.generate.tiers.extractive import ExtractiveEndpoint
from services.generate.verification.jury import Jury
from shared.client import ServiceClient
from shared.errors import ApiError
from tests.writers import nowhere

MODELS = ("cheap-a", "cheap-b", "dear", "quote")
TIERS = ("cheap", "dearer")
CLASSES = ("public", "internal", "confidential", "restricted")
QUESTION = "Which port does rerank listen on?"
PASSAGES = (
    Passage(1, "p#0", "p", "hr", "Ports", None, "The rerank service listens on port 8002.", 0.9),
)
EVIDENCE = gather(QUESTION, PASSAGES)
JURY = Jury(Librarian(ServiceClient("embed", nowhere())), None)  # no profile here asks it
PLAIN = RoutingFeatures(QUESTION, features(QUESTION), Signals(documents=1), 0.9)
BEHAVIOURS = ("fails", "lies")  # what leads on to another writer; "declines", "answers" do not


class Writer:
    """An endpoint that does as it is told and notes that it was asked."""

    def __init__(self, name: str, behaviour: str, asked: list[str]) -> None:
        self.name = self.model = name
        self._behaviour = behaviour
        self._asked = asked

    async def draft(self, request: DraftRequest) -> Draft:
        self._asked.append(self.name)
        if self._behaviour == "fails":
            raise ApiError(503, "unreachable", "nobody there")
        text = {
            "lies": "The rerank service listens on port 9999. [1]",
            "declines": "",
            "answers": "The rerank service listens on port 8002. [1]",
        }[self._behaviour]
        return Draft(text, "stop", self.model)

    async def close(self) -> None:
        """Hold nothing."""


class Quote(ExtractiveEndpoint):
    """The last resort, which notes that it was asked."""

    def __init__(self, asked: list[str]) -> None:
        super().__init__(0.0)
        self._asked = asked

    async def draft(self, request: DraftRequest) -> Draft:
        self._asked.append("quote")
        return await super().draft(request)


def policy_of(allowed: dict[str, tuple[str, ...]], *, low_confidence: bool = True) -> Policy:
    """A policy of these models. allowed: those of each class."""
    reasons = ["validator_failed", "tier_unavailable"]
    server = {"kind": "openai", "url": "http://127.0.0.1:1", "price": {"input": 0, "output": 0}}
    return Policy.model_validate(
        {
            "version": 1,
            "classes": CLASSES,
            "default_class": "public",
            "corpora": {"hr": "internal"},
            "models": {
                **{name: {"tier": "cheap", "model": name, **server} for name in MODELS[:2]},
                "dear": {"tier": "dearer", "model": "dear", **server},
                "quote": {"tier": "cheap", "kind": "extractive"},
            },
            "tiers": {"cheap": {"models": MODELS[:2]}, "dearer": {"models": ["dear"]}},
            "compliance": allowed,
            "rules": [
                {
                    "name": "lift",
                    "when": {"flagged": True},
                    "then": {"escalate": "flagged_complex"},
                },
                {"name": "all", "then": {"tier": "cheap"}},
            ],
            "escalation": {
                "max_hops": 2,
                "reasons": [*reasons, "low_confidence"] if low_confidence else reasons,
            },
            "last_resort": "quote",
        }
    )


async def outcome_of(
    decision: Decision,
    policy: Policy,
    behaviours: tuple[str, ...],
    writer: Callable[[str, str, list[str]], Writer] = Writer,
    chat: Chat = CHAT,
) -> tuple[Outcome, list[str]]:
    """What becomes of the question, and who was asked. behaviours: of all models but the quote.
    chat: what the question is asked in."""
    asked: list[str] = []
    writers = {
        name: writer(name, behaviour, asked)
        for name, behaviour in zip(MODELS[:3], behaviours, strict=True)
    }
    outcome = await respond(
        QUESTION,
        PASSAGES,
        EVIDENCE,
        decision,
        policy,
        {**writers, "quote": Quote(asked)},
        max_tokens=100,
        spending=Spending(),
        jury=JURY,
        chat=chat,
    )
    return outcome, asked
