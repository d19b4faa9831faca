"""Which arms a search uses. Pure."""

from collections.abc import Mapping, Sequence

from services.retrieve.protocol import Skipped
from services.retrieve.search.candidates import EMBEDDED, Arm
from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.corpus import CorpusInfo
from shared.errors import ApiError


def chosen(
    asked: Sequence[Arm] | None, corpora: Mapping[str, CorpusInfo]
) -> tuple[Sequence[Arm], list[Skipped]]:
    """The arms that search the corpora, and what was asked for and is not among them.

    asked: None for those that there are: words, vectors and, where every corpus has them, sparse
    vectors. An arm that could search only some of the corpora would lift these above the others:
    it is left out. Raises ApiError 422 `no_sparse_vectors` where no other was asked for.
    """
    without = [name for name, info in corpora.items() if not info.sparse]
    if asked is None:
        return ([Arm.BM25, Arm.DENSE] if without else [Arm.BM25, Arm.DENSE, Arm.SPARSE]), []
    if not without or Arm.SPARSE not in asked:
        return asked, []
    others = [arm for arm in asked if arm is not Arm.SPARSE]
    reason = f"there are no sparse vectors in: {', '.join(without)}"
    if not others:
        raise ApiError(
            422,
            "no_sparse_vectors",
            f"arms: {reason}; name another arm, or reindex it with a model of embed's that "
            "makes sparse vectors",
            param="arms",
        )
    return others, [Skipped(stage=Arm.SPARSE.value, reason=reason)]


def no_arm(
    arms: Sequence[Arm], failed: Sequence[str], corpora: Mapping[str, CorpusInfo]
) -> ApiError:
    """The error for a search whose arms have all failed: 503 `no_arm`. failed: the stages that
    did."""
    embed, words = not EMBEDDED.isdisjoint(arms), Arm.BM25 in failed
    others = [name for name, one in corpora.items() if one.documents and one.analyser != ANALYSER]
    soon = words and not others  # else only a reindex ends it
    why = ["embed does not answer"] if embed else []
    ways = ["start embed"] if embed else ['search with the arm "dense", too']
    if soon:
        why.append("a word index is being built anew")
        ways.append("try again soon")
    elif words:
        why.append(f"another version of refdesk indexed the words of {', '.join(others)}")
        ways.append("make them anew with `refdesk reindex`")
    else:
        ways.append('search with the arm "bm25", too')
    return ApiError(
        503,
        "no_arm",
        f"{' and '.join(why)}, and the request allows no other arm than {' and '.join(arms)}; "
        f"{', or '.join(ways)}",
        headers={"Retry-After": "5"} if soon else None,
    )
