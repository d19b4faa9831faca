"""embed, as the desk needs it: which model it serves, how that model counts, and vectors of both
kinds, dense and sparse.

A vector that is not what it should be is neither stored, where it would be searched for ever, nor
searched with.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from services.retrieve.corpus.chunk import TokenCounter
from services.retrieve.corpus.sparse_answer import read_sparse
from services.retrieve.stores.base import Vector
from services.retrieve.stores.corpus import CorpusInfo, ModelStamp
from services.retrieve.stores.sparse_vector import Sparse
from shared.client import ServiceClient
from shared.errors import ApiError
from shared.together import together
from shared.vectors import bad_embed, read_vectors

BATCH = 32  # texts in one request: about two batches of embed's own
_IN_FLIGHT = 2  # one is computed while the next one waits there already
_NORM_TOLERANCE = 1e-3
MISMATCH = "model_mismatch"  # the code of that error


@dataclass(frozen=True)
class ServedModel:
    """The model that embed serves now. `max_tokens` counts a whole input with special tokens,
    `sparse` is whether it makes sparse vectors."""

    stamp: ModelStamp
    max_tokens: int
    sparse: bool = False


@dataclass(frozen=True)
class Embedded:
    """What embed made of some texts, in their order. dense: unit rows, float32 [n, dimension].
    sparse: n of them, None where they were not asked for."""

    dense: Vector
    sparse: Sequence[Sparse] | None = None


class Librarian:
    """The service embed. Every method raises what `ServiceClient` does, and ApiError 502
    `bad_upstream` for an answer that makes no sense; those that are given a corpus 409
    `model_mismatch` where embed serves another model than the one that made it."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client
        self._counters: dict[ModelStamp, TokenCounter] = {}
        self._tokenizers: dict[ModelStamp, bytes] = {}
        self._longer: dict[ModelStamp, int] = {}  # how many numbers embed sends of shorter vectors

    async def served(self, model: str = "") -> ServedModel:
        """Ask embed for the model of that name, or for its default one. Raises ApiError 404 where
        it has none of that name."""
        query = f"?model={quote(model, safe='')}" if model else ""
        info = await self._client.get(f"/info{query}")
        try:
            stamp = ModelStamp(str(info["model"]), str(info["revision"]), int(info["dimension"]))
            kinds = info.get("kinds")  # of a refdesk alone
            sparse = isinstance(kinds, list) and "sparse" in kinds
            return ServedModel(stamp, int(info["max_tokens"]), sparse)
        except (KeyError, TypeError, ValueError):
            raise bad_embed("no model, revision, dimension and max_tokens at /info") from None

    async def counter(self, corpus: CorpusInfo) -> TokenCounter:
        """The token counter of the corpus's own model; embed is asked for it once."""
        if corpus.stamp not in self._counters:
            data = await self.tokenizer(corpus)
            try:
                self._counters[corpus.stamp] = await asyncio.to_thread(TokenCounter, data)
            except ValueError:
                del self._tokenizers[corpus.stamp]
                raise bad_embed("something that is not a tokenizer.json") from None
        return self._counters[corpus.stamp]

    async def tokenizer(self, corpus: CorpusInfo) -> bytes:
        """The tokenizer.json of the corpus's own model; embed is asked for it once."""
        if corpus.stamp not in self._tokenizers:
            await self._require_model(corpus)
            data = await self._client.get_bytes(f"/v1/models/{corpus.model}/tokenizer")
            self._tokenizers[corpus.stamp] = data
        return self._tokenizers[corpus.stamp]

    async def vectors(self, inputs: Sequence[str], corpus: CorpusInfo) -> Embedded:
        """The vectors of chunks, sparse ones among them where the corpus has them.

        Each is made from the whole of its input.
        """
        slots = asyncio.Semaphore(_IN_FLIGHT)

        async def batch(texts: Sequence[str]) -> Embedded:
            async with slots:
                answer = await self._embed(texts, "document", corpus, sparse=corpus.sparse)
            vectors = read_vectors(answer, len(texts))
            if answer.get("truncated"):
                raise bad_embed(
                    "vectors of chunks that it cut; it counts tokens otherwise than its tokenizer"
                )
            if np.any(np.abs(_norms(vectors) - 1.0) > _NORM_TOLERANCE):
                raise bad_embed("a vector that is not of length 1")
            vectors = await self._shortened(vectors, corpus)
            return Embedded(vectors, read_sparse(answer, len(texts)) if corpus.sparse else None)

        starts = range(0, len(inputs), BATCH)
        parts = await together(batch(inputs[at : at + BATCH]) for at in starts)
        none = np.empty((0, corpus.dimension), np.float32)
        return Embedded(
            np.concatenate([none, *(part.dense for part in parts)]),
            [one for part in parts for one in part.sparse or ()] if corpus.sparse else None,
        )

    async def query_vectors(
        self,
        queries: Sequence[str],
        passage: str | None,
        corpus: CorpusInfo,
        *,
        sparse: bool = False,
    ) -> Embedded:
        """The vectors of queries, and of a made-up passage if there is one, in the space of the
        corpus's own vectors. sparse: whether sparse ones are wanted, too."""
        kinds: list[tuple[list[str], Literal["query", "document"]]] = [(list(queries), "query")]
        if passage is not None:
            kinds.append(([passage], "document"))
        answers = await together(self._embed(*kind, corpus, sparse=sparse) for kind in kinds)
        parts = [
            await self._shortened(read_vectors(answer, len(texts)), corpus)
            for answer, (texts, _) in zip(answers, kinds, strict=True)
        ]
        vectors = _unit(np.concatenate(parts))
        words = None
        if sparse:
            words = [
                one
                for answer, (texts, _) in zip(answers, kinds, strict=True)
                for one in read_sparse(answer, len(texts))
            ]
        return Embedded(vectors, words)

    async def mismatch(self, corpus: CorpusInfo) -> ApiError | None:
        """Why the corpus can't be searched with what embed serves now, None if it can."""
        try:
            await self._require_model(corpus)
        except ApiError as error:
            if error.code != MISMATCH:
                raise
            return error
        return None

    async def unserved(self, corpora: Sequence[CorpusInfo]) -> dict[str, str]:
        """Those of the corpora that embed has no model for, by their names, and what to do. It is
        asked at most twice, and loads no model: of one that is not its default one the name alone
        is compared, and the rest when it is used."""
        default = (await self.served()).stamp
        names = {default.model}
        if any(info.model not in names for info in corpora):
            names |= await self._names()
        return {
            info.name: _model_mismatch(info, default).message
            for info in corpora
            if info.model not in names
            or (info.model == default.model and not default.holds(info.stamp))
        }

    async def _names(self) -> set[str]:
        """The models that embed serves by name, loaded or not."""
        try:
            answer = await self._client.get("/v1/models")
        except ApiError as error:
            if error.status != 404:
                raise
            return set()  # it has but one
        try:
            return {str(one["id"]) for one in answer["data"]}
        except (KeyError, TypeError):
            raise bad_embed("no list of models at /v1/models") from None

    async def _shortened(self, vectors: Vector, corpus: CorpusInfo) -> Vector:
        """As many of the first numbers as the corpus has, at length 1, of vectors that are longer
        and as long as those of its model are."""
        sent = vectors.shape[1]
        if sent == corpus.dimension:
            return vectors
        if self._longer.get(corpus.stamp) != sent:
            served = await self._require_model(corpus)
            if sent != served.dimension:
                raise bad_embed(f"{sent} numbers where {served.dimension} were expected")
            self._longer[corpus.stamp] = sent
        return _unit(vectors[:, : corpus.dimension])

    async def _embed(
        self,
        texts: Sequence[str],
        kind: Literal["query", "document"],
        corpus: CorpusInfo,
        *,
        sparse: bool,
    ) -> Any:
        """embed's answer about `texts`, once it is known that the corpus's own model made it."""
        body: dict[str, Any] = {
            "input": texts,
            "model": corpus.model,
            "input_type": kind,
            "encoding_format": "base64",
        }
        if sparse:
            body["outputs"] = ["dense", "sparse"]
        try:
            answer = await self._client.post("/v1/embeddings", body)
        except ApiError as error:
            if error.status == 404:  # no model of that name: say which there is
                await self._require_model(corpus)
            raise
        revision = answer.get("revision") if isinstance(answer, dict) else None
        if revision != corpus.revision:
            # Servers other than our own don't tell the revision with the vectors.
            await self._require_model(corpus, revision)
        return answer

    async def _require_model(self, corpus: CorpusInfo, revision: str | None = None) -> ModelStamp:
        """Ask embed for its model, and give its stamp; raise `model_mismatch` unless that, or else
        the `revision` that it told with its vectors, is the one that made the corpus."""
        try:
            served = (await self.served(corpus.model)).stamp
        except ApiError as error:
            if error.status != 404:
                raise
            served = (await self.served()).stamp  # what it has instead
        if revision is not None:
            served = replace(served, revision=revision)
        if not served.holds(corpus.stamp):
            raise _model_mismatch(corpus, served)
        return served


def _model_mismatch(corpus: CorpusInfo, served: ModelStamp) -> ApiError:
    """The error for using a corpus with another model than the one that made its vectors."""
    made = corpus.stamp
    return ApiError(
        409,
        MISMATCH,
        f"corpus '{corpus.name}' was made with {made.model} {made.revision} ({made.dimension} "
        f"dimensions), and embed serves {served.model} {served.revision} ({served.dimension}): "
        "start embed with the corpus's model, or reindex the corpus",
    )


def _unit(vectors: Vector) -> Vector:
    """The rows at length 1. Raises ApiError 502 for one that has no direction."""
    norms = _norms(vectors)
    if not norms.all():
        raise bad_embed("a vector of zeros, which has no direction")
    return (vectors / norms[:, np.newaxis]).astype(np.float32)


def _norms(vectors: Vector) -> NDArray[np.float64]:
    """The lengths of the rows, float64 [n]: in float32 they could overflow."""
    norms: NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return norms
