"""The writer that invents nothing: it quotes the sentences that answer, with their sources."""

from services.generate.reading.evidence import MIN_CONFIDENCE, confidence, gather
from services.generate.reading.extract import choose, write
from services.generate.reading.passages import Passage
from services.generate.tiers.endpoint import Draft, DraftRequest
from shared.errors import ApiError

_PROBE = Passage(1, "probe#0", "probe", "probe", None, None, "A desk has a bell. Ring it.", 1.0)


class ExtractiveEndpoint:
    """An `Endpoint` without a model. It declines where no sentence answers well enough.

    min_confidence: below this confidence of the evidence it declines, 0..1.
    """

    name = "extractive"
    model = "extractive"

    def __init__(self, min_confidence: float = MIN_CONFIDENCE) -> None:
        self._min_confidence = min_confidence

    async def draft(self, request: DraftRequest) -> Draft:
        """See `Endpoint`. Reads and writes no tokens; takes well under a millisecond."""
        answers = confidence(request.evidence) >= self._min_confidence
        text = write(choose(request.evidence)) if answers else ""
        return Draft(text, "stop", self.model)

    async def probe(self) -> None:
        """Quote from a constant passage. Raises ApiError if that fails."""
        text = write(choose(gather("What does a desk have?", [_PROBE])))
        if text != "A desk has a bell. [1]":
            raise ApiError(503, "writer_failed", "the extractive writer quotes wrongly")

    async def close(self) -> None:
        """Nothing to let go of."""
