"""OpenAI's list of models: what a request may name."""

from fastapi import FastAPI

from services.generate.policy.models import State
from services.generate.policy.schema import AUTO
from services.generate.protocol import ModelCard, ModelList
from services.generate.routing.in_force import PolicyFile
from shared.context import current


def add_routes(app: FastAPI, policies: PolicyFile) -> None:
    """Add the route."""

    @app.get("/v1/models")
    async def models() -> ModelList:
        """What `model` may name, of the tiers that the key may use."""
        policy = await policies.current()
        allowed = current().principal.tiers
        tiers = [name for name in policy.tiers if allowed is None or name in allowed]
        live = [
            name
            for name, one in policy.models.items()
            if one.state is not State.RETIRED and (allowed is None or one.tier in allowed)
        ]
        return ModelList(data=[ModelCard(id=name) for name in (AUTO, *tiers, *live)])
