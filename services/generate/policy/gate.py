"""The gate: whether a model is good and safe enough to be active. Pure functions."""

from collections.abc import Iterator

from services.generate.policy.compliance import permits
from services.generate.policy.models import Bars, Model
from services.generate.policy.schema import Policy


def shortfalls(policy: Policy, name: str) -> list[str]:
    """Why model `name` may not be active, a line each with its figures; empty where it may."""
    model = policy.models[name]
    gate = policy.gate
    found = [*_below(gate, model, "")]
    if model.tier in gate.tiers:
        found += _below(gate.tiers[model.tier], model, f" for tier {model.tier}")
    for data_class, bars in gate.classes.items():
        if permits(policy, data_class, name):
            found += _below(bars, model, f" for data of class {data_class}")
    return found


def _below(bars: Bars, model: Model, where: str) -> Iterator[str]:
    for benchmark, floor in bars.benchmarks.items():
        measured = model.benchmarks.get(benchmark)
        if measured is None:
            yield f"it has no benchmark {benchmark}, the gate asks for {floor:g}{where}"
        elif measured.score < floor:
            yield f"its {benchmark} is {measured.score:g}, the gate asks for {floor:g}{where}"
    if bars.max_risk is None:
        return
    if model.risk_points is None:
        yield f"its risk is not assessed, the gate allows {bars.max_risk}{where}"
    elif model.risk_points > bars.max_risk:
        yield f"its risk is {model.risk_points}, the gate allows {bars.max_risk}{where}"
