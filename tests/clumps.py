"""Vectors that lie in clumps, as those of texts do, and dense indexes of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local.dense import DenseIndex

DIMENSION = 32
COUNT = 5000
FEW = 500  # above it the indexes of these tests are approximate


def unit(count: int, seed: int = 0, dimension: int = DIMENSION) -> Vector:
    """Unit vectors in clumps, as those of texts are."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, dimension))
    rows = centres[random.integers(0, 40, count)] + 0.7 * random.standard_normal((count, dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def keys_to(count: int) -> NDArray[np.int64]:
    """The keys 1 to `count`."""
    return np.arange(1, count + 1, dtype=np.int64)


def large(folder: Path | None = None, count: int = COUNT) -> DenseIndex:
    """An index that is approximate already."""
    index = DenseIndex(DIMENSION, keys_to(count), unit(count), folder=folder, exact=FEW)
    index.settle()
    assert index.method.startswith("ivf")
    return index


def exact(rows: dict[int, Vector], query: Vector, limit: int) -> list[int]:
    """The keys that a search must give."""
    ranked = sorted(rows, key=lambda key: (-float(np.vecdot(rows[key], query)), key))
    return ranked[:limit]
