"""The endpoints behind a policy's models, opened when a policy first names them."""

from dataclasses import dataclass

from pydantic import SecretStr

from services.generate.policy.compliance import permits
from services.generate.policy.models import Model, State
from services.generate.policy.schema import Policy
from services.generate.tiers.breaker import Door
from services.generate.tiers.configured import ConfiguredEndpoints
from services.generate.tiers.endpoint import Endpoint
from services.generate.tiers.openai import OpenAIEndpoint
from shared.settings import Settings


@dataclass(frozen=True)
class _Opened:
    """What an endpoint was opened from; the same again is the same endpoint."""

    tier: str
    url: str
    model: str
    key: SecretStr | None


@dataclass(frozen=True)
class ServerState:
    """A model server. door: whether it is asked just now. classes: of data that it may see.

    configured: whether the settings made it one, and not the policy.
    """

    url: str
    door: Door
    classes: tuple[str, ...]
    configured: bool


class Writers:
    """The endpoints of all models that a policy of this process has named so far.

    An endpoint that a new policy no longer names stays open, since an answer that began under the
    old one may still ask it; an idle one holds nothing but a few connections for a while.
    """

    def __init__(self, settings: Settings, configured: ConfiguredEndpoints) -> None:
        self._settings = settings
        self._configured = configured
        self._opened: dict[_Opened, Endpoint] = {}

    def endpoint(self, name: str, model: Model) -> Endpoint:
        """The endpoint of the policy's model `name`."""
        if model.kind == "extractive":
            return self._configured.extractive
        if model.kind == "configured":
            return self._configured.tiers[model.tier]
        key = self._settings.model_keys.get(name)
        wanted = _Opened(model.tier, model.url, model.model, key)
        if wanted not in self._opened:
            self._opened[wanted] = OpenAIEndpoint(
                model.tier, model.url, model.model, key, self._configured.resilience
            )
        return self._opened[wanted]

    def serves(self, name: str, model: Model) -> str:
        """The model that is asked for behind the policy's model `name`."""
        return model.model or self.endpoint(name, model).model

    def first(self, policy: Policy) -> dict[str, Endpoint]:
        """The endpoint of each tier's first model."""
        return {
            name: self.endpoint(tier.models[0], policy.models[tier.models[0]])
            for name, tier in policy.tiers.items()
        }

    def served(self, policy: Policy) -> frozenset[str]:
        """The tiers whose first writer is a server, not part of this process. Opens none."""
        tiers = policy.tiers.items()
        return frozenset(
            name for name, one in tiers if not self._runs_here(policy.models[one.models[0]])
        )

    def embedded(self, policy: Policy) -> frozenset[str]:
        """The policy's models that run in this process. Opens none."""
        return frozenset(name for name, one in policy.models.items() if self._runs_here(one))

    def servers(self, policy: Policy) -> dict[str, ServerState]:
        """The models that are servers, but for retired ones, by the policy's names."""
        found = {}
        for name, model in policy.models.items():
            endpoint = self.endpoint(name, model)
            if model.state is not State.RETIRED and isinstance(endpoint, OpenAIEndpoint):
                classes = tuple(one for one in policy.classes if permits(policy, one, name))
                configured = model.kind == "configured"
                found[name] = ServerState(endpoint.name, endpoint.door, classes, configured)
        return found

    async def close(self) -> None:
        """Close all of them."""
        for endpoint in self._opened.values():
            await endpoint.close()
        await self._configured.close()

    def _runs_here(self, model: Model) -> bool:
        if model.kind != "configured":
            return model.kind == "extractive"
        endpoint = self._configured.tiers[model.tier]
        return any(endpoint is one for one in self._configured.embedded)
