"""Threshold, token budget and signals of ranked passages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.search.candidates import Arm, Run
from services.retrieve.search.pack import Reason, pack, threshold
from services.retrieve.search.signals import agreement, coverage, freshness, signals
from tests.passages import chunk, found, passage


def run(arm: Arm, *keys: int, corpus: str = "c") -> Run:
    return Run.of(arm, corpus, [(key, 1.0) for key in keys])


class Words:
    """Terms of a corpus without an analyser: words in lower case."""

    def terms(self, text: str) -> list[str]:
        return text.lower().split()


def test_a_passage_at_the_threshold_is_kept_and_what_is_below_is_named() -> None:
    kept, dropped = threshold([passage(1, 0.9), passage(2, 0.6), passage(3, 0.59)], 0.6)
    assert [one.record.id for one in kept] == ["d1#1", "d2#2"]
    assert [(drop.id, drop.corpus, drop.reason) for drop in dropped] == [
        ("d3#3", "c", Reason.BELOW_MIN_SCORE)
    ]


def test_without_a_threshold_or_a_budget_everything_is_kept() -> None:
    passages = [passage(1, 0.0), passage(2, 0.0, tokens=10**6)]
    assert threshold(passages, None) == (passages, [])
    assert pack(passages, None) == (passages, [])


def test_a_passage_that_does_not_fit_makes_room_for_a_smaller_one() -> None:
    kept, dropped = pack([passage(1, tokens=60), passage(2, tokens=50), passage(3, tokens=40)], 100)
    assert [one.record.number for one in kept] == [1, 3]
    assert [(drop.id, drop.reason) for drop in dropped] == [("d2#2", Reason.OVER_BUDGET)]


def test_a_budget_that_is_exactly_met_is_not_exceeded() -> None:
    kept, dropped = pack([passage(1, tokens=60), passage(2, tokens=40)], 100)
    assert len(kept) == 2
    assert dropped == []


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 1000))
def test_packing_never_exceeds_the_budget_and_loses_nothing(sizes: list[int], budget: int) -> None:
    passages = [passage(number, tokens=size) for number, size in enumerate(sizes)]
    kept, dropped = pack(passages, budget)
    spent = sum(one.record.tokens for one in kept)
    assert spent <= budget
    assert [one for one in passages if one in kept] == kept
    assert sorted([one.record.id for one in kept] + [drop.id for drop in dropped]) == sorted(
        one.record.id for one in passages
    )
    # Nothing was left out that would have fitted at the end.
    assert all(spent + sizes[int(drop.id.split("#")[1])] > budget for drop in dropped)


def test_tokens_are_counted_as_the_reader_of_the_passages_counts_them() -> None:
    passages = [passage(1, tokens=1, text="a b c d"), passage(2, tokens=99, text="e f")]
    kept, dropped = pack(passages, 3, count=lambda text: len(text.split()))
    assert [one.record.number for one in kept] == [2]
    assert [drop.id for drop in dropped] == ["d1#1"]


def test_where_a_widened_passage_does_not_fit_the_hits_in_it_may() -> None:
    hits = (passage(3, 0.9, tokens=30, document="x"), passage(2, 0.7, tokens=30, document="x"))
    whole = found(chunk(3, "wide", document="x", tokens=90), 0.9)
    other = passage(9, 0.5, tokens=20)
    narrower = {whole.ranked.key: hits, other.ranked.key: (other,)}
    assert pack([whole, other], 110, narrower=narrower)[0] == [whole, other]
    kept, dropped = pack([whole, other], 55, narrower=narrower)
    assert kept == [hits[0], other]
    assert [drop.id for drop in dropped] == ["x#2"]
    kept, dropped = pack([whole, other], 10, narrower=narrower)
    assert kept == []
    assert [drop.id for drop in dropped] == ["x#3", "x#2", "d9#9"]


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.lists(st.integers(0, 100), max_size=4)), max_size=15
    ),
    st.integers(1, 1000),
)
def test_packing_widened_passages_never_exceeds_the_budget_either(
    sizes: list[tuple[int, list[int]]], budget: int
) -> None:
    passages, narrower = [], {}
    for number, (size, parts) in enumerate(sizes):
        whole = found(chunk(0, document=f"d{number}", tokens=size, key=number * 10))
        passages.append(whole)
        narrower[whole.ranked.key] = (
            (whole,)
            if not parts
            else tuple(
                found(chunk(n, "part", document=f"d{number}", tokens=part, key=number * 10 + n))
                for n, part in enumerate(parts)
            )
        )
    kept, dropped = pack(passages, budget, narrower=narrower)
    assert sum(one.record.tokens for one in kept) <= budget
    for whole in passages:
        hits = {hit.record.id for hit in narrower[whole.ranked.key]}
        gone = {drop.id for drop in dropped} & hits
        left = {one.record.id for one in kept if one in narrower[whole.ranked.key]}
        assert whole in kept or gone | left == hits


def test_agreement_is_the_share_of_the_first_ten_that_both_arms_found() -> None:
    words, dense = run(Arm.BM25, *range(20)), run(Arm.DENSE, *range(5, 25))
    assert agreement([words, dense]) == pytest.approx(0.5)
    assert agreement([words, run(Arm.DENSE, *range(10))]) == 1.0


def test_a_short_list_agrees_only_as_far_as_it_goes() -> None:
    assert agreement([run(Arm.BM25, 1), run(Arm.DENSE, 1, 2, 3, 4)]) == pytest.approx(0.25)
    assert agreement([run(Arm.BM25), run(Arm.DENSE, 1, 2)]) == 0.0


def test_one_arm_alone_or_nothing_found_is_no_agreement() -> None:
    assert agreement([run(Arm.BM25, 1, 2)]) == 0.0
    assert agreement([run(Arm.BM25), run(Arm.DENSE)]) == 0.0
    assert agreement([]) == 0.0


def test_agreement_over_corpora_is_their_mean_and_keys_are_not_mixed_up() -> None:
    runs = [
        run(Arm.BM25, 1, corpus="a"),
        run(Arm.DENSE, 1, corpus="a"),
        run(Arm.BM25, 1, corpus="b"),
        run(Arm.DENSE, 2, corpus="b"),
        run(Arm.BM25, corpus="empty"),
        run(Arm.DENSE, corpus="empty"),
    ]
    assert agreement(runs) == pytest.approx(0.5)


def test_agreement_is_about_the_question_itself_and_arms_that_differ() -> None:
    runs = [
        run(Arm.BM25, 1),
        run(Arm.DENSE, 1),
        Run.of(Arm.DENSE, "c", [(2, 1.0)], query=1),
        run(Arm.BM25_EXACT, 3),
    ]
    assert agreement(runs) == 1.0
    assert agreement([run(Arm.BM25_EXACT, 1), run(Arm.DENSE, 1)]) == 1.0


def test_coverage_is_the_share_of_the_querys_terms_that_the_hits_hold() -> None:
    hits = [passage(1, text="the moon"), passage(2, text="is far")]
    assert coverage("how far is the moon", hits, {"c": Words()}) == pytest.approx(0.8)
    assert coverage("how far", [], {"c": Words()}) == 0.0
    assert coverage("", hits, {"c": Words()}) == 0.0


def test_the_margin_is_measured_to_the_best_hit_of_another_document() -> None:
    ranking = [
        passage(1, 0.9, document="x"),
        passage(2, 0.8, document="x"),
        passage(3, 0.6, document="y"),
    ]
    felt = signals("q", ranking[:1], ranking, [], {"c": Words()})
    assert felt.top_score == 0.9
    assert felt.margin == pytest.approx(0.3)
    assert felt.documents == 1
    assert signals("q", ranking, ranking, [], {"c": Words()}).documents == 2


def test_the_same_document_id_in_two_corpora_is_two_documents() -> None:
    ranking = [passage(1, 0.9, document="x"), passage(2, 0.7, document="x", corpus="d")]
    felt = signals("q", ranking, ranking, [], {"c": Words(), "d": Words()})
    assert felt.documents == 2
    assert felt.margin == pytest.approx(0.2)


def test_a_lone_document_has_its_whole_score_as_margin() -> None:
    assert signals("q", [passage(1, 0.9)], [passage(1, 0.9)], [], {"c": Words()}).margin == 0.9


def test_a_better_passage_that_the_budget_left_out_leaves_no_margin() -> None:
    ranking = [passage(1, 0.9), passage(2, 0.4)]
    assert signals("q", ranking[1:], ranking, [], {"c": Words()}).margin == 0.0


def test_no_hits_are_no_signals() -> None:
    felt = signals("q", [], [], [], {"c": Words()})
    assert (felt.top_score, felt.margin, felt.agreement, felt.coverage) == (0, 0, 0, 0)
    assert felt.documents == 0
    assert felt.freshness is None


def test_freshness_is_that_of_the_best_hit_and_halves_with_each_half_life() -> None:
    hits = [passage(1), passage(2)]
    first, second = (hit.ranked.key for hit in hits)
    assert freshness(hits, {first: 0.0, second: 500.0}, 100) == 1.0
    assert freshness(hits, {first: 200.0, second: 0.0}, 100) == 0.25
    felt = signals("q", hits, hits, [], {"c": Words()}, {first: 365.0})
    assert felt.freshness == pytest.approx(0.5)


def test_a_best_hit_without_a_date_has_no_freshness_though_others_have() -> None:
    hits = [passage(1), passage(2)]
    first, second = (hit.ranked.key for hit in hits)
    assert freshness(hits, {first: None, second: 1.0}, 100) is None
    assert freshness(hits, {second: 1.0}, 100) is None
    assert freshness([], {}, 100) is None
