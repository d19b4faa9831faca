"""What a draft costs: integers of nano-dollars, so that sums are exact. Pure functions."""

from dataclasses import dataclass

from services.generate.policy.models import Model


def cost(model: Model, prompt_tokens: int, completion_tokens: int) -> int | None:
    """Nano-dollars for so many tokens; None for a model without a price, unless it only quotes."""
    if model.price is None:
        return 0 if model.kind == "extractive" else None
    return prompt_tokens * model.price.input + completion_tokens * model.price.output


@dataclass(frozen=True)
class Allowance:
    """What an answer may cost in all. nano_dollars: None for no limit.

    prompt_tokens, draft_tokens: of the longest prompt and draft, estimated. images: of the prompt,
    which each model counts in its own way.
    """

    nano_dollars: int | None = None
    prompt_tokens: int = 0
    draft_tokens: int = 0
    images: int = 0

    def longest(self, model: Model) -> int | None:
        """Nano-dollars of the longest draft with its thoughts; None for a model without price."""
        read = model.reads(self.prompt_tokens, self.images)
        return cost(model, read, self.draft_tokens + model.thinking_tokens)

    def against(self, model: Model, spent: int | None = 0) -> str | None:
        """Why the model may not be asked; None where it may.

        spent: nano-dollars that the answer has cost by now, None where nobody knows.
        """
        if self.nano_dollars is None:
            return None
        budget = f"the budget is {self.nano_dollars} nano-dollars"
        price = self.longest(model)
        if price is None:
            return f"it has no price, and {budget}"
        if price == 0:
            return None
        if spent is None:
            return f"what was asked before it has no price, and {budget}"
        if price + spent <= self.nano_dollars:
            return None
        before = f", {spent} are spent" if spent else ""
        return f"a draft may cost {price} nano-dollars{before}, the budget is {self.nano_dollars}"


NO_LIMIT = Allowance()
