"""What all models have in common that read a query and a document together, whatever runs them."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.rerank.models.base import (
    BLANK_LOGIT,
    UNCALIBRATED,
    ModelInfo,
    Scored,
    TextTooLongError,
    require_whole,
)
from services.rerank.models.calibration import read_calibration, sigmoid
from shared.batching import Batcher
from shared.encoder.pairs import PairTokenizer
from shared.encoder.pooling import require_modules
from shared.encoder.tokenizer import Keep, Tokenized
from shared.errors import ApiError
from shared.settings import RerankBackend, Settings


class PairModel:
    """A RerankModel over anything that gives a logit for each tokenised pair.

    judge: logits of a batch, float32 [n], in order; called from one thread at a time. release:
    lets go of the model. Raises ModelError (a StartupError) where the calibration is damaged.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: Settings,
        *,
        backend: RerankBackend,
        revision: str,
        precision: str,
        tokenizer: PairTokenizer,
        judge: Callable[[Sequence[Tokenized]], NDArray[np.float32]],
        release: Callable[[], None],
    ) -> None:
        self._tokenizer = tokenizer
        self._judge = judge
        self._release = release
        self._calibration = read_calibration(folder, backend, revision)
        self._batcher: Batcher[Tokenized, float] = Batcher(
            name,
            self._run,
            batch_tokens=settings.rerank_batch_tokens,
            queue_tokens=settings.rerank_queue_tokens,
        )
        self.info = ModelInfo(
            model=name,
            revision=revision,
            max_tokens=tokenizer.max_tokens,
            precision=precision,
            backend=backend,
            calibration=self._calibration.how if self._calibration else UNCALIBRATED,
        )

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        max_tokens: int | None = None,
        keep: Keep = "start",
        whole: bool = False,
    ) -> Scored:
        """See RerankModel. `tokens` counts the query with every document, as it is read.

        A document without a word is not read: it scores 0, and raw lower than any other. Raises
        ApiError 503 where the model's answer is no number.
        """
        self._batcher.require_room()  # before the work of tokenising
        texts = list(dict.fromkeys(text for text in documents if text.strip()))
        pairs = await asyncio.to_thread(self._tokenizer.tokenize, query, texts, max_tokens, keep)
        place = {text: number for number, text in enumerate(texts)}
        places = [place.get(text) for text in documents]
        cuts = [0 if number is None else pairs.items[number].cut for number in places]
        if whole:
            if pairs.query_cut:
                limit = pairs.query_limit
                raise TextTooLongError(None, limit + pairs.query_cut, limit)
            require_whole(0, cuts, pairs.document_limit)
        logits = np.array(await self._batcher.submit(pairs.items), np.float32)
        relevance = self._calibration.apply(logits) if self._calibration else sigmoid(logits)
        return Scored(
            scores=[0.0 if number is None else float(relevance[number]) for number in places],
            raw_scores=[
                BLANK_LOGIT if number is None else float(logits[number]) for number in places
            ],
            tokens=sum(0 if number is None else len(pairs.items[number]) for number in places),
            document_tokens=[
                0 if number is None else pairs.document_tokens[number] for number in places
            ],
            truncated=cuts,
            query_truncated=pairs.query_cut,
        )

    async def close(self) -> None:
        """Stop the model's thread and let go of the model."""
        await asyncio.to_thread(self._batcher.close)
        self._release()

    def _run(self, batch: Sequence[Tokenized]) -> list[float]:
        logits = self._judge(batch)
        if not np.isfinite(logits).all():
            raise ApiError(503, "bad_model", "the model answers numbers that are not finite")
        found: list[float] = logits.tolist()
        return found


def require_classifier(folder: Path) -> None:
    """Raise StartupError where the folder's list of modules says that it is no plain classifier."""
    require_modules(
        folder,
        frozenset({"Transformer"}),
        "choose a cross-encoder that is one classifier, or the backend late-interaction",
    )


def relevance_logit(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """One logit a pair, float32 [n], of a classifier's labels, float32 [n, 1] or [n, 2] (irrelevant
    and relevant, of which a sigmoid of the difference is the softmax)."""
    logit: NDArray[np.float32] = (
        labels[:, -1] if labels.shape[1] == 1 else labels[:, 1] - labels[:, 0]
    )
    return logit
