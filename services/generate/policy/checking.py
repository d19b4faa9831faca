"""How a policy has drafts verified: its own profiles, and the model that judges beyond words."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from services.generate.policy.models import Part, Share
from services.generate.verification.checks.failure import Check
from services.generate.verification.checks.profile import (
    JUDGED,
    OF_A_SENTENCE,
    OF_THE_FORM,
    PROFILES,
    Profile,
)


def _as_profile(value: object) -> object:
    return "off" if value is False else value  # YAML reads a bare `off` as false


def _in_order(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    return tuple(one for one in Check if one in checks)


ProfileName = Annotated[str, BeforeValidator(_as_profile)]


class Checking(Part):
    """A profile of the policy's own. checks: those that are made. buffers: whether a draft is
    verified before anybody sees it; without, it may be shown as it is written."""

    checks: Annotated[tuple[Check, ...], Field(min_length=1), AfterValidator(_in_order)]
    buffers: bool = True

    @model_validator(mode="after")
    def _has_what_its_checks_need(self) -> Self:
        if form := sorted(OF_THE_FORM.intersection(self.checks)):
            raise ValueError(
                f"{', '.join(form)}: made of tool calls and JSON in every profile: leave it out"
            )
        alone = sorted(OF_A_SENTENCE.intersection(self.checks))
        if alone and Check.SUPPORT not in self.checks:
            raise ValueError(
                f"{', '.join(alone)}: made of the source sentence that support finds: add support"
            )
        judged = sorted(JUDGED.intersection(self.checks))
        if judged and Check.CITATION not in self.checks:
            raise ValueError(
                f"{', '.join(judged)}: made of the passage that a claim cites: add citation"
            )
        return self


class Grounding(Part):
    """The model at REFDESK_GROUNDING_URL, which says whether a passage entails a claim.

    classes: of data that it may see. bar: the least that it must give to entailment, 0..1.
    required: whether a draft fails where the model can't be asked; else the other checks stand.
    """

    classes: tuple[str, ...]
    bar: Share = 0.5
    required: bool = False


def profile_of(name: str, own: Mapping[str, Checking]) -> Profile:
    """The profile of that name. Raises KeyError where there is none."""
    if name in PROFILES:
        return PROFILES[name]
    return Profile(name, frozenset(own[name].checks), own[name].buffers)
