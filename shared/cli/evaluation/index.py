"""A collection's documents in a corpus: made, proved with each way to ask, and filled."""

from collections.abc import Iterator, Sequence

from shared.cli.collection import Collection
from shared.cli.console import notes
from shared.cli.evaluation.runs import body
from shared.cli.evaluation.variants import Variant
from shared.cli.failures import CliError, RefusedError
from shared.cli.http import Api, corpus_path
from shared.cli.sources import Entry, document
from shared.cli.upload import ensure_corpus, store, store_with_bar

_UNUSABLE = ("model_mismatch", "chunker_mismatch", "corpus_damaged")


def fill(
    api: Api,
    corpus: str,
    collection: Collection,
    variants: Sequence[Variant],
    *,
    fresh: bool,
    own: bool,
    language: str = "",
) -> bool:
    """Store the documents in `corpus`; whether all of them were there already.

    fresh: throw away what is there. own: the corpus is nobody else's, so that one which can't be
    used any more is made anew. language: of the corpus, if not the suite's own. Each variant is
    asked once before anything is stored: raises CliError naming the one that the desk refuses, and
    for a document that can't be stored.
    """
    if fresh:
        _delete(api, corpus)
    try:
        return _fill(api, corpus, collection, variants, language)
    except RefusedError as error:
        if not own or error.code not in _UNUSABLE:
            raise
        notes().print(f"the index is made anew: {error}", markup=False, soft_wrap=True)
    _delete(api, corpus)
    return _fill(api, corpus, collection, variants, language)


def _fill(
    api: Api, corpus: str, collection: Collection, variants: Sequence[Variant], language: str
) -> bool:
    made = ensure_corpus(api, corpus, language)
    try:
        for variant in variants:
            _prove(api, corpus, variant)
    except BaseException:
        if made:  # or a mistyped field would leave an empty corpus behind
            _delete(api, corpus)
        raise
    documents = list(_documents(collection))
    # Storing a document that is there costs nothing, and is refused where model or chunker are
    # not those of the corpus. The corpus's name stands for its documents: with all of them in it,
    # there is nothing to send.
    console = notes()

    def say(message: str) -> None:
        console.print(message, markup=False, soft_wrap=True)

    tally = store(api, corpus, documents[:1], lambda _: None, say=say)
    if not tally.failed:
        stored = api.get(corpus_path(corpus), "documents")["documents"]
        if stored == len(documents):
            return True
    console.print(f"storing {len(documents)} documents in {corpus}", markup=False)
    total = sum(one.size for one in documents)
    tally = store_with_bar(api, corpus, documents, total, console)
    if tally.failed:
        first = tally.failed[0]
        raise CliError(f"document '{first.source}' can't be stored: {first.reason}")
    return False


def _prove(api: Api, corpus: str, variant: Variant) -> None:
    """Ask the desk as `variant` does. Raises CliError naming it where that can't be done."""
    try:
        api.post("/retrieve", body("is this understood?", corpus, variant), "hits")
    except CliError as error:
        if isinstance(error, RefusedError) and error.code in _UNUSABLE:
            raise  # which is the corpus's fault
        raise CliError(f"{variant.name}: {error}") from None


def _documents(collection: Collection) -> Iterator[Entry]:
    for one in collection.documents:
        text = one.text if one.text.strip() else one.title
        if text.strip():
            sent = {"id": one.id, "title": one.title, "text": text}
            yield document(sent, one.id, len(text.encode()))
        else:  # such a document can't be found: it counts as not found
            notes().print(f"document '{one.id}' is empty", markup=False)


def _delete(api: Api, corpus: str) -> None:
    try:
        api.delete(corpus_path(corpus))
    except RefusedError as error:
        if error.status != 404:
            raise
