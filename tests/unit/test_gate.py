"""The gate: when the curator need not be asked."""

import pytest

from services.retrieve.search.candidates import Arm, ChunkKey
from services.retrieve.search.fusion import Fused
from services.retrieve.search.gate import certain
from services.retrieve.stores.base import ChunkRecord
from tests.passages import chunk

# One far ahead of nineteen others.
AHEAD = [10.0] + [5.0 - n / 10 for n in range(19)]
CLOSE = [5.4] + [5.0 - n / 10 for n in range(19)]


def judge(
    words: list[float],
    meaning: list[float],
    documents: dict[int, str] | None = None,
    corpora: dict[int, str] | None = None,
) -> str | None:
    """What the gate says of chunks 0, 1, 2, … with these scores, in the order of the fused list."""
    keys = [ChunkKey((corpora or {}).get(n, "c"), n) for n in range(len(words))]
    records: dict[ChunkKey, ChunkRecord] = {
        key: chunk(n, document=(documents or {}).get(n, f"d{n}")) for n, key in enumerate(keys)
    }
    scores = {
        Arm.BM25: dict(zip(keys, words, strict=True)),
        Arm.DENSE: dict(zip(keys, meaning, strict=True)),
    }
    return certain([Fused(key, 1 - n / 100, {}) for n, key in enumerate(keys)], scores, records)


def test_a_document_that_leads_in_every_arm_is_certain() -> None:
    assert judge(AHEAD, AHEAD) == "every arm has the same document first, far ahead of the next"


def test_a_narrow_lead_in_one_of_them_is_not() -> None:
    assert judge(AHEAD, CLOSE) is None
    assert judge(CLOSE, AHEAD) is None


def test_arms_that_lead_with_different_documents_are_not_certain() -> None:
    assert judge(AHEAD, [AHEAD[1], AHEAD[0], *AHEAD[2:]]) is None


def test_a_second_chunk_of_the_leading_document_does_not_hold_it_back() -> None:
    both = [10.0, 9.9, *AHEAD[2:]]
    assert judge(both, both) is None
    assert judge(both, both, documents={1: "d0"}) is not None


@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_a_short_window_is_read(length: int) -> None:
    assert judge(AHEAD[:length], AHEAD[:length]) is None


def test_several_corpora_are_never_certain() -> None:
    assert judge(AHEAD, AHEAD, corpora={7: "other"}) is None


def test_a_window_of_one_document_is_not_certain_of_its_order() -> None:
    assert judge(AHEAD, AHEAD, documents=dict.fromkeys(range(20), "d")) is None


def test_equal_scores_are_not_certain() -> None:
    assert judge([1.0] * 20, AHEAD) is None


def test_one_arm_alone_or_a_missing_score_is_not_certain() -> None:
    keys = [ChunkKey("c", n) for n in range(20)]
    fused = [Fused(key, 0.5, {}) for key in keys]
    column = dict(zip(keys, AHEAD, strict=True))
    records = {key: chunk(key.key, document=f"d{key.key}") for key in keys}
    both = {Arm.BM25: column, Arm.DENSE: column}
    assert certain(fused, both, records) is not None
    assert certain(fused, {Arm.DENSE: column}, records) is None
    assert certain(fused, {Arm.BM25: column}, records) is None
    assert certain(fused, {}, records) is None
    assert certain(fused, {**both, Arm.BM25: dict(list(column.items())[1:])}, records) is None
    assert certain(fused, both, dict(list(records.items())[1:])) is None
