"""Which drafts of an answer were verified, and whether they passed. A pure function."""

from services.generate.answer.outcome import Outcome
from services.generate.policy.schema import Reason
from services.generate.routing.decision import Decision
from services.generate.routing.history import Verified

_FAILED = (Reason.VALIDATOR_FAILED, Reason.LOW_CONFIDENCE)


def verified(outcome: Outcome, decision: Decision) -> tuple[Verified, ...]:
    """The tiers whose drafts were verified, in order.

    A draft that found no answer counts as failed where the next tier was asked for that. What was
    not checked says nothing, nor does an answer that was given before, nor the last resort.
    """
    if outcome.cached is not None:
        return ()
    checks = {step.tier: step.checks for step in decision.escalation}
    checks |= {decision.tier: decision.checks} if decision.tier is not None else {}
    found = [Verified(hop.source, False) for hop in outcome.hops if hop.reason in _FAILED]
    to_last_resort = bool(outcome.hops) and outcome.hops[-1].target is None
    # Of an answer that was shown as it was written after another failed, only the first verdict is
    # told.
    untold = outcome.shown and bool(found)
    if outcome.answered and outcome.tier in checks and not to_last_resort and not untold:
        found.append(Verified(outcome.tier, outcome.passed or bool(found)))
    return tuple(one for one in found if checks.get(one.tier) != "off")
