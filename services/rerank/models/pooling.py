"""Fewer token vectors for a text: those that point the same way become one.

Source: Clavié, Chaffin and Adams, "Reducing the Footprint of Multi-Vector Retrieval with Minimal
Performance Impact via Token Pooling", 2024, https://arxiv.org/abs/2409.14683.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, ward

# Tokens to a vector, on average. At 3 the ranking of whole windows was as good as with all vectors
# (docs/benchmarks.md); merging neighbours in the text instead of likes was worse on one collection.
FACTOR = 3
LEAST = 32  # a short text has little to give up, and little is gained


def pool(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors, float32 [t, d], merged by Ward's method to at most ⌈t / FACTOR⌉ or LEAST unit
    vectors, float32 [p, d], in no order that means anything."""
    count = len(vectors)
    wanted = max(LEAST, -(-count // FACTOR))
    if wanted >= count:
        return vectors
    upper = np.triu_indices(count, 1)
    # Of unit vectors: |a - b|² = 2 - 2 a·b.
    distances = np.sqrt(np.maximum(2 - 2 * (vectors @ vectors.T)[upper], 0))
    cluster = fcluster(ward(distances), wanted, "maxclust") - 1
    member = np.zeros((cluster.max() + 1, count), np.float32)
    member[cluster, np.arange(count)] = 1
    sums = member @ vectors
    pooled: NDArray[np.float32] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return pooled
