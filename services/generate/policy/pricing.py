"""What a draft costs: integers of nano-dollars, so that sums are exact. Pure functions."""

from services.generate.policy.models import Model


def cost(model: Model, prompt_tokens: int, completion_tokens: int) -> int | None:
    """Nano-dollars for so many tokens; None for a model without a price, unless it only quotes."""
    if model.price is None:
        return 0 if model.kind == "extractive" else None
    return prompt_tokens * model.price.input + completion_tokens * model.price.output
