"""Profiles: which checks are made of a draft, and whether it is shown before they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.generate.verification.checks.failure import Check

# Made by a model that is asked for it, not by a comparison of words.
JUDGED = frozenset({Check.SIMILARITY, Check.ENTAILMENT})
# They compare a claim with one source sentence, which `support` finds.
OF_A_SENTENCE = frozenset({Check.NAME, Check.ORDER, Check.POLARITY})
# Made of tool calls and JSON, and of these in every profile.
OF_THE_FORM = frozenset({Check.SCHEMA, Check.TOOLS})


@dataclass(frozen=True)
class Profile:
    """Which checks are made.

    buffers: whether a draft is verified before anybody sees it. Without, it may be shown as it is
    written.
    """

    name: str
    checks: frozenset[Check]
    buffers: bool

    @property
    def by_sentence(self) -> bool:
        """Whether one sentence must say what a claim says; else the whole passage may."""
        return Check.SUPPORT in self.checks


_OF_WORDS = frozenset(Check) - JUDGED - OF_THE_FORM
OFF = Profile("off", frozenset(), buffers=False)
LIGHT = Profile("light", _OF_WORDS - OF_A_SENTENCE - {Check.SUPPORT}, buffers=False)
STRICT = Profile("strict", _OF_WORDS, buffers=True)
PROFILES: Mapping[str, Profile] = {one.name: one for one in (OFF, LIGHT, STRICT)}
