"""The writers of this process: which endpoint serves which tier, by settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.generate.tiers.endpoint import EmbeddedEndpoint, Endpoint
from services.generate.tiers.extractive import ExtractiveEndpoint
from services.generate.tiers.openai import OpenAIEndpoint
from services.generate.tiers.resilience import Resilience
from services.generate.tiers.small_llm.endpoint import SmallLlmEndpoint
from shared.errors import StartupError
from shared.modelstore.store import ModelStore
from shared.settings import Settings
from shared.upstream import require_plain

UTILITY, REASONING = "utility", "reasoning"  # the tiers that settings name writers for


@dataclass(frozen=True)
class ConfiguredEndpoints:
    """The endpoints of one process.

    tiers: who writes for each. extractive: who writes where another's draft can't be shown.

    embedded: those that run in this process, each once. resilience: of all model servers.
    """

    tiers: Mapping[str, Endpoint]
    extractive: ExtractiveEndpoint
    embedded: tuple[EmbeddedEndpoint, ...]
    resilience: Resilience

    async def close(self) -> None:
        """Close every endpoint once."""
        for endpoint in {id(one): one for one in (*self.tiers.values(), *self.embedded)}.values():
            await endpoint.close()


def open_configured(settings: Settings) -> ConfiguredEndpoints:
    """Open the writers that the settings name.

    Raises StartupError where a served model has no name or no good URL, or the embedded one is
    missing or damaged.
    """
    extractive = ExtractiveEndpoint()
    resilience = Resilience.by(settings)
    tiers: dict[str, Endpoint] = {UTILITY: extractive}
    embedded: list[EmbeddedEndpoint] = [extractive]
    served = {
        UTILITY: (settings.utility_url, settings.utility_model, settings.utility_key),
        REASONING: (settings.reasoning_url, settings.reasoning_model, settings.reasoning_key),
    }
    for tier, (url, model, key) in served.items():
        if not url:
            continue
        if not model:
            raise StartupError(
                f"REFDESK_{tier.upper()}_URL is set without REFDESK_{tier.upper()}_MODEL: "
                "name the model to ask for there"
            )
        require_plain(f"tier {tier}", url)
        tiers[tier] = OpenAIEndpoint(tier, url, model, key, resilience)
    if REASONING not in tiers:
        llm = _open_llm(settings)
        tiers[REASONING] = llm
        embedded.append(llm)
    return ConfiguredEndpoints(tiers, extractive, tuple(embedded), resilience)


def served_tiers(settings: Settings) -> frozenset[str]:
    """The tiers whose writer is a server by the settings, and not the embedded one."""
    urls = {UTILITY: settings.utility_url, REASONING: settings.reasoning_url}
    return frozenset(tier for tier, url in urls.items() if url)


def _open_llm(settings: Settings) -> SmallLlmEndpoint:
    entry = ModelStore(settings.models_dir).require(settings.llm_model)
    weights = [path for path in entry.files if path.endswith(".gguf")]
    if len(weights) != 1:
        raise StartupError(
            f"model {settings.llm_model} has {len(weights)} .gguf files, one is needed; "
            "REFDESK_LLM_MODEL must name a GGUF model of the Llama architecture"
        )
    [name] = weights
    return SmallLlmEndpoint(
        settings.llm_model,
        entry.path / name,
        entry.files[name].sha256,
        settings.built_dir,
        threads=settings.llm_threads,
        context=settings.llm_context,
    )
