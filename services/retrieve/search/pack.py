"""Packing: the threshold, and the passages that fit a token budget. Pure functions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.retrieve.search.candidates import ChunkKey
from services.retrieve.search.curate import Ranked
from services.retrieve.stores.base import ChunkRecord


class Reason(StrEnum):
    """Why something that would have been a hit is not one."""

    BELOW_MIN_SCORE = "below_min_score"
    OVER_BUDGET = "over_budget"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Passage:
    """A ranked candidate with its text."""

    ranked: Ranked
    record: ChunkRecord


@dataclass(frozen=True, slots=True)
class Drop:
    """What was left out, and why."""

    id: str
    corpus: str
    reason: Reason


def threshold(
    passages: Sequence[Passage], min_score: float | None
) -> tuple[list[Passage], list[Drop]]:
    """Split off the passages whose shown score is less than `min_score`."""
    if min_score is None:
        return list(passages), []
    kept = [one for one in passages if one.ranked.score >= min_score]
    return kept, [_drop(one, Reason.BELOW_MIN_SCORE) for one in passages[len(kept) :]]


def pack(
    passages: Sequence[Passage],
    max_tokens: int | None,
    count: Callable[[str], int] | None = None,
    narrower: Mapping[ChunkKey, Sequence[Passage]] | None = None,
) -> tuple[list[Passage], list[Drop]]:
    """Take whole passages, best first, while the sum of their tokens stays within `max_tokens`.

    A passage that does not fit is dropped; a later, smaller one may still go in, so that one long
    passage never empties the answer. None is no budget. count: gives the tokens of a text; None
    takes each record's own `tokens`. narrower: of a widened passage, by its key, the hits it is
    made of, best first: where the whole does not fit, those of them that do are taken.
    """
    if max_tokens is None:
        return list(passages), []
    left = max_tokens
    kept, dropped = [], []

    def take(passage: Passage) -> bool:
        nonlocal left
        tokens = passage.record.tokens if count is None else count(passage.record.text)
        if tokens > left:
            return False
        left -= tokens
        kept.append(passage)
        return True

    for passage in passages:
        if take(passage):
            continue
        hits = (narrower or {}).get(passage.ranked.key, (passage,))
        # A hit that is the whole passage was tried just now.
        dropped += [
            _drop(hit, Reason.OVER_BUDGET) for hit in hits if hit == passage or not take(hit)
        ]
    return kept, dropped


def _drop(passage: Passage, reason: Reason) -> Drop:
    return Drop(passage.record.id, passage.ranked.key.corpus, reason)
