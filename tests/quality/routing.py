"""What the learned router is worth on recorded outcomes, and how it bears a change of words.

    python -m tests.quality.routing FOLDER [--vectors FILE.npz] [--seed 0] [--tried]

FOLDER has items.jsonl: text, weak_correct, strong_correct and, for questions of known subjects,
domain. The script starts an embed service, trains in five folds (questions that are much alike in
the same one) and prints, as JSON on standard output,

* `by_question`: the figures of `refdesk router replay` with the same seed;
* `by_subject`: the same where no subject is both trained on and judged; no router reads subjects;
* `flips`: of every so many questions, judged by a router that has not seen them, the share that
  lean to the other writer once they are reworded (tests/quality/rewording.py);
* with --tried `tried`: the APGR with each choice of what is read of a question.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.generate.routing.learned.contest import (
    LEARNED,
    Judged,
    cross_judge,
    replay,
)
from services.generate.routing.learned.features import canonical
from services.generate.routing.learned.model import Lean, RouterModel
from services.generate.routing.learned.outcomes import (
    RecordedOutcome,
    columns,
    deal,
    near_duplicates,
)
from services.generate.routing.learned.train import View, train
from services.generate.routing.learned.vectors import Embedded, embed
from shared.settings import Settings
from tests.quality.rewording import REWORDINGS
from tests.suite import prepare_suite

FOLDS = 5
REWORDED_EVERY = 8
TRIED = [tuple(views) for count in (1, 2, 3) for views in combinations(View, count)]


class Librarian:
    """The embed service of a suite, and the file in which its vectors are kept."""

    def __init__(self, url: str, kept: Path | None) -> None:
        self._settings = Settings(embed_url=url)
        self._kept = kept

    def vectors(self, texts: tuple[str, ...]) -> Embedded:
        """The unit vectors of canonical texts."""
        return asyncio.run(embed(texts, self._settings, self._kept, _told))


def _told(done: int, total: int) -> None:
    print(f"embedded {done} of {total}", end="\r", file=sys.stderr)


def flips(
    texts: list[str], judged: list[Judged], before: NDArray[np.float64], librarian: Librarian
) -> dict[str, dict[str, float]]:
    """By rule: the share of the sampled questions that it changes and of those whose side it does.

    before: the log-odds of all questions as they were asked.
    """
    chosen = np.arange(0, len(texts), REWORDED_EVERY)
    router: dict[int, RouterModel] = {
        int(place): one.router for one in judged for place in one.places
    }
    found = {}
    for name, reword in REWORDINGS.items():
        reworded = [reword(texts[place]) for place in chosen]
        bare = tuple(canonical(text) for text in reworded)
        unit = librarian.vectors(bare).unit
        flipped = crossed = changed = 0
        for row, place in enumerate(map(int, chosen)):
            own = router[place]
            after = float(own.log_odds(bare[row : row + 1], unit[row : row + 1])[0])
            first, second = own.opinion(before[place]), own.opinion(after)
            changed += reworded[row] != texts[place]
            flipped += first.leans is not second.leans
            crossed += {first.choice, second.choice} == {Lean.WEAK, Lean.STRONG}
        count = len(chosen)
        found[name] = {
            "reworded": changed / count,
            "flipped": flipped / count,
            "flipped_past_the_margin": crossed / count,
        }
    return found


def measured(folder: Path, librarian: Librarian, seed: int, tried: bool) -> dict[str, Any]:
    """All figures."""
    with (folder / "items.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts = [row["text"] for row in rows]
    outcomes = columns([RecordedOutcome.model_validate(row) for row in rows])
    vectors = librarian.vectors(outcomes.texts)
    groups = near_duplicates(outcomes.texts)
    _, subjects = np.unique([row.get("domain", row["text"]) for row in rows], return_inverse=True)

    def contest(views: tuple[View, ...], dealt: NDArray[np.intp]) -> tuple[list[Judged], Any]:
        fold = deal(dealt, FOLDS, seed)
        judged = cross_judge(outcomes, vectors, groups, fold, partial(train, views=views))
        return judged, replay(outcomes, judged, groups, folds=FOLDS, seed=seed)

    judged, by_question = contest(tuple(View), groups)
    before = np.empty(len(texts))
    for one in judged:
        before[one.places] = one.log_odds
    report = {
        "by_question": asdict(by_question),
        "by_subject": asdict(contest(tuple(View), subjects)[1]),
        "flips": flips(texts, judged, before, librarian),
    }
    if tried:
        report["tried"] = {
            ", ".join(views): {
                how: contest(views, dealt)[1].routers[LEARNED].apgr
                for how, dealt in (("by_question", groups), ("by_subject", subjects))
            }
            for views in TRIED
        }
    return report


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tried", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        suite = prepare_suite(Path(place))
        try:
            librarian = Librarian(suite.url("embed"), asked.vectors)
            print(json.dumps(measured(asked.folder, librarian, asked.seed, asked.tried), indent=2))
        finally:
            suite.stop()


if __name__ == "__main__":
    main()
