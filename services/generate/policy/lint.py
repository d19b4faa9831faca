"""What is wrong with a policy although each of its parts may stand in a file. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.generate.policy.compliance import EVERY, permits
from services.generate.policy.gate import shortfalls
from services.generate.policy.models import Model, State
from services.generate.policy.pricing import cost
from services.generate.policy.reach import Box, boxes, covered
from services.generate.policy.schema import (
    AUTO,
    FLAGS,
    NOBODY,
    NUMBERS,
    SUCCESS,
    Policy,
    Rule,
    Scored,
)
from services.generate.prompting.chat import Capability
from services.generate.reading.question import Intent
from services.generate.verification.checks.failure import Check
from services.generate.verification.checks.profile import PROFILES, STRICT, Profile

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
        *_tiers(policy),
        *_last_resort(policy),
        *_prices(policy),
        *_gate(policy),
        *_classes(policy),
        *_rules(policy),
        *_scored(policy),
        *_learned(policy),
        *_profiles(policy),
        *_grounding(policy),
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
        if model.rollback:
            yield from _rollback(policy, name, model)


def _rollback(policy: Policy, name: str, model: Model) -> Iterator[Finding]:
    place: Place = ("models", name, "rollback")
    target = policy.models.get(model.rollback)
    if target is None:
        yield from _known("model", policy.models, {place: model.rollback})
    elif model.rollback == name:
        yield Finding(place, f"model {name} can't be gone back to from itself")
    elif target.tier != model.tier:
        what = f"model {model.rollback} is of tier {target.tier}, {name} of {model.tier}"
        yield Finding(place, what)
    elif target.state is State.RETIRED:
        yield Finding(place, f"model {model.rollback} is retired")


def _tiers(policy: Policy) -> Iterator[Finding]:
    for name, tier in policy.tiers.items():
        chain: dict[Place, str] = {
            ("tiers", name, "models", index): model for index, model in enumerate(tier.models)
        }
        yield from _known("model", policy.models, chain)
        if len(set(tier.models)) < len(tier.models):
            yield Finding(("tiers", name, "models"), "a model stands twice in the chain")
        members = {model: policy.models[model] for model in tier.models if model in policy.models}
        if members and not any(model.state in _WRITES for model in members.values()):
            yield Finding(("tiers", name, "models"), "none of its models is active or deprecated")
        for member, model in members.items():
            if model.tier != name:
                message = (
                    f"model {member} is of tier {model.tier}, and stands in the chain of {name}"
                )
                yield Finding(("models", member, "tier"), message)
            if not _priced(model):
                message = f"tier {name} has no price: model {member} says none"
                yield Finding(("models", member), message)


def _last_resort(policy: Policy) -> Iterator[Finding]:
    last = policy.last_resort
    if last is None:
        return
    model = policy.models.get(last)
    if model is None:
        yield Finding(("last_resort",), f"there is no model named {last}")
    elif model.kind != "extractive":
        yield Finding(("last_resort",), f"model {last} is not of kind extractive")
    elif model.state not in _WRITES:
        yield Finding(("last_resort",), f"model {last} is {model.state}")


def _prices(policy: Policy) -> Iterator[Finding]:
    """With a budget, models outside of all chains need a price, too: a request may name them."""
    if policy.budgets.answer_nano_dollars is None:
        return
    chained = {name for tier in policy.tiers.values() for name in tier.models}
    for name, model in policy.models.items():
        if name not in chained and not _priced(model) and model.state is not State.RETIRED:
            yield Finding(("models", name), f"there is a budget, and model {name} has no price")


def _priced(model: Model) -> bool:
    return cost(model, 0, 0) is not None


def _gate(policy: Policy) -> Iterator[Finding]:
    used: dict[Place, str] = {("gate", "tiers", name): name for name in policy.gate.tiers}
    yield from _known("tier", policy.tiers, used)
    used = {("gate", "classes", name): name for name in policy.gate.classes}
    yield from _known("class", policy.classes, used)
    for name, model in policy.models.items():
        if model.state is State.ACTIVE:
            for why in shortfalls(policy, name):
                yield Finding(("models", name), f"model {name} can't be active: {why}")


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
    asked = {model for tier in policy.tiers.values() for model in tier.models}
    if policy.last_resort is not None:
        asked.add(policy.last_resort)
    for name in policy.classes:
        if not _writing(policy, asked, name):
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
    """Those of `models` that write without being named and may see data of this class."""
    return [
        policy.models[name]
        for name in models
        if permits(policy, data_class, name) and policy.models[name].state in _WRITES
    ]


def _rules(policy: Policy) -> Iterator[Finding]:
    found, everything = boxes(policy)
    for index, rule in enumerate(policy.rules):
        place: Place = ("rules", index)
        tiers: dict[Place, str] = {}
        if rule.then.tier not in (None, NOBODY):
            tiers[*place, "then", "tier"] = rule.then.tier
        if rule.when.served is not None:
            tiers[*place, "when", "served"] = rule.when.served
        if rule.when.success is not None:
            tiers[*place, "when", "success", "tier"] = rule.when.success.tier
        yield from _known("tier", policy.tiers, tiers)
        for one in rule.when.data_class or ():
            yield from _known("class", policy.classes, {(*place, "when", "data_class"): one})
        if not all(found[index].values()):
            yield Finding((*place, "when"), f"rule {rule.name} can never hold: a range is empty")
        elif covered(found[index], _before(policy.rules, found, index), everything):
            message = f"rule {rule.name} is unreachable: one above holds wherever it does"
            yield Finding(place, message)
        if rule.then.critical:
            yield from _critical(policy, rule, place)
        if rule.when.vision:
            yield from _blind(policy, rule, (*place, "then", "tier"))
    if policy.scored is None and not _some_rule_decides(policy):
        message = "some question may match no rule: add one without conditions, or scored routing"
        yield Finding(("rules",), message)


def _blind(policy: Policy, rule: Rule, place: Place) -> Iterator[Finding]:
    tier = policy.tiers.get(rule.then.tier or NOBODY)
    if tier is None:
        return  # told already, or nobody is asked
    models = [policy.models[name] for name in tier.models if name in policy.models]
    if all(one.lacks({Capability.VISION}) or one.state not in _WRITES for one in models):
        what = (
            f"rule {rule.name} is for images, and no model of tier {rule.then.tier} states vision"
        )
        yield Finding(place, what)


def _before(rules: Sequence[Rule], found: Sequence[Box], index: int) -> list[Box]:
    """The boxes of the rules that keep a later one from being looked at.

    One that escalates keeps only others that do from it: it lifts what the later ones decide.
    """
    escalates = rules[index].then.escalate is not None
    return [
        box
        for rule, box in zip(rules[:index], found[:index], strict=True)
        if escalates or rule.then.escalate is None
    ]


def _some_rule_decides(policy: Policy) -> bool:
    """Whether of any question."""
    found, everything = boxes(policy)
    pairs = zip(policy.rules, found, strict=True)
    return covered({}, [box for rule, box in pairs if rule.then.escalate is None], everything)


def _critical(policy: Policy, rule: Rule, place: Place) -> Iterator[Finding]:
    if rule.then.tier == NOBODY:
        yield Finding((*place, "then"), f"critical rule {rule.name} asks no writer")
        return
    if rule.then.tier is None or rule.then.tier not in policy.tiers:
        return  # told already
    tier = policy.tiers[rule.then.tier]
    name = rule.then.checks or tier.checks or policy.checks
    if name in _profile_names(policy) and not _is_strict(policy.profile(name)):
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
    if _some_rule_decides(policy):
        yield Finding(("scored",), "it is never used: one of the rules always holds")
    tiers: dict[Place, str] = {("scored", "start"): scored.start}
    tiers |= {("scored", "bars", index, "tier"): one.tier for index, one in enumerate(scored.bars)}
    yield from _known("tier", policy.tiers, tiers)
    yield from _weights(scored, policy.tiers)


def _learned(policy: Policy) -> Iterator[Finding]:
    learned = policy.learned
    if learned is None:
        return
    named: dict[Place, str] = {("learned", "cheap"): learned.cheap}
    named |= {("learned", "strong"): learned.strong}
    yield from _known("tier", policy.tiers, named)
    order = list(policy.tiers)
    known = {learned.cheap, learned.strong} <= {*order}
    if known and order.index(learned.cheap) >= order.index(learned.strong):
        what = f"tier {learned.cheap} is not cheaper than {learned.strong}"
        yield Finding(("learned", "cheap"), what)
    if learned.mode == "decide" and _some_rule_decides(policy):
        yield Finding(("learned", "mode"), "it never decides: one of the rules always holds")


def _weights(scored: Scored, tiers: Iterable[str]) -> Iterator[Finding]:
    for name in scored.weights:
        kind, dot, wanted = name.partition(".")
        fits = name in (*NUMBERS, *FLAGS)
        if dot:
            fits = (
                (kind == "intent" and wanted in {*Intent})
                or (kind == "language" and bool(wanted))
                or (kind == SUCCESS and wanted in tiers)
            )
        if not fits:
            message = (
                f"there is no feature {name}; there are {', '.join((*NUMBERS, *FLAGS))}, "
                "intent.NAME, language.CODE and success.TIER"
            )
            yield Finding(("scored", "weights", name), message)


def _profile_names(policy: Policy) -> frozenset[str]:
    return frozenset((*PROFILES, *policy.profiles))


def _is_strict(profile: Profile) -> bool:
    return profile.buffers and profile.checks >= STRICT.checks


def _profiles(policy: Policy) -> Iterator[Finding]:
    for name, one in policy.profiles.items():
        if name in PROFILES:
            yield Finding(("profiles", name), f"{name} is a profile that is there anyway")
        if Check.ENTAILMENT in one.checks and policy.grounding is None:
            message = "entailment needs a model that may be asked: add grounding"
            yield Finding(("profiles", name, "checks"), message)
    used: dict[Place, str | None] = {("checks",): policy.checks}
    used |= {("tiers", name, "checks"): tier.checks for name, tier in policy.tiers.items()}
    used |= {
        ("rules", index, "then", "checks"): rule.then.checks
        for index, rule in enumerate(policy.rules)
    }
    named = {place: name for place, name in used.items() if name is not None}
    yield from _known("profile", _profile_names(policy), named)


def _grounding(policy: Policy) -> Iterator[Finding]:
    if policy.grounding is None:
        return
    may_see = policy.grounding.classes
    used: dict[Place, str] = {
        ("grounding", "classes", index): one for index, one in enumerate(may_see)
    }
    yield from _known("class", policy.classes, used)
    for lax, strict in pairwise(policy.classes):
        if strict in may_see and lax not in may_see:
            message = f"the model may see data of class {strict}, but not {lax}"
            yield Finding(("grounding", "classes"), message)
