"""Calibration: a threshold of 0.5 means something, the order stays, and a bad file is refused."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rerank.models.calibration import Calibration, read_calibration, sigmoid
from services.rerank.models.late_interaction import LateInteraction
from shared.errors import StartupError
from shared.settings import Settings
from tests.quality.calibrate import Judged, fit

REVISION = "53aa51172d14-int8"  # of the default model
FILE: dict[str, Any] = {
    "backend": "late-interaction",
    "revision": "0123456789ab",
    "slope": 3.0,
    "intercept": -1.5,
    "how": "made up",
    "fitted_on": ["nothing"],
    "date": "2025-01-01",
    "figures": {"nothing": {"precision": 1.0, "recall": 0.5}},
}


def write(folder: Path, **changed: object) -> None:
    (folder / "calibration.json").write_text(json.dumps({**FILE, **changed}))


@pytest.fixture(scope="module")
def model(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateInteraction]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    model = LateInteraction("all-MiniLM-L6-v2", minilm_dir, settings)
    yield model
    asyncio.run(model.close())


def relevance(model: LateInteraction, query: str, documents: Sequence[str]) -> list[float]:
    return asyncio.run(model.score(query, documents)).scores


RELATED = [
    (
        "Who discovered penicillin?",
        "Alexander Fleming discovered penicillin in 1928, when a mould had killed the bacteria "
        "in one of his dishes.",
    ),
    (
        "What is the capital of Australia?",
        "Canberra is the capital city of Australia. It was founded in 1913 as a compromise "
        "between Sydney and Melbourne.",
    ),
    (
        "Vitamin D deficiency raises the risk of fractures",
        "Low vitamin D and the risk of fractures in older adults\nIn a cohort of older adults, "
        "those with a deficiency of vitamin D had more fractures of hip and wrist.",
    ),
    (
        "How do I reset a forgotten password?",
        "To reset a password that you have forgotten, choose 'Forgot password' on the login page "
        "and follow the link in the mail.",
    ),
]


@pytest.mark.parametrize(("query", "text"), RELATED)
def test_what_is_related_is_above_one_half_and_what_is_not_is_below(
    model: LateInteraction, query: str, text: str
) -> None:
    others = [other for _, other in RELATED if other != text]
    own, *rest = relevance(model, query, [text, *others])
    assert own > 0.5
    assert max(rest) < 0.5


def test_the_order_within_a_query_is_that_of_the_raw_scores(model: LateInteraction) -> None:
    texts = [text for _, text in RELATED] + ["mould", "capital", "", "fractures of the wrist"]
    scored = asyncio.run(model.score("fractures", texts))
    assert np.argsort(scored.scores).tolist() == np.argsort(scored.raw_scores).tolist()
    assert all(0 <= score <= 1 for score in scored.scores)


def test_info_says_how_the_scores_were_calibrated(model: LateInteraction) -> None:
    assert "nfcorpus" in model.info.calibration


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=20),
    st.floats(0.01, 100),
    st.floats(-100, 100),
)
def test_a_calibration_never_turns_an_order_around(
    raw: list[float], slope: float, intercept: float
) -> None:
    found = Calibration(slope, intercept, "").apply(np.sort(np.array(raw)))
    assert np.all(np.diff(found) >= 0)
    assert np.all((found >= 0) & (found <= 1))


def test_a_fit_puts_one_half_between_what_it_was_shown() -> None:
    random = np.random.default_rng(0)
    raw = np.concatenate([random.normal(0.4, 0.05, 500), random.normal(0.8, 0.05, 20)])
    slope, intercept = fit([Judged(raw, np.arange(520) >= 500)])
    assert slope > 0
    assert 0.5 < -intercept / slope < 0.7


def test_the_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e6, 0.0, 1e6])).tolist() == [0.0, 0.5, 1.0]


def test_the_models_own_file_goes_before_the_one_that_comes_with_refdesk(tmp_path: Path) -> None:
    shipped = read_calibration(tmp_path, "late-interaction", REVISION)
    assert shipped is not None
    write(tmp_path, revision=REVISION.partition("-")[0])
    own = read_calibration(tmp_path, "late-interaction", REVISION)
    assert own == Calibration(3.0, -1.5, "made up")
    assert own != shipped


def test_a_precision_is_not_another_model(tmp_path: Path) -> None:
    write(tmp_path, revision="0123456789ab-int8")
    assert read_calibration(tmp_path, "late-interaction", "0123456789ab-fp32") is not None


def test_a_model_that_nobody_calibrated_has_none(tmp_path: Path) -> None:
    assert read_calibration(tmp_path, "late-interaction", "0123456789ab-int8") is None
    assert read_calibration(tmp_path, "cross-encoder", REVISION) is None


def test_the_file_of_another_backend_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, backend="cross-encoder")
    assert read_calibration(tmp_path, "late-interaction", "0123456789ab-int8") is None


def test_a_file_fitted_to_other_weights_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(StartupError, match=r"calibration\.json was fitted to .*0123456789ab.*fff"):
        read_calibration(tmp_path, "late-interaction", "fff-int8")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        json.dumps({**FILE, "slope": 0}),
        json.dumps({**FILE, "slope": -3.0}),
        json.dumps({**FILE, "slope": "NaN"}),
        json.dumps({**FILE, "slope": float("inf")}),
        json.dumps({**FILE, "intercept": None}),
        json.dumps({**FILE, "backend": "oracle"}),
        json.dumps({name: value for name, value in FILE.items() if name != "revision"}),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(StartupError, match=r"calibration\.json"):
        read_calibration(tmp_path, "late-interaction", "0123456789ab-int8")
