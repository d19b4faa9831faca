"""Where the sparse arm searches, and what its lists of several corpora become."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from services.retrieve.search.arms import chosen
from services.retrieve.search.candidates import Arm, ChunkKey, Run
from services.retrieve.search.curate import arm_z_scores
from services.retrieve.search.fusion import FusionMethod, FusionSettings, fuse
from services.retrieve.stores.corpus import CorpusInfo
from shared.errors import ApiError


def corpora(**sparse: bool) -> dict[str, CorpusInfo]:
    """Corpora by name, with sparse vectors or without."""
    now = datetime.now(UTC)
    return {
        name: CorpusInfo(name, "", "en", "m", "r", 4, 256, 32, True, "c", 0, 0, 0, now, has)
        for name, has in sparse.items()
    }


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        (None, [Arm.BM25, Arm.DENSE, Arm.SPARSE]),
        ([Arm.SPARSE], [Arm.SPARSE]),
        ([Arm.DENSE], [Arm.DENSE]),
    ],
)
def test_where_every_corpus_has_sparse_vectors_it_searches_unless_others_are_named(
    asked: Sequence[Arm] | None, used: list[Arm]
) -> None:
    assert chosen(asked, corpora(a=True, b=True)) == (used, [])


def test_where_one_has_none_it_is_left_out_and_named_if_it_was_asked_for() -> None:
    some = corpora(a=True, b=False, c=False)
    assert chosen(None, some) == ([Arm.BM25, Arm.DENSE], [])
    assert chosen([Arm.DENSE], some) == ([Arm.DENSE], [])
    arms, [skipped] = chosen([Arm.SPARSE, Arm.BM25], some)
    assert arms == [Arm.BM25]
    assert skipped.stage == "sparse"
    assert skipped.reason.endswith("in: b, c")
    with pytest.raises(ApiError, match="in: b, c") as caught:
        chosen([Arm.SPARSE], some)
    assert (caught.value.status, caught.value.code) == (422, "no_sparse_vectors")


def test_lists_by_one_model_are_merged_by_score_and_those_by_two_interleaved() -> None:
    runs = [
        Run.of(Arm.SPARSE, "a", [(1, 9.0), (2, 8.0)]),
        Run.of(Arm.SPARSE, "b", [(3, 1.0)]),
    ]
    keys = [ChunkKey("a", 1), ChunkKey("a", 2), ChunkKey("b", 3)]
    scores = {key: score for run in runs for key, score in run.ranked}
    for spaces, order in (
        ({"a": "m", "b": "m"}, [1, 2, 3]),
        ({"a": "m", "b": "n"}, [1, 3, 2]),
    ):
        settings = FusionSettings(FusionMethod.RRF, 60, {Arm.SPARSE: 1.0}, spaces)
        assert [one.key.key for one in fuse(runs, settings)] == order
        z = arm_z_scores(Arm.SPARSE, keys, scores, spaces)
        assert (z[2] == 0.0) == (spaces["b"] == "n")
