"""The life of a model, from candidate to retired, and what may follow what. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.generate.policy.lint import Finding
from services.generate.policy.models import State
from services.generate.policy.schema import Policy

# Going back from deprecated to active is a rollback. Nothing leads back from retired, and nothing
# there but by way of deprecated, once a model was active: its callers are to be told first.
NEXT: Mapping[State, frozenset[State]] = {
    State.CANDIDATE: frozenset({State.ACTIVE, State.RETIRED}),
    State.ACTIVE: frozenset({State.DEPRECATED}),
    State.DEPRECATED: frozenset({State.ACTIVE, State.RETIRED}),
    State.RETIRED: frozenset(),
}


@dataclass(frozen=True)
class Transition:
    """A model goes from a state to another. before: None for a model that is new."""

    model: str
    before: State | None
    after: State

    @property
    def legal(self) -> bool:
        """Whether it may. A new model may begin anywhere: it may have lived before elsewhere."""
        return self.before is None or self.after in NEXT[self.before]

    def __str__(self) -> str:
        return f"{self.model}: {self.before or 'new'} -> {self.after}"


def states_of(policy: Policy) -> dict[str, State]:
    """The state of each model of a policy."""
    return {name: model.state for name, model in policy.models.items()}


def transitions(known: Mapping[str, State], policy: Policy) -> list[Transition]:
    """What changes with a policy. known: each model's last state.

    A model that the policy no longer names keeps its last state, for when it comes back.
    """
    return [
        Transition(name, known.get(name), state)
        for name, state in states_of(policy).items()
        if state is not known.get(name)
    ]


def illegal(changes: list[Transition]) -> list[Finding]:
    """What the lint would say of those changes that may not be."""
    return [
        Finding(("models", one.model, "state"), _refusal(one)) for one in changes if not one.legal
    ]


def _refusal(change: Transition) -> str:
    before = change.before or change.after
    way = " or ".join(state for state in State if state in NEXT[before])
    onward = f"{before} leads to {way}" if way else "give the model a new name"
    return f"model {change.model} was {before} and can't become {change.after}: {onward}"
