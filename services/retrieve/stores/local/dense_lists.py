"""The approximate part of the dense arm: short codes in lists by their nearest centre (FAISS IVF).

A code is half a byte for every two numbers of the vector (product quantisation, scanned 32 codes at
a time, https://arxiv.org/abs/1704.07355), so that reading a third of all codes takes less than
reading few lists with a byte a number. What is found are candidates: their scores are computed anew
from the vectors themselves. tests/bench/dense.py measures it against the alternatives.
"""

import math
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local.dense_rows import Keys

_SAMPLES = 32  # vectors a list that the centres are learned from
_LEAST_SAMPLES = 20_000
_OVER = 3  # candidates for each result: codes mistake the order of near equals
_LEAST = 200  # candidates


def list_count(vectors: int) -> int:
    """How many lists so many vectors get: the power of two next to their root."""
    return 1 << round(math.log2(max(vectors, 1)) / 2)


def sample_size(vectors: int) -> int:
    """How many of so many vectors `Lists.train` wants."""
    return min(vectors, max(_LEAST_SAMPLES, _SAMPLES * list_count(vectors)))


class Lists:
    """Codes of vectors by key. Any number of searches, or one change, at a time.

    end: every vector with a key below it has been added.
    """

    def __init__(self, index: "faiss.IndexIVFPQFastScan", end: int) -> None:
        """Use `Lists.train` or `Lists.read`."""
        self._index = index
        self._lists = int(index.nlist)
        self.probes = min(self._lists, round(10 * math.sqrt(self._lists)))
        self.end = end

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def method(self) -> str:
        """What `explain` says."""
        return f"ivf{self._lists}-pq4, probes {self.probes}, rescored"

    @classmethod
    def train(cls, sample: Vector, vectors: int) -> "Lists":
        """Empty lists for so many vectors, learned from a sample of them, float32 [n, d].

        The same sample gives the same lists.
        """
        faiss.omp_set_num_threads(1)  # the other cores are for those who search meanwhile
        dimension = sample.shape[1]
        # Half a byte for two numbers, where there are enough of them to make up for it.
        parts = dimension // 2 if dimension >= 128 and dimension % 2 == 0 else dimension
        index: Any = faiss.index_factory(
            dimension, f"IVF{list_count(vectors)},PQ{parts}x4fs", faiss.METRIC_INNER_PRODUCT
        )
        index.cp.min_points_per_centroid = 1  # no warning that k-means would like more of them
        index.train(np.ascontiguousarray(sample))
        return cls(index, 0)

    @classmethod
    def read(cls, data: "NDArray[np.uint8]", dimension: int, end: int) -> "Lists":
        """The lists that `written` gave. Raises ValueError where they are none."""
        try:
            index = faiss.deserialize_index(data)
        except RuntimeError as error:
            raise ValueError("FAISS can't read it") from error
        if not isinstance(index, faiss.IndexIVFPQFastScan) or index.d != dimension:
            raise ValueError("it is an index of another form")
        return cls(index, end)

    def written(self) -> "NDArray[np.uint8]":
        """All of it as bytes, but for `end`. Searches may run, changes must wait."""
        data: NDArray[np.uint8] = faiss.serialize_index(self._index)
        return data

    def add(self, keys: Keys, vectors: Vector) -> None:
        """Add vectors float32 [n, d]; about 20 microseconds each."""
        faiss.omp_set_num_threads(1)
        self._index.add_with_ids(np.ascontiguousarray(vectors), np.ascontiguousarray(keys))

    def remove(self, keys: Keys) -> None:
        """Remove vectors; unknown keys are passed over. All keys are read for it."""
        faiss.omp_set_num_threads(1)
        # The array outlives the call: FAISS' selector only points at it.
        gone = np.ascontiguousarray(keys)
        self._index.remove_ids(faiss.IDSelectorBatch(gone))

    def search(self, vector: Vector, count: int, allowed: Keys | None) -> Keys:
        """The keys of some multiple of `count` vectors near to `vector`, in no order; maybe fewer.

        Of `allowed` (ascending), where given: the fewer they are, the more lists are read.
        """
        probes, selector = self.probes, None
        if allowed is not None:
            probes = min(self._lists, math.ceil(probes * len(self) / max(len(allowed), 1)))
            mask = np.zeros(int(allowed[-1]) + 1 if len(allowed) else 1, np.bool_)
            mask[allowed] = True
            bits = np.packbits(mask, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        # A thread's own setting, so it is made here: a second thread gains nothing for one query,
        # and waits long on a busy machine.
        faiss.omp_set_num_threads(1)
        # FAISS' stubs don't know the keyword arguments that its Python layer adds.
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)  # type: ignore[call-arg]
        wanted = min(_OVER * count + _LEAST, len(self))
        if wanted == 0:
            return np.empty(0, np.int64)
        _, keys = self._index.search(vector.reshape(1, -1), wanted, params=parameters)
        found: Keys = keys[0][keys[0] >= 0]
        return found

    def keys(self) -> Keys:
        """All keys, ascending."""
        lists: Any = self._index.invlists
        parts = [
            faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
            for number in range(self._lists)
            if lists.list_size(number)
        ]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
