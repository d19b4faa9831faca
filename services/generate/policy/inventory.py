"""The inventory of a policy's models: all that is known of each. Pure functions."""

import csv
import io
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

from services.generate.policy.compliance import permits
from services.generate.policy.gate import shortfalls
from services.generate.policy.models import Benchmark, Model, Part, Price, Risk
from services.generate.policy.schema import Policy
from shared.moment import Moment

# What a spreadsheet may take for the beginning of a formula, the last four in Japanese ones:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Passed(StrEnum):
    """Whether a model would pass the policy's gate, whatever its state."""

    YES = "passed"
    NO = "refused"


class Entry(Model):
    """A model of the policy in the inventory, with what follows from the rest of it.

    since: when it came into its state, UTC; None where that isn't known. serves: the model that is
    asked for, at `url` or by the settings. chain: its place among the models of its tier, from 1;
    None where it writes only where a request names it, or as the last resort. classes: of the data
    that it may see. shortfalls: what it lacks for the gate. risk_score: see `Model.risk_points`.
    """

    name: str
    since: Moment | None
    serves: str
    chain: int | None
    last_resort: bool
    classes: tuple[str, ...]
    gate: Passed
    shortfalls: tuple[str, ...]
    risk_score: int | None


class Inventory(Part):
    """All models of a policy. policy: its fingerprint."""

    policy: str
    models: tuple[Entry, ...]


def inventory(
    policy: Policy, since: Mapping[str, datetime], serves: Callable[[str, Model], str]
) -> Inventory:
    """The inventory. since: when each model came into its state. serves: the model asked for."""
    entries = []
    for name, model in policy.models.items():
        chain = policy.tiers[model.tier].models
        lacks = tuple(shortfalls(policy, name))
        entries.append(
            Entry(
                **dict(model),
                name=name,
                since=since.get(name),
                serves=serves(name, model),
                chain=chain.index(name) + 1 if name in chain else None,
                last_resort=name == policy.last_resort,
                classes=tuple(one for one in policy.classes if permits(policy, one, name)),
                gate=Passed.NO if lacks else Passed.YES,
                shortfalls=lacks,
                risk_score=model.risk_points,
            )
        )
    return Inventory(policy=policy.fingerprint, models=tuple(entries))


def to_csv(found: Inventory) -> str:
    """A table with a row for each model. What a list or part holds stands in one cell, split by
    semicolons, ``none`` where it is empty; an empty cell is what nobody has said. No cell is taken
    for a formula by a spreadsheet.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180
    columns = sorted(Entry.model_fields, key=lambda name: name != "name")  # that one first
    writer.writerow(["policy", *columns])
    for entry in found.models:
        writer.writerow([found.policy, *(_cell(getattr(entry, name)) for name in columns)])
    return out.getvalue()


def _cell(value: object) -> str:
    text = _plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Price):
        return f"{value.input} in, {value.output} out"
    if isinstance(value, Risk):
        return f"{value.item} {value.points} ({value.why})"
    if isinstance(value, Benchmark):
        return f"{value.score:g} ({value.date}, {value.source})"
    if value in ((), {}):
        return "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, tuple):
        return "; ".join(map(_plain, value))
    return str(value)
