"""What a draft costs: integers of nano-dollars, so that sums are exact. Pure functions."""

from services.generate.policy.schema import Model


def cost(model: Model, prompt_tokens: int, completion_tokens: int) -> int | None:
    """Nano-dollars for so many tokens; None for a model without a price."""
    if model.price is None:
        return None
    return prompt_tokens * model.price.input + completion_tokens * model.price.output
