"""The gate before curation: whether the first stage is certain already. Pure.

The rule. The arms that look by words and the dense arm each have the same document first, which is
also the first of the fused list, and each has it at least LEAD standard deviations of its scores in
the window ahead of its best chunk of any other document.

What it costs, on tuning questions with the default model and a window of 50. Where one document
holds the answer (SciFact train, 400 questions) 14 % are skipped, and nDCG@10 is the same for each
of them; a lead of 1.0 would skip 27 % and change none, either, one of 0.5 would skip 38 % and lose
0.0017. Where dozens of documents are relevant (NFCorpus dev, 324 questions) no rule is harmless for
every question, since curation orders places 2 to 10 as well: this one skips 3 %, of which a third
get worse and a quarter better, on average by nothing that could be measured (+0.0003 over all).
"""

from collections.abc import Mapping, Sequence

from services.retrieve.search.candidates import Arm, ChunkKey
from services.retrieve.search.curate import z_scores
from services.retrieve.search.fusion import Fused
from services.retrieve.stores.base import ChunkRecord

LEAD = 1.5
# In fewer candidates a lead in standard deviations means nothing, and to read them costs little.
_LEAST = 10


def certain(
    window: Sequence[Fused],
    scores: Mapping[Arm, Mapping[ChunkKey, float]],
    records: Mapping[ChunkKey, ChunkRecord],
) -> str | None:
    """Why the curator need not be asked, in words; None where it must.

    window: what the curator would read, best first. scores: each arm's exact scores of it. Never
    certain: with one kind of arm alone, over several corpora (their BM25 scores can't be compared),
    in a window of fewer than ten, or where a score or a record is missing.
    """
    keys = [one.key for one in window]
    several = len({key.corpus for key in keys}) > 1
    if len(keys) < _LEAST or several or Arm.DENSE not in scores or len(scores) < 2:
        return None
    if any(key not in column for column in scores.values() for key in keys):
        return None
    if any(key not in records for key in keys):
        return None
    first = records[keys[0]].document_id
    others = [n for n, key in enumerate(keys) if records[key].document_id != first]
    if not others:
        return None
    for column in scores.values():
        z = z_scores([column[key] for key in keys])
        if z[0] - max(z[n] for n in others) < LEAD:
            return None
    return "every arm has the same document first, far ahead of the next"
