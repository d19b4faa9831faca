"""Prints what an evaluation found, for a person."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from shared.cli.collection import CollectionDocument
from shared.cli.console import one_line, plain
from shared.cli.evaluation.figures import MAIN, MEASURES
from shared.cli.evaluation.losses import Judged, Loss
from shared.cli.evaluation.outcome import HARM_LIMIT, Outcome, Worst
from shared.cli.evaluation.runs import Run
from shared.cli.evaluation.significance import RESAMPLES, Comparison
from shared.cli.evaluation.variants import DEFAULT

_SHOWN_JUDGED = 10
_EXCERPT = 100  # characters


def report(outcome: Outcome, console: Console) -> None:
    """Print figures, comparisons, latencies, and the queries that lost most if they were wanted."""
    collection = outcome.collection
    _line(
        console,
        f"{collection.name}, {outcome.split}: {len(collection.documents)} documents, "
        f"{len(collection.queries)} queries",
    )
    _figures(outcome, console)
    others = [name for name in outcome.arms if name != outcome.baseline]
    _compared(outcome, outcome.baseline, others, console)
    _compared(outcome, DEFAULT, [variant.name for variant in outcome.compared], console)
    if outcome.harm is not None:
        harm = outcome.harm
        _line(
            console,
            f"\ncurated - {harm.best}, the best single arm: {harm.difference:+.4f} {MAIN}; "
            f"the rule that it does no harm (at least {HARM_LIMIT}) "
            f"{'holds' if harm.holds else 'is BROKEN'}",
        )
    _latencies(outcome, console)
    documents = {document.id: document for document in collection.documents}
    for one in outcome.worst:
        _worst(outcome, one, documents, console)


def _figures(outcome: Outcome, console: Console) -> None:
    skipped = {name: _skipped(run) for name, run in outcome.runs.items()}
    columns = ["arm", *MEASURES, *(["left out by the desk"] if any(skipped.values()) else [])]
    table = Table(*columns, box=None)
    for name, values in outcome.figures.items():
        cells = [_cell(name), *(f"{values[measure]:.4f}" for measure in MEASURES), skipped[name]]
        table.add_row(*cells[: len(columns)])
    console.print(table)


def _skipped(run: Run) -> str:
    return ", ".join(f"{stage} {count}x" for stage, count in sorted(run.skipped.items()))


def _compared(outcome: Outcome, baseline: str, names: Sequence[str], console: Console) -> None:
    if not names:
        return
    _line(
        console,
        f"\n{MAIN} against {baseline} ({RESAMPLES} resamples; p of a randomisation test)",
    )
    columns = ("arm", "difference", "95 % interval", "p", "better", "worse", "equal", "mean loss")
    table = Table(*columns, box=None)
    for name in names:
        table.add_row(_cell(name), *_comparison(outcome.against[name][MAIN]))
    console.print(table)


def _comparison(found: Comparison) -> list[str]:
    return [
        f"{found.difference:+.4f}",
        f"{found.low:+.4f} … {found.high:+.4f}",
        f"{found.p:.4f}",
        *(str(count) for count in (found.better, found.worse, found.equal)),
        f"{found.mean_loss:.4f}",
    ]


def _latencies(outcome: Outcome, console: Console) -> None:
    latencies = {name: run.latency_ms() for name, run in outcome.runs.items()}
    stages = list(dict.fromkeys(stage for found in latencies.values() for stage in found))
    _line(console, "\nmilliseconds, p50 / p95, one request at a time; http is the whole call")
    table = Table("arm", *stages, box=None)
    for name, found in latencies.items():
        cells = (found.get(stage) for stage in stages)
        table.add_row(
            _cell(name), *(f"{one['p50']:.1f} / {one['p95']:.1f}" if one else "" for one in cells)
        )
    console.print(table)


def _worst(
    outcome: Outcome, one: Worst, documents: dict[str, CollectionDocument], console: Console
) -> None:
    if not one.losses:
        _line(console, f"\nno query got worse with {one.name} than with {one.baseline}")
        return
    kind = "arm" if one.name in outcome.arms else "variant"
    most = f"the {len(one.losses)} queries" if len(one.losses) > 1 else "the query"
    _line(
        console,
        f"\n{most} that lost most {MAIN} with the {kind} {one.name}, against {one.baseline}",
    )
    for loss in one.losses:
        _loss(loss, outcome.collection.queries[loss.query], documents, console)


def _loss(
    loss: Loss, text: str, documents: dict[str, CollectionDocument], console: Console
) -> None:
    _line(console, f"\n{loss.query}: {_excerpt(text)}")
    _line(console, f"  {MAIN} {loss.baseline_value:.4f} → {loss.value:.4f}")
    for judged in loss.judged[:_SHOWN_JUDGED]:
        _line(
            console, f"  wanted   {_moved(judged):<11} {_described(judged.id, documents)}".rstrip()
        )
    if len(loss.judged) > _SHOWN_JUDGED:
        _line(console, f"  wanted   {len(loss.judged) - _SHOWN_JUDGED} more")
    for rank, document in loss.instead:
        _line(console, f"  instead  {rank:<11} {_described(document, documents)}")


def _moved(judged: Judged) -> str:
    return f"{judged.baseline_rank or '-'} → {judged.rank or '-'}"


def _described(identifier: str, documents: dict[str, CollectionDocument]) -> str:
    document = documents.get(identifier)
    if document is None:  # judged, but not in the collection
        return f"{identifier} (not in the collection)"
    return f"{identifier}: {_excerpt(document.title or document.text)}"


def _excerpt(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _EXCERPT else f"{line[:_EXCERPT]}…"


def _cell(text: str) -> str:
    return one_line(text).replace("[", r"\[")


def _line(console: Console, text: str) -> None:
    console.print(plain(text), markup=False, soft_wrap=True)
