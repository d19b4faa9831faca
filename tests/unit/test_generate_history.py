"""What the service remembers of its tiers' drafts, and what a record keeps of a question."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from services.generate.reading.question import AnswerKind, Intent, features
from services.generate.reading.sensitivity import Sensitive
from services.generate.routing.history import History, Verified, kind_of
from services.generate.routing.kept import kept, restored
from services.generate.routing.learned.model import Lean, Opinion
from services.generate.routing.router import route
from tests import escalating as way
from tests.policies import seen

WHEN, WHO = (Intent.LOOKUP, AnswerKind.TIME), (Intent.LOOKUP, AnswerKind.PERSON)


def test_of_a_tier_that_was_never_asked_nothing_is_said() -> None:
    assert History().success(WHEN) == {}


def test_few_drafts_prove_little_and_many_prove_much() -> None:
    history = History()
    history.note(WHEN, [Verified("small", False)])
    # All questions: 8 of 11; this kind: none of one, as if 10 x 8/11 of 10 had been before.
    assert history.success(WHEN)["small"] == pytest.approx(80 / 11 / 11, abs=1e-4)
    history.note(WHEN, [Verified("small", False)] * 300)
    assert history.success(WHEN)["small"] < 0.01


def test_a_kind_of_question_begins_with_what_the_tier_does_in_all() -> None:
    history = History()
    history.note(WHEN, [Verified("small", False)] * 90)
    assert history.success(WHO)["small"] == pytest.approx(0.08)
    history.note(WHO, [Verified("small", True)] * 200)
    assert history.success(WHO)["small"] > 0.9
    assert history.success(WHEN)["small"] < 0.2


def test_the_latest_drafts_count() -> None:
    history = History()
    history.note(WHEN, [Verified("small", False)] * 500)
    history.note(WHEN, [Verified("small", True)] * 200)
    assert history.success(WHEN)["small"] > 0.98


# --- what of an answer is remembered -----------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviours", "change", "drafts"),
    [
        (("answers", "answers", "answers"), {}, [("cheap", True)]),
        (("lies", "answers", "answers"), {}, [("cheap", False), ("dearer", True)]),
        (("lies", "answers", "lies"), {}, [("cheap", False), ("dearer", False)]),
        (("declines", "answers", "answers"), {}, [("cheap", False), ("dearer", True)]),
        (("fails", "answers", "answers"), {}, [("cheap", True)]),
        (("fails", "fails", "answers"), {}, [("dearer", True)]),
        (("declines", "answers", "declines"), {}, [("cheap", False)]),
        (("answers", "answers", "answers"), {"checks": "off"}, []),
    ],
)
async def test_verified_drafts_are_remembered_and_nothing_else(
    behaviours: tuple[str, ...], change: dict[str, Any], drafts: list[tuple[str, bool]]
) -> None:
    policy = way.policy_of({"public": ("*",)}).model_copy(update=change)
    decision = route(way.PLAIN, policy)
    outcome, _ = await way.outcome_of(decision, policy, behaviours)
    assert [(one.tier, one.passed) for one in outcome.verified] == drafts


# --- what is kept of a question ----------------------------------------------------------------


def test_the_features_of_a_question_come_back_as_they_were_but_for_its_text() -> None:
    text = "When did Ann write to ann@example.org?"
    whole = replace(
        seen(text, 0.75),
        language="en",
        turns=3,
        needs=frozenset({"tools"}),
        flagged=True,
        mark="secret",
        corpora=frozenset({"hr", "law"}),
        found=frozenset({Sensitive.EMAIL}),
        requested="large",
        tiers=frozenset({"large"}),
        key_tiers=frozenset({"large", "small"}),
        budget=7,
        remaining_ms=1234.5,
        served=frozenset({"large"}),
        success={"small": 0.5},
        opinion=Opinion(0.25, Lean.WEAK, Lean.UNSURE),
    )
    plain = orjson.loads(orjson.dumps(kept(whole)))
    assert "Ann" not in str(plain)
    assert restored(plain, text) == whole
    assert kind_of(restored(plain, "").question) == kind_of(features(text))


@pytest.mark.parametrize("plain", [{}, {"confidence": "much"}, {"question": None}])
def test_what_is_no_features_is_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        restored(plain, "")
