"""Fixtures of the contract tests."""

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from services.rerank.models.calibration import read_calibration
from tests.suite import Suite
from tests.writers import Serve, writers_over


@pytest.fixture
def serve(models_dir: Path) -> Serve:
    """Serve generate over a desk; see `tests.writers.writers_over`."""
    return writers_over(models_dir)


@pytest.fixture
def relevance(suite: Suite, minilm_dir: Path) -> Callable[[float], float]:
    """What the running rerank makes of a raw score."""
    revision = httpx.get(suite.url("rerank") + "/info").json()["revision"]
    calibration = read_calibration(minilm_dir, "late-interaction", revision)
    assert calibration is not None
    return lambda raw: float(calibration.apply(np.array([raw]))[0])
