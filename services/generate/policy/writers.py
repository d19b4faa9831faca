"""The endpoints behind a policy's models, opened when a policy first names them."""

from dataclasses import dataclass

from pydantic import SecretStr

from services.generate.policy.schema import Model, Policy
from services.generate.tiers.endpoint import Endpoint
from services.generate.tiers.openai import OpenAIEndpoint
from services.generate.tiers.registry import Registry
from shared.settings import Settings


@dataclass(frozen=True)
class _Opened:
    """What an endpoint was opened from; the same again is the same endpoint."""

    tier: str
    url: str
    model: str
    key: SecretStr | None


class Writers:
    """The endpoints of all models that a policy of this process has named so far.

    An endpoint that a new policy no longer names stays open, since an answer that began under the
    old one may still ask it; an idle one holds nothing but a few connections for a while.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._opened: dict[_Opened, Endpoint] = {}

    def endpoint(self, name: str, model: Model) -> Endpoint:
        """The endpoint of the policy's model `name`."""
        if model.kind == "extractive":
            return self._registry.extractive
        if model.kind == "configured":
            return self._registry.tiers[model.tier]
        key = self._settings.model_keys.get(name)
        wanted = _Opened(model.tier, model.url, model.model, key)
        if wanted not in self._opened:
            self._opened[wanted] = OpenAIEndpoint(
                model.tier, model.url, model.model, key, self._settings
            )
        return self._opened[wanted]

    def first(self, policy: Policy) -> dict[str, Endpoint]:
        """The endpoint of each tier's first model."""
        return {
            name: self.endpoint(tier.models[0], policy.models[tier.models[0]])
            for name, tier in policy.tiers.items()
        }

    def served(self, policy: Policy) -> frozenset[str]:
        """The tiers whose first writer is a server, not part of this process."""
        firsts = self.first(policy).items()
        return frozenset(tier for tier, one in firsts if not self._is_embedded(one))

    async def close(self) -> None:
        """Close all of them."""
        for endpoint in self._opened.values():
            await endpoint.close()
        await self._registry.close()

    def _is_embedded(self, endpoint: Endpoint) -> bool:
        return any(endpoint is one for one in self._registry.embedded)
