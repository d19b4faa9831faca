"""How many untrue sentences verification catches, and how many true ones it fails.

    python -m tests.quality.corruptions FOLDER [--half tuning|report] [--profile strict] [--show 3]

FOLDER is squad-v2-dev. The true sentences are those of its paragraphs that hold the answer to a
question; each is cited to its paragraph, which stands among four others of the same article. The
untrue ones are made from them by rule:

* entity: a name is replaced by another of the article: of the same paragraph (``near``), or not;
* word: a word in lower case is replaced by another of the same paragraph (``near``);
* number, date: replaced by another of the same paragraph (``near``), or by an invented one;
* negation: one is put in, or taken out;
* passage: the sentence as it is, cited to the other paragraph that is most like it (``near``), or
  to one drawn by chance.

The rewordings, which stay true, are by rule, too: an opening such as "According to the passage,",
the title for a pronoun, an opening phrase moved to the end, contractions, numbers and dates
written otherwise, a bracket or a last clause left out, the marker left out.

Rules of verification are tuned on the articles whose title's SHA-256 begins with a byte below 128
(``tuning``); the others are for reporting (``report``). What is drawn is drawn by a fixed seed.
"""

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.generate.reading.passages import Passage
from services.generate.reading.sentences import Kind, split
from services.generate.reading.words import terms, without_markers
from services.generate.verification.checks.profile import PROFILES
from services.generate.verification.verify import Verdict, verify
from tests.quality.alterations import CORRUPTIONS, REWORDINGS, Article, Found, names_of
from tests.quality.squad import is_tuning, rows

_SEED = 20
_BESIDE = 4  # other paragraphs of the article that stand beside the right one
_SHORTEST, _LONGEST = 40, 400  # characters of a sentence that is worth corrupting


@dataclass(frozen=True)
class Case:
    """A draft of one sentence and what it is to be checked against.

    kind: what was done to it. true: whether it must pass.
    """

    kind: str
    true: bool
    draft: str
    question: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Rate:
    """failed: how many of `asked` verification failed: catches, or false alarms."""

    asked: int
    failed: int

    @property
    def share(self) -> float:
        """0..1; 0.0 where nothing was asked."""
        return self.failed / self.asked if self.asked else 0.0


def articles(folder: Path, *, reported: bool) -> list[Article]:
    """The articles of one half, by title."""
    documents = {row["_id"]: row for row in rows(folder / "corpus.jsonl")}
    lines = (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]
    home = {query: document for query, document, _ in (line.split("\t") for line in lines)}
    asked: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for row in rows(folder / "queries.jsonl"):
        asked[home[row["_id"]]].append((row["text"], row["answers"]))
    by_title: dict[str, list[str]] = defaultdict(list)
    for name, row in documents.items():
        if is_tuning(row["title"]) is not reported:
            by_title[row["title"]].append(name)
    found = []
    for title in sorted(by_title):
        texts = [without_markers(documents[name]["text"]) for name in by_title[title]]
        sentences = [
            one
            for name, text in zip(by_title[title], texts, strict=True)
            for one in _answering(text, asked[name])
        ]
        names = dict.fromkeys(name for text in texts for name in names_of(text))
        found.append(Article(title, tuple(texts), tuple(sentences), tuple(names)))
    return found


def _answering(paragraph: str, asked: Sequence[tuple[str, list[str]]]) -> Iterator[Found]:
    before = ""
    for sentence in split(paragraph):
        question = next(
            (text for text, answers in asked if any(one in sentence.text for one in answers)), None
        )
        fits = _SHORTEST <= len(sentence.text) <= _LONGEST and sentence.kind is Kind.PROSE
        if question is not None and fits and sentence.text.endswith("."):
            yield Found(sentence.text, before, question, paragraph)
        before = sentence.text


