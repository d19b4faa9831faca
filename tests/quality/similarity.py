"""What the likeness of vectors adds to the checks of words, on the corrupted sentences of SQuAD.

    python -m tests.quality.similarity FOLDER --cache DIR [--count 10]

FOLDER is squad-v2-dev; DIR is for what embed keeps. The cases are those of `corruptions`, and the
true sentences with common words replaced by synonyms (`rewording`). Each claim is compared with the
sentences of the passages that it cites: by the cosine of their vectors, and by late interaction:
each token of the claim with its best token of the sentence, on average. Bars are those under which
0.5, 1, 5 or 10 of 100 true sentences of the tuning half fall; the report half is told beside it.
"""

import argparse
import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from services.generate.reading.citations import claims
from services.generate.reading.sentences import split
from services.generate.verification.checks.failure import Check
from services.generate.verification.checks.profile import LIGHT, STRICT
from services.generate.verification.similarity import MIN_COSINE
from services.generate.verification.verify import verify
from tests.quality.corruptions import Case, articles, cases
from tests.quality.rewording import synonyms
from tests.suite import prepare_suite

BATCH = 16  # texts; embed gives token vectors for some 8,000 bytes at a time
ALARMS = (0.005, 0.01, 0.05, 0.10)
INSTEAD = (0.90, 0.95)  # cosines that might stand in for the words that support wants
SYNONYMS = "synonyms"
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """A case with how alike its claim and the nearest cited sentence are, and whether the profiles
    catch it. wording: whether strict catches it by the check of support alone."""

    case: Case
    reported: bool
    cosine: float
    max_sim: float
    strict: bool
    light: bool
    wording: bool


def made(folder: Path, count: int, *, reported: bool) -> Iterator[Case]:
    """The cases of one half, the synonyms among them."""
    for article in articles(folder, reported=reported):
        for case in cases(article, count):
            yield case
            text = synonyms(case.draft)
            if case.kind == "as written" and text != case.draft:
                yield Case(SYNONYMS, True, text, case.question, case.passages)


def compared(case: Case) -> tuple[str, list[str]]:
    """The claim and the sentences that it may have been made from."""
    [claim, *_] = claims(case.draft)
    cited = [one for one in case.passages if one.n in claim.cited] or case.passages
    return claim.text, [sentence.text for one in cited for sentence in split(one.text)]


def embedded(url: str, texts: Sequence[str]) -> dict[str, Vectors]:
    """For each text its vector and those of its tokens, float32 [1 + tokens, d], of length 1."""
    found = {}
    with httpx.Client(base_url=url, timeout=600) as client:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            body = {"input": batch, "encoding_format": "base64", "outputs": ["dense", "tokens"]}
            answer = client.post("/v1/embeddings", json=body).raise_for_status().json()
            for text, one in zip(batch, answer["data"], strict=True):
                found[text] = _units([one["embedding"], *one["token_embeddings"]])
    return found


def _units(wire: Sequence[Any]) -> Vectors:
    rows = np.stack([np.frombuffer(base64.b64decode(one), "<f4") for one in wire])
    units: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return units


def max_sim(claim: Vectors, sentence: Vectors) -> float:
    """ColBERT's late interaction (Khattab and Zaharia, SIGIR 2020) over the claim's tokens, -1..1.

    claim, sentence: float32 [tokens, d], of length 1.
    """
    return float((claim @ sentence.T).max(axis=1).mean())


def _seen(case: Case, reported: bool, known: dict[str, Vectors]) -> Seen:
    claim, sentences = compared(case)
    one, others = known[claim], [known[sentence] for sentence in sentences]
    strict, light = (
        verify(case.draft, case.passages, question=case.question, profile=profile)
        for profile in (STRICT, LIGHT)
    )
    return Seen(
        case,
        reported,
        max(float(one[0] @ other[0]) for other in others),
        max(max_sim(one[1:], other[1:]) for other in others),
        not strict.passed,
        not light.passed,
        {failure.check for failure in strict.failures} == {Check.SUPPORT},
    )


def _shares(seen: Sequence[Seen], caught: Sequence[bool]) -> str:
    """Of the untrue, the true and those with synonyms."""
    groups: dict[str, list[bool]] = {"untrue": [], "true": [], SYNONYMS: []}
    for one, value in zip(seen, caught, strict=True):
        kind = SYNONYMS if one.case.kind == SYNONYMS else "true" if one.case.true else "untrue"
        groups[kind].append(value)
    return " / ".join(f"{np.mean(values):6.1%}" for values in groups.values())


def _row(name: str, bar: float, seen: Sequence[Seen], *, tokens: bool) -> str:
    """What is caught by the vectors alone, with the profile light, with strict."""
    low = [(one.max_sim if tokens else one.cosine) < bar for one in seen]
    light = [far or one.light for far, one in zip(low, seen, strict=True)]
    strict = [far or one.strict for far, one in zip(low, seen, strict=True)]
    shares = "   ".join(_shares(seen, caught) for caught in (low, light, strict))
    return f"{name:22} {bar:5.2f}   {shares}"


def main() -> None:
    """The command line: for each half a table, each column untrue / true / synonyms caught."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of squad-v2-dev")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10, help="sentences of each article")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)
    several = [
        (case, reported)
        for reported in (False, True)
        for case in made(chosen.folder, chosen.count, reported=reported)
    ]
    wanted = [compared(case) for case, _ in several]
    texts = sorted({text for claim, sentences in wanted for text in (claim, *sentences)}, key=len)
    suite = prepare_suite(chosen.cache)
    try:
        known = embedded(suite.url("embed"), texts)
    finally:
        suite.stop()
    seen = [_seen(case, reported, known) for case, reported in several]
    tuned = [one for one in seen if not one.reported and one.case.true]
    for reported in (False, True):
        half = [one for one in seen if one.reported is reported]
        print(f"{'report' if reported else 'tuning'} half, {len(half)} cases; alone, light, strict")
        print(_row("by words alone", -1.0, half, tokens=False))
        print(_row("the check's bar", MIN_COSINE, half, tokens=False))
        for bar in INSTEAD:
            kept = [one.strict and not (one.wording and one.cosine >= bar) for one in half]
            print(f"strict, {bar:.2f} stands in for support: {_shares(half, kept)}")
        for alarms in ALARMS:
            for tokens in (False, True):
                values = [one.max_sim if tokens else one.cosine for one in tuned]
                name = f"{'tokens' if tokens else 'cosine'} at {alarms:.1%}"
                print(_row(name, float(np.quantile(values, alarms)), half, tokens=tokens))


if __name__ == "__main__":
    main()
