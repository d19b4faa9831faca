"""What a caller is told whose wish the policy refuses: the rule, never the list of models."""

from services.generate.policy.models import State
from services.generate.policy.schema import Policy
from services.generate.routing.decision import FORBIDDEN, Against, Decision
from shared.errors import ApiError, shown

_ABLE = (
    "tools, response_format and images need a served model that can take them, images one whose "
    "capabilities in the policy have vision: ask for such a model, or leave them out"
)


def refuse_names(
    policy: Policy, requested: str | None, mark: str | None, tiers: frozenset[str] | None
) -> None:
    """Raise the ApiError for a name that the policy doesn't know, or whose model is retired."""
    if requested is not None and requested not in policy.tiers:
        model = policy.models.get(requested)
        if model is None:
            raise ApiError(
                404,
                "model_not_found",
                f"there is no model '{shown(requested)}'; GET /v1/models lists what there is",
                param="model",
            )
        if model.state is State.RETIRED:
            way_out = f"ask for '{model.instead}'" if model.instead else "ask for 'auto'"
            message = f"model '{requested}' is retired: {way_out} instead"
            raise ApiError(410, "model_retired", message, param="model")
    if mark is not None and mark not in policy.classes:
        raise _unknown("data_class", "data class", mark, policy.classes)
    for tier in sorted(tiers or ()):
        if tier not in policy.tiers:
            raise _unknown("tiers", "tier", tier, tuple(policy.tiers))


def _unknown(field: str, what: str, name: str, known: tuple[str, ...]) -> ApiError:
    param = f"refdesk.{field}"
    message = f"{param}: there is no {what} '{shown(name)}'; there are {', '.join(known)}"
    return ApiError(400, "invalid_request", message, param=param)


def refuse_route(decision: Decision, requested: str | None) -> None:
    """Raise the ApiError for a tier or model that was asked for and may not write this time.

    403 where the policy's matrix or the key forbids it, 400 where it doesn't fit the request. Where
    nothing was asked for by name and nobody is left: 400 if some model lacks a capability that the
    request needs; else, if not even the last resort may write, 403 if the matrix or the key forbids
    one, and 503 if none is forbidden.
    """
    refused = decision.refused
    if refused is not None:
        forbidden = refused.rule in FORBIDDEN
        way_out = f"; {_ABLE}" if refused.rule == Against.CAPABILITY else ""
        raise ApiError(
            403 if forbidden else 400,
            "forbidden_model" if forbidden else "model_unfit",
            f"'{requested}' may not write this answer by the rule '{refused.rule}': {refused.why}"
            f"{way_out}",
            param="model",
        )
    nobody = decision.tier is None and not decision.declines
    if nobody and (unable := [one for one in decision.ruled_out if one.rule == Against.CAPABILITY]):
        rules = ", ".join(sorted({one.rule for one in decision.ruled_out}))
        raise ApiError(
            400,
            "model_unfit",
            f"no model may take this request: the rules {rules} leave none, and those that would "
            f"write lack something ({unable[0].why}); {_ABLE}",
            param="model",
        )
    if nobody and decision.last_resort is None:
        forbidden = any(one.rule in FORBIDDEN for one in decision.ruled_out)
        raise ApiError(
            403 if forbidden else 503,
            "no_writer_allowed",
            f"no writer may answer this: the data is of class {decision.data_class} "
            f"({decision.source}), and the rules "
            f"{', '.join(sorted({one.rule for one in decision.ruled_out}))} leave none",
        )
