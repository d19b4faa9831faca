"""The best of many scored keys."""

import numpy as np
from numpy.typing import NDArray


def best(
    keys: NDArray[np.int64], scores: NDArray[np.floating], limit: int
) -> list[tuple[int, float]]:
    """The `limit` highest scores with their keys, best first, equal ones by ascending key."""
    if len(keys) > limit:
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        kept = np.flatnonzero(scores >= least)
        keys, scores = keys[kept], scores[kept]
    order = np.lexsort((keys, -scores))[:limit]
    return list(zip(keys[order].tolist(), scores[order].tolist(), strict=True))
