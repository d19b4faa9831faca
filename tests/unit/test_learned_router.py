"""The learned router: what it reads, how it learns, what it is measured by, and its commands."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.generate.routing.learned.contest import (
    LEARNED,
    LENGTH,
    cross_judge,
    replay,
    rule_scores,
)
from services.generate.routing.learned.features import SURFACE, canonical, surface
from services.generate.routing.learned.measures import Curve, measure
from services.generate.routing.learned.model import Lean, RouterModel, read_router, write_router
from services.generate.routing.learned.outcomes import (
    Outcomes,
    OutcomesError,
    deal,
    near_duplicates,
    read_outcomes,
)
from services.generate.routing.learned.train import train
from services.generate.routing.learned.vectors import Embedded, embed
from shared.settings import Settings
from tests.e2e.command import one_error, refdesk, refdesk_process
from tests.learned import Embed, made_up
from tests.quality.rewording import REWORDINGS
from tests.quality.routing import Librarian, measured
from tests.suite import Suite, free_port, serving


def learnable(count: int, seed: int = 0) -> tuple[Outcomes, Embedded, NDArray[np.intp]]:
    """Outcomes whose gain depends on the first number of the vector alone; all texts unlike."""
    random = np.random.default_rng(seed)
    unit = random.normal(size=(count, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    gains = random.random(count) < 1 / (1 + np.exp(1 - 5 * unit[:, 0]))
    texts = tuple(f"question {place}" for place in range(count))
    strong = np.ones(count)
    outcomes = Outcomes(texts, random.random(count), strong - gains, strong)
    return outcomes, Embedded("m@1", unit.astype(np.float32)), np.arange(count)


# --- what it reads ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reworded",
    [
        "WHICH IS NOT A METAL? A. TIN B. NEON",
        " Which  is not\na metal?\n\nA. Tin\nB. Neon\n",
        "Could you please tell me: Which is not a metal?\nA. Tin\nB. Neon",
        "Hello! Which is not a metal?\nA. Tin\nB. Neon\nThank you very much in advance.",
        "Please, which is not a metal? A. Tin B. Neon Thanks!",
        "I would like to know which is not a metal? A. Tin B. Neon please",
    ],
)
def test_capitals_spaces_and_courtesies_change_nothing(reworded: str) -> None:
    assert canonical(reworded) == "which is not a metal? a. tin b. neon"


def test_a_question_of_courtesies_alone_is_kept() -> None:
    assert canonical("Thanks!") == "thanks!"


@given(st.text())
def test_the_canonical_form_is_its_own_and_every_text_has_finite_features(text: str) -> None:
    bare = canonical(text)
    assert canonical(bare) == bare
    assert bool(bare) == bool(text.strip())
    seen = surface(bare)
    assert seen.shape == (len(SURFACE),)
    assert np.isfinite(seen).all()


def test_the_features_see_options_numbers_formulas_and_negation() -> None:
    text = canonical("Which is not 2x + 3 = 7?\nA. 2\nB. 14\nC. 3\nD. 12345")
    seen = dict(zip(SURFACE, surface(text), strict=True))
    assert seen["options"] == seen["numeric_options"] == seen["negated"] == 1.0
    assert seen["asks_which"] == seen["question_mark"] == 1.0
    assert seen["formula_signs"] > 1.0
    assert seen["numbers"] == pytest.approx(np.log1p(7))


# --- the file of outcomes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2"),
        ('{"text": "a"}', "line 2: weak_correct: Field required"),
        ('{"text": " ", "weak_correct": true, "strong_correct": true}', "text: is blank"),
        ('{"text": "a", "weak_correct": 1, "strong_correct": true}', "weak_correct"),
        ("[1]", "line 2"),
    ],
)
def test_a_line_that_is_no_outcome_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "outcomes.jsonl"
    file.write_text(json.dumps(made_up()[0]) + "\n" + line + "\n")
    with pytest.raises(OutcomesError, match=words):
        read_outcomes(file)


def test_a_file_without_outcomes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    file.write_text("\n\n")
    with pytest.raises(OutcomesError, match="has no outcomes"):
        read_outcomes(file)


def test_questions_that_share_long_runs_of_words_stay_in_one_fold() -> None:
    passage = "the following passage tells of the trade of salt between the towns of the coast"
    texts = (
        f"{passage}: who sold it?",
        "what is the boiling point of water at sea level in kelvin?",
        f"{passage}: who bought it?",
        "which of the planets has the most moons that are known today?",
    )
    groups = near_duplicates(texts)
    assert groups[0] == groups[2]
    assert len(set(groups)) == 3
    fold = deal(groups, 3, seed=0)
    assert fold[0] == fold[2]
    assert sorted(np.bincount(fold)) == [1, 1, 2]
    with pytest.raises(OutcomesError, match="4 folds need as many"):
        deal(groups, 4, seed=0)


# --- the measures -----------------------------------------------------------------------------


def test_the_curve_of_a_small_example_is_that_of_hand_calculation() -> None:
    gain = np.array([1.0, 0.0, 1.0, 0.0])
    best = Curve(np.array([4.0, 2.0, 3.0, 1.0]), gain)
    assert best.apgr() == pytest.approx(0.75)  # up to 1 over half the calls, then flat
    assert (best.cpt(0.5), best.cpt(0.8)) == pytest.approx((0.25, 0.4))
    worst = Curve(np.array([1.0, 4.0, 2.0, 3.0]), gain)
    assert worst.apgr() == pytest.approx(0.25)
    # Counted twice, a question weighs as two.
    assert best.apgr(np.array([2.0, 1.0, 1.0, 1.0])) == pytest.approx(0.7)


def test_questions_that_a_router_cannot_tell_apart_count_as_chance() -> None:
    gain = np.array([1.0, 0.0, 0.0, 1.0, -1.0, 1.0])
    assert Curve(np.zeros(6), gain).apgr() == pytest.approx(0.5)
    assert Curve(np.zeros(6), gain).cpt(0.8) == pytest.approx(0.8)


def test_the_oracle_is_above_one_where_the_weak_writer_is_sometimes_right_alone() -> None:
    gain = np.array([1.0, 1.0, -1.0, 0.0] * 10)
    scores = {"oracle": gain, "length": np.arange(40.0)}
    found = measure(scores, "length", gain, np.arange(40))
    assert found["oracle"].apgr > 1
    assert found["oracle"].oracle_gap == 0
    assert found["length"].over_length == found["length"].over_low == 0
    assert found["length"].low < found["length"].apgr < found["length"].high
    with pytest.raises(OutcomesError, match="no gap to recover"):
        measure(scores, "length", -gain, np.arange(40))


# --- learning ---------------------------------------------------------------------------------


def test_it_learns_what_there_is_to_learn_and_says_how_likely_it_is() -> None:
    outcomes, vectors, groups = learnable(1000)
    judged = cross_judge(outcomes, vectors, groups, deal(groups, 5, 0))
    report = replay(outcomes, judged, groups, folds=5, seed=0)
    length, learned = report.routers[LENGTH], report.routers[LEARNED]
    assert length.low < 0.5 < length.high
    assert learned.over_low > 0.1
    assert learned.cpt50 < 0.35
    assert report.decisions.calibration_error < 0.06
    assert report.decisions.strong == pytest.approx(0.5, abs=0.05)
    assert report.decisions.unsure == pytest.approx(0.1, abs=0.05)


def test_the_same_outcomes_give_the_same_router() -> None:
    assert train(*learnable(200)) == train(*learnable(200))


def test_it_declines_within_its_margin_and_leans_all_the_same() -> None:
    router = train(*learnable(400), share=0.3, unsure=0.2)
    near = router.opinion(router.bar + router.margin / 2)
    assert (near.choice, near.leans) == (Lean.UNSURE, Lean.STRONG)
    below = router.opinion(router.bar - router.margin * 2)
    assert below.choice is below.leans is Lean.WEAK
    assert 0 < below.gain < near.gain < 1


def test_too_few_outcomes_of_a_kind_are_refused() -> None:
    outcomes, vectors, groups = learnable(30)
    with pytest.raises(OutcomesError, match="to learn, it takes 20 of these"):
        train(outcomes, vectors, groups)


def test_the_rules_send_an_explanation_to_a_dearer_tier_than_a_lookup() -> None:
    lookup, explanation = rule_scores(("who wrote emma?", "why did jane austen write emma?"))
    assert explanation > lookup


def test_a_router_is_plain_json_and_comes_back_whole(tmp_path: Path) -> None:
    router = train(*learnable(200))
    file = tmp_path / "router.json"
    write_router(file, router)
    assert read_router(file) == router
    assert json.loads(file.read_text())["questions"] == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"surface": {"characters": 1.0}}, "other features than this version"),
        ({"bias": "NaN"}, "bias"),
        ({"vector": []}, "vector"),
        ({"format": "refdesk-router-9"}, "format"),
    ],
)
def test_a_file_that_is_no_router_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    file = tmp_path / "router.json"
    file.write_text(json.dumps({**train(*learnable(200)).model_dump(mode="json"), **change}))
    with pytest.raises(OutcomesError, match=words):
        read_router(file)


# --- the commands -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("outcomes") / "outcomes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made_up()))
    return file


def test_a_router_is_trained_and_measured_from_the_command_line(
    suite: Suite, outcomes_file: Path, tmp_path: Path
) -> None:
    env = {"REFDESK_EMBED_URL": suite.url("embed")}
    router, vectors = tmp_path / "router.json", tmp_path / "vectors.npz"
    kept = ("--vectors", str(vectors))
    trained = refdesk_process(
        "router", "train", str(outcomes_file), "--out", str(router), *kept, env=env
    )
    assert trained.returncode == 0, trained.stderr
    assert "learned from 160 questions, with vectors of all-MiniLM-L6-v2@" in trained.stdout
    assert isinstance(read_router(router), RouterModel)

    told = refdesk_process("router", "replay", str(outcomes_file), "--json", *kept, env=env)
    assert told.returncode == 0, told.stderr
    assert told.stderr == "", "the vectors are made anew"
    report = json.loads(told.stdout)
    assert (report["questions"], report["folds"]) == (160, 5)
    assert set(report["routers"]) == {"random", LENGTH, "rules", LEARNED, "oracle"}
    assert report["routers"][LEARNED]["over_low"] > 0

    again = refdesk_process(
        "router", "replay", str(outcomes_file), "--router", str(router), *kept, env=env
    )
    assert again.returncode == 0, again.stderr
    assert "a router that was trained before" in again.stdout


def test_what_goes_wrong_is_one_line(outcomes_file: Path) -> None:
    nobody = {"REFDESK_EMBED_URL": f"http://127.0.0.1:{free_port()}"}
    assert "embed at" in one_error(
        refdesk_process("router", "replay", str(outcomes_file), env=nobody)
    )
    folds = refdesk("router", "replay", str(outcomes_file), "--folds", "1")
    assert "--folds" in one_error(folds, 2)


async def test_a_file_that_holds_no_such_vectors_is_told_so(tmp_path: Path) -> None:
    kept = tmp_path / "vectors.npy"
    np.save(kept, np.zeros((2, 2), np.float32))
    async with serving(Embed()) as url:
        with pytest.raises(OutcomesError, match=r"vectors\.npy is no file of vectors"):
            await embed(("prove it",), Settings(embed_url=url), kept, lambda done, total: None)


def test_a_file_that_is_too_large_for_a_router_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # of holes
    with pytest.raises(OutcomesError, match="is it a learned router"):
        read_router(path)


# --- on recorded outcomes ---------------------------------------------------------------------


def test_every_rule_of_rewording_changes_words() -> None:
    text = "Which of the following is often found near a house?\nA. A car"
    reworded = [reword(text) for reword in REWORDINGS.values()]
    assert len({*reworded, text}) == len(REWORDINGS) + 1


@pytest.mark.long
def test_it_beats_the_length_of_the_prompt_and_bears_other_words(
    datasets: Path, suite: Suite
) -> None:
    report = measured(
        datasets / "routing-outcomes", Librarian(suite.url("embed"), None), seed=0, tried=False
    )
    learned = report["by_question"]["routers"][LEARNED]
    assert learned["over_length"] >= 0.05
    assert learned["over_low"] > 0
    assert all(rule["flipped"] <= 0.1 for rule in report["flips"].values()), report["flips"]
