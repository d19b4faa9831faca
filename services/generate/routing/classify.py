"""The class of a request's data. Pure functions."""

from dataclasses import dataclass

from services.generate.policy.schema import Policy
from services.generate.routing.features import RoutingFeatures


@dataclass(frozen=True)
class Classified:
    """The class of a request's data, and whose voice it was: the strictest counts.

    source: ``default``, ``caller``, ``corpus NAME`` or ``detected KIND``.
    """

    data_class: str
    source: str


def classify(features: RoutingFeatures, policy: Policy) -> Classified:
    """The class of a question with its passages.

    A mark that is no class of the policy counts as stricter than all: nothing is allowed for it.
    """
    voices = [Classified(policy.default_class, "default")]
    if features.mark is not None:
        voices.append(Classified(features.mark, "caller"))
    voices += [
        Classified(policy.corpora[corpus], f"corpus {corpus}")
        for corpus in sorted(features.corpora & policy.corpora.keys())
    ]
    voices += [
        Classified(policy.detect[kind], f"detected {kind}")
        for kind in sorted(features.found & policy.detect.keys())
    ]
    return max(voices, key=lambda one: policy.strictness(one.data_class))  # of equals the first
