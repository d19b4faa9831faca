"""The models that are asked about a draft which passes the checks of words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.generate.peers.librarian import Librarian
from services.generate.reading.passages import Passage
from services.generate.verification.checks.failure import Check
from services.generate.verification.checks.profile import Profile
from services.generate.verification.grounding import GroundingModel, GroundingRules, ground
from services.generate.verification.similarity import alike
from services.generate.verification.verify import Verdict
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Heard:
    """A verdict with what the models have against the draft. left_out: why one was not asked, by
    the name of the part that is missing then."""

    verdict: Verdict
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Jury:
    """Who is asked. grounding: None where no such model is set up."""

    librarian: Librarian
    grounding: GroundingModel | None

    async def hear(
        self,
        verdict: Verdict,
        passages: Sequence[Passage],
        profile: Profile,
        rules: GroundingRules | None,
        data_class: str,
    ) -> Heard:
        """What they say of a draft that has passed so far, of what the profile wants to know.

        rules: of the policy, for the grounding model. data_class: of the question and its passages.
        """
        left_out: dict[str, str] = {}
        if Check.SIMILARITY in profile.checks:
            try:
                verdict = await alike(verdict, passages, self.librarian)
            except ApiError as error:
                log.warning("similarity_left_out", code=error.code)
                left_out["similarity"] = error.code
        if verdict.passed and Check.ENTAILMENT in profile.checks and rules is not None:
            grounded = await ground(verdict, passages, data_class, rules, self.grounding)
            verdict = grounded.verdict
            if grounded.left_out:
                left_out["grounding"] = grounded.left_out
        return Heard(verdict, left_out)
