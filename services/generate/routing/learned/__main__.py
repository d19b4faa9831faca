"""`python -m services.generate.routing.learned train|replay`: what `refdesk router` runs.

Results go to standard output, progress to standard error. Exits with 1 where something is wrong.
"""

import argparse
import asyncio
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import structlog

from services.generate.policy.file import PolicyError
from services.generate.routing.learned.contest import Replay, cross_judge, judge, replay
from services.generate.routing.learned.model import read_router, write_router
from services.generate.routing.learned.outcomes import (
    Outcomes,
    OutcomesError,
    deal,
    near_duplicates,
    read_outcomes,
)
from services.generate.routing.learned.train import train
from services.generate.routing.learned.vectors import Embedded, embed
from shared.errors import ApiError, StartupError
from shared.settings import load_settings


def main() -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="refdesk router")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--share", type=float, required=True)
    training.add_argument("--unsure", type=float, required=True)
    replaying = commands.add_parser("replay")
    replaying.add_argument("--router", type=Path)
    replaying.add_argument("--folds", type=int, required=True)
    replaying.add_argument("--seed", type=int, required=True)
    replaying.add_argument("--json", action="store_true")
    for command in (training, replaying):
        command.add_argument("file", type=Path)
        command.add_argument("--vectors", type=Path)
    asked = parser.parse_args()
    try:
        outcomes = read_outcomes(asked.file)
        if asked.command == "train":
            return _train(asked, outcomes)
        return _replay(asked, outcomes)
    except (OutcomesError, PolicyError, StartupError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _train(asked: argparse.Namespace, outcomes: Outcomes) -> int:
    vectors = _vectors(asked, outcomes)
    groups = near_duplicates(outcomes.texts)
    router = train(outcomes, vectors, groups, share=asked.share, unsure=asked.unsure)
    write_router(asked.out, router)
    print(
        f"{asked.out}: learned from {router.questions} questions, with vectors of {router.embedder}"
    )
    return 0


def _replay(asked: argparse.Namespace, outcomes: Outcomes) -> int:
    router = read_router(asked.router) if asked.router else None
    vectors = _vectors(asked, outcomes)
    groups = near_duplicates(outcomes.texts)
    if router is None:
        fold = deal(groups, asked.folds, asked.seed)
        judged = cross_judge(outcomes, vectors, groups, fold)
    else:
        judged = [judge(router, outcomes, vectors, np.arange(len(outcomes.texts)))]
    folds = 0 if router else asked.folds
    report = replay(outcomes, judged, groups, folds=folds, seed=asked.seed)
    print(json.dumps(asdict(report), indent=2) if asked.json else table(report))
    return 0


def _vectors(asked: argparse.Namespace, outcomes: Outcomes) -> Embedded:
    return asyncio.run(embed(outcomes.texts, load_settings(), asked.vectors, _progress))


def _progress(done: int, total: int) -> None:
    print(f"embedded {done} of {total} questions", file=sys.stderr, flush=True)


def table(report: Replay) -> str:
    """A replay for people: a line for each router, and what came of the decisions."""
    how = f"{report.folds} folds" if report.folds else "a router that was trained before"
    lines = [
        f"{report.questions} questions in {report.groups} groups of near-duplicates, {how}",
        f"{'router':14} {'APGR':>6} {'95 % interval':>14} {'over length':>12} "
        f"{'95 % interval':>15} {'CPT50':>6} {'CPT80':>6} {'to oracle':>10}",
    ]
    for name, one in report.routers.items():
        lines.append(
            f"{name:14} {one.apgr:6.3f} {f'{one.low:.3f} {one.high:.3f}':>14} "
            f"{one.over_length:+12.3f} {f'{one.over_low:+.3f} {one.over_high:+.3f}':>15} "
            f"{one.cpt50:6.3f} {one.cpt80:6.3f} {one.oracle_gap:10.3f}"
        )
    made = report.decisions
    lines.append(
        f"decisions: {made.strong:.1%} to the strong writer, {made.right:.1%} right (all weak "
        f"{made.weak_right:.1%}, all strong {made.strong_right:.1%}); {made.unsure:.1%} declined; "
        f"calibration error {made.calibration_error:.3f}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    # What goes wrong is told in one line of our own.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(main())
