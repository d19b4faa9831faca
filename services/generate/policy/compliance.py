"""Which models may see which data. Pure functions; what is not allowed is forbidden.

The router applies this before it weighs anything, and the writers again at each model they ask.
"""

from services.generate.policy.schema import Policy

EVERY = "*"


def permits(policy: Policy, data_class: str, model: str) -> bool:
    """Whether `model` may see data of this class. Nothing may where the policy doesn't say so."""
    allowed = policy.compliance.get(data_class, ())
    return model in policy.models and (model in allowed or EVERY in allowed)
