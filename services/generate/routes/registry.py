"""The inventory of models and the history of their states, for those who answer for them."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Response
from pydantic import BaseModel

from services.generate.policy.inventory import Inventory, inventory, to_csv
from services.generate.policy.models import Model, Name, State
from services.generate.routes.access import require_admin
from services.generate.routing.in_force import PolicyFile
from services.generate.trust.model_states import ModelStates
from shared.moment import Moment


class ChangeBody(BaseModel):
    """A change of a model's state. before: null for a model that was new. at: UTC. policy: the
    fingerprint of the first policy that says so."""

    model: str
    before: State | None
    after: State
    at: Moment
    policy: str


class HistoryBody(BaseModel):
    """The newest changes first."""

    changes: list[ChangeBody]


def add_routes(
    app: FastAPI, policies: PolicyFile, states: ModelStates, serves: Callable[[str, Model], str]
) -> None:
    """Add the routes. serves: the model that is asked for behind one of the policy's."""

    @app.get(
        "/v1/registry",
        response_model=Inventory,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    async def registry(format: Literal["json", "csv"] = "json") -> Inventory | Response:  # noqa: A002 - the wire's name
        """Every model of the policy that holds, with all that is known of it."""
        require_admin("the inventory of models")
        policy = await policies.current()
        found = inventory(policy, await asyncio.to_thread(states.since), serves)
        if format == "json":
            return found
        return Response(
            to_csv(found),
            media_type="text/csv",
            headers={"Content-Disposition": 'attachment; filename="models.csv"'},
        )

    @app.get("/v1/registry/history")
    async def history(
        model: Name | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> HistoryBody:
        """The last changes of the models' states, of one model or of all."""
        require_admin("the history of models")
        found = await asyncio.to_thread(states.history, model, limit)
        return HistoryBody(
            changes=[
                ChangeBody(
                    model=one.transition.model,
                    before=one.transition.before,
                    after=one.transition.after,
                    at=one.at,
                    policy=one.policy,
                )
                for one in found
            ]
        )
