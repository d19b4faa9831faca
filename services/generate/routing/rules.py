"""Does a rule hold, and what does a score come to? Pure functions on values."""

import re
from collections.abc import Iterable
from functools import lru_cache

from services.generate.policy.schema import FLAGS, NUMBERS, SUCCESS, Range, Scored, When
from services.generate.routing.features import RoutingFeatures
from services.generate.routing.history import UNKNOWN_SUCCESS


def number(features: RoutingFeatures, name: str) -> float:
    """The number that a range or a weight of this name is about."""
    kind, _, tier = name.partition(".")
    if kind == SUCCESS:
        return features.success.get(tier, UNKNOWN_SUCCESS)
    if name == "words":
        return features.question.words
    if name in ("tokens", "turns", "confidence"):
        return float(getattr(features, name))
    return float(getattr(features.signals, name))


def holds(when: When, features: RoutingFeatures, data_class: str) -> tuple[str, ...] | None:
    """What was seen of each condition, in words; None where one of them does not hold."""
    seen: list[str] = []
    for name, wanted, value in (
        ("intent", when.intent, features.question.intent),
        ("asks for", when.asks_for, features.question.asks_for),
        ("language", when.language, features.language),
        ("data class", when.data_class, data_class),
    ):
        if wanted is not None:
            if value not in wanted:
                return None
            seen.append(f"{name} {value or 'unknown'}")
    if when.keywords is not None:
        word = has_one(when.keywords, features.text)
        if word is None:
            return None
        seen.append(f"keyword {word}")
    flags = (when.tools, when.schema_, when.vision, when.flagged)
    for name, needed in zip(FLAGS, flags, strict=True):
        if needed is not None:
            if _flag(features, name) != needed:
                return None
            seen.append(name if needed else f"no {name}")
    if when.served is not None:
        if when.served not in features.served:
            return None
        seen.append(f"tier {when.served} has a server")
    for name in NUMBERS:
        bounds: Range | None = getattr(when, name)
        if bounds is not None:
            amount = number(features, name)
            if not bounds.holds(amount):
                return None
            seen.append(f"{name} {_short(amount)} ({bounds})")
    if when.success is not None:
        rate = number(features, f"{SUCCESS}.{when.success.tier}")
        if not when.success.holds(rate):
            return None
        seen.append(f"success of {when.success.tier} {_short(rate)} ({when.success})")
    return tuple(seen)


def has_one(words: Iterable[str], text: str) -> str | None:
    """The first of `words` that stands in `text` as whole words, in any case."""
    folded = text.casefold()
    return next((word for word in words if _whole(word).search(folded)), None)


def weighed(scored: Scored, features: RoutingFeatures) -> list[tuple[str, float, str]]:
    """What speaks for a dearer tier: each feature's name, weight times value, and what was seen."""
    found = [("bias", scored.bias, "")] if scored.bias else []
    for name, weight in scored.weights.items():
        kind, _, wanted = name.partition(".")
        if wanted and kind != SUCCESS:
            value = features.question.intent if kind == "intent" else features.language
            if value == wanted:
                found.append((name, weight, wanted))
        elif name in FLAGS:
            if _flag(features, name):
                found.append((name, weight, name))
        else:
            amount = number(features, name)
            found.append((name, weight * amount, f"{_short(amount)} x {weight:g}"))
    for keywords in scored.keywords:
        word = has_one(keywords.words, features.text)
        if word is not None:
            found.append(("keyword", keywords.weight, word))
    return found


def tier_of(scored: Scored, score: float) -> str:
    """The tier with the highest bar that the score reaches."""
    reached = [one for one in scored.bars if score >= one.score]
    return max(reached, key=lambda one: one.score).tier if reached else scored.start


def _flag(features: RoutingFeatures, name: str) -> bool:
    return features.flagged if name == "flagged" else name in features.needs


@lru_cache(maxsize=4096)
def _whole(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word.casefold())}(?!\w)")


def _short(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"