def cases(article: Article, count: int) -> Iterator[Case]:
    """What is made of `count` sentences of an article, spread evenly over it."""
    draw = random.Random(f"{_SEED} {article.title}")
    several = article.sentences
    wanted = min(count, len(several))
    for step in range(wanted):
        found = several[step * len(several) // wanted]
        others = [text for text in article.paragraphs if text != found.paragraph]
        beside = draw.sample(others, min(_BESIDE, len(others)))
        nearest = max(others, key=lambda text: _alike(found.text, text), default=None)
        if nearest is not None and nearest not in beside:
            beside[-1] = nearest
        shown = [found.paragraph, *beside]
        draw.shuffle(shown)
        passages = tuple(
            Passage(n, f"{n}#0", str(n), "squad", article.title, None, text, 0.5)
            for n, text in enumerate(shown, start=1)
        )
        here = shown.index(found.paragraph) + 1
        for kind, true, text in _variants(found, article, draw):
            yield Case(kind, true, f"{text} [{here}]", found.question, passages)
        yield Case("no marker", True, found.text, found.question, passages)
        for kind, other in (("passage near", nearest), ("passage", draw.choice(beside))):
            if other is not None and found.text not in other:
                draft = f"{found.text} [{shown.index(other) + 1}]"
                yield Case(kind, False, draft, found.question, passages)


def _variants(
    found: Found, article: Article, draw: random.Random
) -> Iterator[tuple[str, bool, str]]:
    text = found.text
    yield "as written", True, text
    for kind, reword in REWORDINGS.items():
        changed = reword(found, article, draw)
        if changed is not None and changed != text:
            yield kind, True, changed
    for kind, corrupt in CORRUPTIONS.items():
        changed = corrupt(found, article, draw)
        if changed is not None and changed != text:
            yield kind, False, changed


def _alike(sentence: str, text: str) -> float:
    wanted = set(terms(sentence))
    return len(wanted & set(terms(text))) / max(1, len(wanted))


def measure(
    made: Sequence[Case], check: Callable[[Case], Verdict]
) -> tuple[dict[str, Rate], list[tuple[Case, Verdict]]]:
    """Rates by kind, and the cases that went wrong: true ones that failed, untrue that passed."""
    asked: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    wrong = []
    for case in made:
        verdict = check(case)
        asked[case.kind] += 1
        failed[case.kind] += not verdict.passed
        if verdict.passed is not case.true:
            wrong.append((case, verdict))
    return {kind: Rate(asked[kind], failed[kind]) for kind in asked}, wrong


def total(rates: dict[str, Rate], made: Sequence[Case], *, true: bool) -> Rate:
    """All true ones, or all untrue ones, together."""
    kinds = {case.kind for case in made if case.true is true}
    return Rate(sum(rates[kind].asked for kind in kinds), sum(rates[kind].failed for kind in kinds))


def main() -> None:
    """The command line: a table of rates, and what went wrong where it is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of squad-v2-dev")
    parser.add_argument("--half", choices=["tuning", "report"], default="report")
    parser.add_argument("--count", type=int, default=30, help="sentences of each article")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="strict")
    parser.add_argument("--show", type=int, default=0, help="wrong cases to show of each kind")
    chosen = parser.parse_args()
    made = [
        case
        for article in articles(chosen.folder, reported=chosen.half == "report")
        for case in cases(article, chosen.count)
    ]
    rates, wrong = measure(
        made,
        lambda case: verify(
            case.draft, case.passages, question=case.question, profile=PROFILES[chosen.profile]
        ),
    )
    for true in (False, True):
        print("false alarms:" if true else "caught:")
        for kind in sorted({case.kind for case in made if case.true is true}):
            rate = rates[kind]
            print(f"  {kind:20} {rate.share:6.1%}  of {rate.asked}")
        rate = total(rates, made, true=true)
        print(f"  {'all':20} {rate.share:6.1%}  of {rate.asked}")
    shown: Counter[str] = Counter()
    for case, verdict in wrong:
        shown[case.kind] += 1
        if shown[case.kind] <= chosen.show:
            print(f"\n[{case.kind}] {case.draft}")
            for failure in verdict.failures:
                print(f"    {failure.check}: {failure.detail[:160]}")


if __name__ == "__main__":
    main()
