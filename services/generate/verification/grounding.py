"""Whether the cited passages entail a draft's claims, by a model that is asked: the last check.

The model is a classifier of natural language inference, or a grounding model of the same form,
behind a server that speaks the API of text-embeddings-inference: `POST /predict` with pairs of
premise and hypothesis, answered with a score for each label of each pair
(huggingface.github.io/text-embeddings-inference). It is asked for drafts that pass all checks of
words alone, and for what is not in the passage word for word.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.generate.reading.passages import Passage
from services.generate.reading.sentences import split
from services.generate.reading.words import terms
from services.generate.verification.checks.failure import Check, Failure, short
from services.generate.verification.verify import Verdict, reworded
from shared.context import current
from shared.errors import ApiError
from shared.settings import Settings
from shared.telemetry import get_logger
from shared.upstream import Upstream

log = get_logger(__name__)

_NAME = "the grounding server"
_PAIRS = 32  # that TEI takes at once, unless it is told otherwise
_PATIENCE_S = 5.0
# Of a longer passage the sentences around the nearest one are read: such models read 512 tokens.
_PREMISE_CHARACTERS = 1500


class _Score(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    label: str
    score: float = Field(ge=0, le=1)


_ANSWER = TypeAdapter(list[list[_Score]])


@dataclass(frozen=True)
class Pair:
    """A claim and a text that it cites. claim: its place among the verdict's claims."""

    claim: int
    premise: str
    hypothesis: str


@dataclass(frozen=True)
class Grounded:
    """What became of a verdict. left_out: why the model was not asked, "" where it was."""

    verdict: Verdict
    left_out: str = ""


class GroundingRules(Protocol):
    """What a policy says of the model: see `Grounding` of policy/checking.py."""

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def bar(self) -> float: ...

    @property
    def required(self) -> bool: ...


class GroundingModel:
    """The model at REFDESK_GROUNDING_URL. Raises StartupError for a URL that is none."""

    def __init__(self, settings: Settings) -> None:
        url = settings.grounding_url.rstrip("/")
        self._server = Upstream(
            _NAME, url, settings.grounding_key, timeout_s=_PATIENCE_S, attempts=2
        )
        self._label = settings.grounding_label.lower()

    async def entailment(self, pairs: Sequence[Pair]) -> list[float]:
        """How surely each premise entails its hypothesis, 0..1, in their order.

        Raises ApiError: what Upstream raises, 502 for an answer that is none, 504 where it takes
        over 5 seconds or the request at hand has no time left.
        """
        found: list[float] = []
        patience = min(_PATIENCE_S, current().deadline.remaining_ms() / 1000)
        try:
            async with asyncio.timeout(patience):
                for start in range(0, len(pairs), _PAIRS):
                    batch = pairs[start : start + _PAIRS]
                    body = {
                        "inputs": [[one.premise, one.hypothesis] for one in batch],
                        "truncate": True,
                    }
                    found += self._read(await self._server.post("/predict", body), len(batch))
        except TimeoutError:
            raise ApiError(504, "upstream_timeout", f"{_NAME} takes too long") from None
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    def _read(self, answer: object, count: int) -> list[float]:
        try:
            rows = _ANSWER.validate_python(answer)
        except ValidationError:
            rows = []
        if len(rows) != count:
            raise _rubbish("a list of labels with scores from 0 to 1 for each pair")
        scores = [
            next((one.score for one in row if one.label.lower() == self._label), None)
            for row in rows
        ]
        known = [score for score in scores if score is not None]
        if len(known) != count:
            raise _rubbish(f"scores of the label {self._label}, see REFDESK_GROUNDING_LABEL")
        return known


async def ground(
    verdict: Verdict,
    passages: Sequence[Passage],
    data_class: str,
    rules: GroundingRules,
    model: GroundingModel | None,
) -> Grounded:
    """A verdict that has passed so far, with what the model has against it.

    Where the model can't be asked, the verdict stands, or fails if the rules require the model.
    """
    asked = pairs(verdict, passages)
    if not asked:
        return Grounded(verdict)
    if data_class not in rules.classes:
        why = f"the policy does not allow it for data of class {data_class}"
    elif model is None:
        why = "REFDESK_GROUNDING_URL is not set"
    else:
        try:
            scores = await model.entailment(asked)
        except ApiError as error:
            log.warning("grounding_left_out", code=error.code, why=error.message)
            why = error.code
        else:
            return Grounded(judged(verdict, asked, scores, rules.bar))
    if rules.required:
        missed = Failure(Check.ENTAILMENT, f"no model could judge the draft: {why}")
        verdict = replace(verdict, failures=(*verdict.failures, missed))
    return Grounded(verdict, why)


def pairs(verdict: Verdict, passages: Sequence[Passage]) -> list[Pair]:
    """What to ask: each claim with each passage that it cites and does not repeat word for word."""
    found = []
    for place, cited in reworded(verdict, passages):
        claim = verdict.claims[place].text
        for one in cited:
            premise = f"{one.title or ''}\n{_around(one.text, claim)}".strip()
            found.append(Pair(place, premise, claim))
    return found


def judged(verdict: Verdict, asked: Sequence[Pair], scores: Sequence[float], bar: float) -> Verdict:
    """The verdict with a failure for each claim that none of its passages entails."""
    best: dict[int, tuple[float, Pair]] = {}
    for pair, score in zip(asked, scores, strict=True):
        if pair.claim not in best or score > best[pair.claim][0]:
            best[pair.claim] = score, pair
    failures = [
        Failure(
            Check.ENTAILMENT,
            f"the passage entails it by {score:.2f}, {bar:g} is asked: {short(pair.hypothesis)}",
            pair.premise,
        )
        for score, pair in best.values()
        if score < bar
    ]
    return replace(verdict, failures=(*verdict.failures, *failures))


def _around(text: str, claim: str) -> str:
    """The text, or of a long one the sentences around that which has most of the claim's words."""
    if len(text) <= _PREMISE_CHARACTERS:
        return text
    sentences = split(text)
    if not sentences:
        return text[:_PREMISE_CHARACTERS]
    wanted = frozenset(terms(claim))
    best = max(
        range(len(sentences)),
        key=lambda place: len(wanted.intersection(terms(sentences[place].text))),
    )
    first = last = best
    for step in range(1, len(sentences)):
        for place in (best - step, best + step):
            low, high = min(first, place), max(last, place)
            if low >= 0 and high < len(sentences):
                if sentences[high].end - sentences[low].start > _PREMISE_CHARACTERS:
                    return text[sentences[first].start : sentences[last].end]
                first, last = low, high
    return text[sentences[first].start : sentences[last].end]


def _rubbish(wanted: str) -> ApiError:
    return ApiError(502, "bad_upstream", f"{_NAME} answered something that is not {wanted}")
