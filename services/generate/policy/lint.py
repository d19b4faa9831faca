"""What is wrong with a policy although each of its parts may stand in a file. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from services.generate.policy.reach import boxes, covered
from services.generate.policy.schema import (
    AUTO,
    NOBODY,
    Model,
    Policy,
    Rule,
    Scored,
    State,
)
from services.generate.routing.compliance import EVERY, permits
from services.generate.routing.features import Intent
from services.generate.routing.rules import FLAGS, NUMBERS

Place = tuple[str | int, ...]
_WRITES = (State.ACTIVE, State.DEPRECATED)


@dataclass(frozen=True)
class Finding:
    """One thing to put right. place: the keys and indexes that lead to it; empty for the whole."""

    place: Place
    message: str


def lint(policy: Policy) -> list[Finding]:
    """Everything that is wrong; such a policy is not used. Empty where nothing is."""
    return [
        *_names(policy),
        *_models(policy),
        *_classes(policy),
        *_rules(policy),
        *_scored(policy),
    ]


def _names(policy: Policy) -> Iterator[Finding]:
    for name in policy.models:
        if name in policy.tiers or name in (AUTO, NOBODY):
            yield Finding(("models", name), "a model can't have the name of a tier, auto or none")
    for name in policy.tiers:
        if name in (AUTO, NOBODY):
            yield Finding(("tiers", name), "a tier can't be named auto or none")
    if len(set(policy.classes)) < len(policy.classes):
        yield Finding(("classes",), "a class stands twice")
    seen: set[str] = set()
    for index, rule in enumerate(policy.rules):
        if rule.name in seen:
            yield Finding(("rules", index, "name"), f"a rule named {rule.name} stands above")
        seen.add(rule.name)


def _known(what: str, known: Iterable[str], used: Mapping[Place, str]) -> Iterator[Finding]:
    for place, name in used.items():
        if name not in known:
            yield Finding(place, f"there is no {what} named {name}")


def _models(policy: Policy) -> Iterator[Finding]:
    for name, model in policy.models.items():
        used: dict[Place, str] = {("models", name, "tier"): model.tier}
        yield from _known("tier", policy.tiers, used)
        if model.instead:
            yield from _known("model", policy.models, {("models", name, "instead"): model.instead})
    for name, tier in policy.tiers.items():
        chain: dict[Place, str] = {
            ("tiers", name, "models", index): model for index, model in enumerate(tier.models)
        }
        yield from _known("model", policy.models, chain)
        if len(set(tier.models)) < len(tier.models):
            yield Finding(("tiers", name, "models"), "a model stands twice in the chain")
        members = [policy.models[model] for model in tier.models if model in policy.models]
        if members and not any(model.state in _WRITES for model in members):
            yield Finding(("tiers", name, "models"), "none of its models is active or deprecated")
        for member in tier.models:
            if member in policy.models and policy.models[member].price is None:
                message = f"tier {name} has no price: model {member} says none"
                yield Finding(("models", member), message)
    last = policy.last_resort
    if last is not None:
        if last not in policy.models:
            yield Finding(("last_resort",), f"there is no model named {last}")
        elif policy.models[last].kind != "extractive":
            yield Finding(("last_resort",), f"model {last} is not of kind extractive")


def _classes(policy: Policy) -> Iterator[Finding]:
    used: dict[Place, str] = {("default_class",): policy.default_class}
    used |= {("corpora", corpus): name for corpus, name in policy.corpora.items()}
    used |= {("detect", kind.value): name for kind, name in policy.detect.items()}
    used |= {("compliance", name): name for name in policy.compliance}
    yield from _known("class", policy.classes, used)
    for name, models in policy.compliance.items():
        listed: dict[Place, str] = {
            ("compliance", name, index): model
            for index, model in enumerate(models)
            if model != EVERY
        }
        yield from _known("model", policy.models, listed)
    for name in policy.classes:
        if not _writing(policy, policy.models, name):
            where: Place = ("compliance", name) if name in policy.compliance else ("compliance",)
            yield Finding(where, f"class {name} has no model that may write for it")
    # Who marks a question as stricter must not open it to a model that it was closed to.
    for lax, strict in pairwise(policy.classes):
        for model in policy.models:
            if permits(policy, strict, model) and not permits(policy, lax, model):
                yield Finding(
                    ("compliance", strict), f"{model} may see data of class {strict}, but not {lax}"
                )


def _writing(policy: Policy, models: Iterable[str], data_class: str) -> list[Model]:
    """Those of `models` that write and may see data of this class."""
    return [
        policy.models[name]
        for name in models
        if permits(policy, data_class, name) and policy.models[name].state in _WRITES
    ]


def _rules(policy: Policy) -> Iterator[Finding]:
    found, everything = boxes(policy)
    for index, rule in enumerate(policy.rules):
        place: Place = ("rules", index)
        if rule.then.tier != NOBODY:
            tier: dict[Place, str] = {(*place, "then", "tier"): rule.then.tier}
            yield from _known("tier", policy.tiers, tier)
        if rule.when.served is not None:
            served: dict[Place, str] = {(*place, "when", "served"): rule.when.served}
            yield from _known("tier", policy.tiers, served)
        for one in rule.when.data_class or ():
            yield from _known("class", policy.classes, {(*place, "when", "data_class"): one})
        if not all(found[index].values()):
            yield Finding((*place, "when"), f"rule {rule.name} can never hold: a range is empty")
        elif covered(found[index], found[:index], everything):
            message = f"rule {rule.name} is unreachable: one above holds wherever it does"
            yield Finding(place, message)
        if rule.then.critical:
            yield from _critical(policy, rule, place)
    if policy.scored is None and not covered({}, found, everything):
        message = "some question may match no rule: add one without conditions, or scored routing"
        yield Finding(("rules",), message)


def _critical(policy: Policy, rule: Rule, place: Place) -> Iterator[Finding]:
    if rule.then.tier == NOBODY:
        yield Finding((*place, "then"), f"critical rule {rule.name} asks no writer")
        return
    if rule.then.tier not in policy.tiers:
        return  # told already
    tier = policy.tiers[rule.then.tier]
    if (rule.then.checks or tier.checks or policy.checks) != "strict":
        yield Finding((*place, "then"), f"critical rule {rule.name} is not checked strictly")
    for data_class in rule.when.data_class or policy.classes:
        paths = {model.path for model in _writing(policy, tier.models, data_class)}
        if len(paths) < 2:
            message = (
                f"critical rule {rule.name}: tier {rule.then.tier} has "
                f"{len(paths) or 'no'} model path{'' if paths else 's'} for data of class "
                f"{data_class}; two are needed"
            )
            yield Finding((*place, "then"), message)


def _scored(policy: Policy) -> Iterator[Finding]:
    scored = policy.scored
    if scored is None:
        return
    if covered({}, *boxes(policy)):
        yield Finding(("scored",), "it is never used: one of the rules always holds")
    tiers: dict[Place, str] = {("scored", "start"): scored.start}
    tiers |= {("scored", "bars", index, "tier"): one.tier for index, one in enumerate(scored.bars)}
    yield from _known("tier", policy.tiers, tiers)
    yield from _weights(scored)


def _weights(scored: Scored) -> Iterator[Finding]:
    for name in scored.weights:
        kind, dot, wanted = name.partition(".")
        fits = name in (*NUMBERS, *FLAGS)
        if dot:
            fits = (kind == "intent" and wanted in {*Intent}) or (
                kind == "language" and bool(wanted)
            )
        if not fits:
            message = (
                f"there is no feature {name}; there are {', '.join((*NUMBERS, *FLAGS))}, "
                "intent.NAME and language.CODE"
            )
            yield Finding(("scored", "weights", name), message)
