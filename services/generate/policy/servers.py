"""Which of a policy's models are servers by the settings, although the policy may not know it.

What a model of kind `configured` is, the settings say: the writer inside the service, or a server
as soon as one is named. A compliance matrix that was written for the one must not hold for the
other in silence.
"""

from services.generate.policy.lint import Finding
from services.generate.policy.schema import Policy


def unexpected(policy: Policy, served: frozenset[str]) -> list[Finding]:
    """The models that are servers and of which the policy does not say that they may be.

    served: the tiers for which the settings name a server.
    """
    return [
        Finding(
            ("models", name),
            f"{name} is a server by REFDESK_{model.tier.upper()}_URL, and gets all that compliance "
            "lets it see: say `served: true` if it may, or leave the setting empty",
        )
        for name, model in policy.models.items()
        if model.kind == "configured" and model.tier in served and not model.served
    ]
