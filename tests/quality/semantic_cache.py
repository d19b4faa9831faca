"""How often the semantic cache would answer a question with another one's answer.

    python -m tests.quality.semantic_cache --collection DIR --embed-url URL

DIR is squad-v2-dev. Each question is looked up with all other answerable questions of its paragraph
in the cache: the hardest case there is, as people wrote them about the same few sentences. A hit is
wrong where no reference answer is common to both questions, or the one that is looked up has no
answer; a hit with a common one is right, whether or not the questions ask the same. Then each
question is looked up beside its own rewordings by rule, which should hit.

It prints both for a row of similarities, with and without the comparison of words in
cache/paraphrase.py, on the half of the articles that the similarity is chosen on or on the other.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from services.generate.cache.paraphrase import asks_the_same
from shared.vectors import read_vectors
from tests.quality.rewording import REWORDINGS
from tests.quality.squad import Question, is_tuning, questions

SIMILARITIES = (0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
BATCH = 256
Vectors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Pair:
    """A question, one that is in the cache, and whether the answer of the one serves the other."""

    asked: str
    cached: str
    right: bool
    cosine: float
    words_agree: bool


@dataclass(frozen=True)
class Rates:
    """Questions that were looked up, and of those the ones that hit another's answer."""

    asked: int
    right: int
    wrong: int


def neighbours(asked: Sequence[Question], known: Vectors) -> Iterator[list[Pair]]:
    """For each question, the pairs with all other answerable ones of its paragraph."""
    by_paragraph: dict[str, list[Question]] = defaultdict(list)
    for one in asked:
        by_paragraph[one.document_id].append(one)
    for several in by_paragraph.values():
        for one in several:
            yield [
                _pair(one.text, other.text, _share_an_answer(one, other), known)
                for other in several
                if other is not one and other.answers and _plain(other.text) != _plain(one.text)
            ]


def reworded(asked: Sequence[Question], known: Vectors) -> Iterator[list[Pair]]:
    """For each question, the pairs with its own rewordings."""
    for one in asked:
        for text in _rewordings(one.text):
            yield [_pair(text, one.text, True, known)]


def measure(
    lookups: Sequence[Sequence[Pair]], similarity: float, *, by_words: bool
) -> tuple[Rates, list[Pair]]:
    """What the cache gives at a similarity, and the wrong hits."""
    right, wrong = 0, []
    for pairs in lookups:
        close = [
            one for one in pairs if one.cosine >= similarity and (one.words_agree or not by_words)
        ]
        if close:
            best = max(close, key=lambda one: one.cosine)
            right += best.right
            wrong += [] if best.right else [best]
    return Rates(len(lookups), right, len(wrong)), wrong


def embedded(texts: Sequence[str], url: str) -> Vectors:
    """Unit vectors of texts, float32 [d] each."""
    known: dict[str, NDArray[np.float32]] = {}
    with httpx.Client(base_url=url, timeout=600) as client:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            body = {"input": batch, "encoding_format": "base64"}
            answer = client.post("/v1/embeddings", json=body).raise_for_status().json()
            made = read_vectors(answer, len(batch))
            made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)
            known |= dict(zip(batch, made, strict=True))
            print(f"embedded {start + len(batch)} of {len(texts)}", end="\r", file=sys.stderr)
    return known


def _pair(asked: str, cached: str, right: bool, known: Vectors) -> Pair:
    cosine = float(known[asked] @ known[cached])
    return Pair(asked, cached, right, cosine, asks_the_same(asked, cached))


def _share_an_answer(one: Question, other: Question) -> bool:
    return bool({_plain(text) for text in one.answers} & {_plain(text) for text in other.answers})


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _rewordings(text: str) -> list[str]:
    made: list[Callable[[str], str]] = list(REWORDINGS.values())
    return [new for new in dict.fromkeys(one(text) for one in made) if new != text]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--collection", type=Path, required=True, help="folder of squad-v2-dev")
    parser.add_argument("--embed-url", default="http://127.0.0.1:8001")
    parser.add_argument("--half", choices=["tuning", "report"], default="report")
    parser.add_argument("--reworded", type=int, default=300, help="questions that are reworded")
    parser.add_argument("--show", type=int, default=0, help="wrong hits to show")
    chosen = parser.parse_args()
    wanted = chosen.half == "tuning"
    asked = [one for one in questions(chosen.collection) if is_tuning(one.article) is wanted]
    answerable = [one for one in asked if one.answers]
    step = max(1, len(answerable) // chosen.reworded)
    sampled = answerable[::step]
    texts = dict.fromkeys(one.text for one in asked)
    texts |= dict.fromkeys(text for one in sampled for text in _rewordings(one.text))
    known = embedded(list(texts), chosen.embed_url)
    others, own = list(neighbours(asked, known)), list(reworded(sampled, known))
    print("similarity words | lookups   wrong   right | rewordings  found")
    shown: list[Pair] = []
    for similarity in SIMILARITIES:
        for by_words in (False, True):
            rates, wrong = measure(others, similarity, by_words=by_words)
            found, _ = measure(own, similarity, by_words=by_words)
            shown = wrong if by_words else shown
            print(
                f"{similarity:10.2f} {'yes' if by_words else 'no':>5} | {rates.asked:7} "
                f"{rates.wrong / rates.asked:7.2%} {rates.right / rates.asked:7.2%} | "
                f"{found.asked:10} {found.right / found.asked:6.1%}"
            )
            if by_words:
                for one in wrong[: chosen.show]:
                    print(f"    {one.cosine:.3f} {one.asked}\n          {one.cached}")


if __name__ == "__main__":
    main()
