"""An answer to a question with images that its writer has not seen: it says so. Pure."""

from dataclasses import replace

from services.generate.answer.outcome import Happened, Outcome
from services.generate.reading.citations import Annotation
from services.generate.routing.decision import Reason

UNSEEN = "This goes by the words of the question alone, not by what the image shows.\n\n"
DEGRADED = "images"


def unseen(outcome: Outcome) -> Outcome:
    """The outcome with a first sentence for its readers, and a name in `degraded` for programs."""
    answer, by = outcome.answer, len(UNSEEN)
    moved = tuple(Annotation(one.start + by, one.end + by, one.n) for one in answer.annotations)
    seen = f"{outcome.endpoint} reads the words of the question alone"
    return replace(
        outcome,
        answer=replace(answer, content=UNSEEN + answer.content, annotations=moved),
        reasons=(*outcome.reasons, Reason(Happened.IMAGES_UNSEEN, 0.0, seen)),
        degraded=(*outcome.degraded, DEGRADED),
    )
