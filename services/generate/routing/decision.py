"""What routing decides, as values."""

from dataclasses import dataclass
from enum import StrEnum

from services.generate.policy.schema import EscalationReason


class Against(StrEnum):
    """What rules a model out, in the order in which it is looked at."""

    RETIRED = "retired"
    CANDIDATE = "candidate"
    COMPLIANCE = "compliance"
    KEY_TIERS = "key_tiers"
    TIERS = "allowed_tiers"
    CAPABILITY = "capability"
    CONTEXT = "context"
    BUDGET = "budget"
    DEADLINE = "deadline"


# What a caller may not have, whatever the request is.
FORBIDDEN = frozenset({Against.COMPLIANCE, Against.KEY_TIERS})
# What holds for the last resort, too; it costs nothing, takes no time and cuts what it reads.
FOR_ALL = FORBIDDEN | {Against.RETIRED, Against.CANDIDATE, Against.TIERS}


class Decided(StrEnum):
    """Names of decisions that no rule of the policy made."""

    REQUESTED = "requested"
    SCORED = "scored"
    LEARNED = "learned"
    NO_PASSAGES = "no_passages"
    NO_RULE = "no_rule"


class Told(StrEnum):
    """Names of reasons that decide nothing."""

    DATA_CLASS = "data_class"
    INTENT = "intent"
    TIER_SKIPPED = "tier_skipped"
    HISTORY_CUT = "history_cut"


@dataclass(frozen=True)
class Reason:
    """What counted. name: `Decided`, `Told`, a rule, a feature of the score, a reason to escalate;
    after the decision, `Happened` of answer/outcome.py. weight: in a score; 1.0 for what decided
    alone, 0.0 for what is only told. seen: of it, for people.
    """

    name: str
    weight: float
    seen: str

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}"


@dataclass(frozen=True)
class RuledOut:
    """A model that may not write this time. why: for people."""

    model: str
    rule: Against
    why: str


@dataclass(frozen=True)
class Step:
    """A tier with the models of it that may write, the first before its fallbacks.

    checks: the profile that their drafts are verified by.
    """

    tier: str
    chain: tuple[str, ...]
    checks: str


@dataclass(frozen=True)
class Escalated:
    """A question that began at a dearer tier than it would have. source: that cheaper tier."""

    reason: EscalationReason
    source: str


@dataclass(frozen=True)
class Decision:
    """Where a question goes.

    tier, model, version: who is asked first; None where nobody is. chain: that model and its
    fallbacks. escalation: the dearer tiers that may follow, as many as the policy has hops.
    escalated: why it begins at a dearer tier, None where it doesn't.
    declines: the sources don't say, so that no writer is asked. last_resort: the extractive model
    for when no draft can be shown, where it may see the data. refused: why a tier or model that was
    asked for may not write. checks: the profile of verification. data_class, source: see
    classify.py. rule: the name of what decided. policy: its fingerprint.
    """

    tier: str | None
    model: str | None
    version: str
    chain: tuple[str, ...]
    escalation: tuple[Step, ...]
    declines: bool
    last_resort: str | None
    refused: RuledOut | None
    checks: str
    data_class: str
    source: str
    rule: str
    reasons: tuple[Reason, ...]
    ruled_out: tuple[RuledOut, ...]
    policy: str
    escalated: Escalated | None = None
