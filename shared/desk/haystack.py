"""The desk as a retriever of Haystack. Needs the extra `haystack`."""

from typing import Any

from shared.desk.client import Pair
from shared.desk.models import Hit, Retrieved

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the Haystack retriever needs haystack-ai: pip install -e '.[haystack]'"
    ) from error

_COMPARISONS = {
    "==": "eq",
    "!=": "ne",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
    "in": "in",
    "not in": "nin",
}
_OPPOSITES = {"eq": "ne", "ne": "eq", "in": "nin", "nin": "in", "and": "or", "or": "and"}


@component
class DeskRetriever:
    """Passages of the desk as Haystack documents.

    corpora: one name or several. url: of the service retrieve. filters: Haystack's own, on
    `meta.…`. options: further arguments of `Client.retrieve`, such as ``{"curate": False}``; they
    go before `top_k` and `filters`, and the arguments of a run before all of them. A document's
    meta holds the document's own, and over it `corpus`, `document_id`, `title` and `url`.
    """

    def __init__(
        self,
        corpora: str | list[str],
        url: str = "http://127.0.0.1:8003",
        api_key: Secret | None = None,
        top_k: int = 5,
        filters: dict[str, Any] | None = None,
        timeout_s: float = 60,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.corpora = corpora
        self.url = url
        self.api_key = api_key
        self.top_k = top_k
        self.filters = filters
        self.timeout_s = timeout_s
        self.options = options or {}
        key = api_key.resolve_value() if api_key else None
        self._desk = Pair(url, api_key=key, timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._desk.close()

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The passages that answer the query, best first."""
        options = self._with(filters, top_k)
        return _output(self._desk.plain.retrieve(query, self.corpora, **options))

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """As `run`, in a pipeline that runs async."""
        options = self._with(filters, top_k)
        return _output(await self._desk.asyncio.retrieve(query, self.corpora, **options))

    def to_dict(self) -> dict[str, Any]:
        """All that it was made with; of the key only where it is."""
        made: dict[str, Any] = default_to_dict(
            self,
            corpora=self.corpora,
            url=self.url,
            api_key=self.api_key.to_dict() if self.api_key else None,
            top_k=self.top_k,
            filters=self.filters,
            timeout_s=self.timeout_s,
            options=self.options,
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DeskRetriever":
        """The one that `to_dict` was called of."""
        made: DeskRetriever = default_from_dict(cls, data)
        return made

    def _with(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        options = {"top_k": self.top_k, "filter": _filter(self.filters), **self.options}
        if top_k is not None:
            options["top_k"] = top_k
        if filters is not None:
            options["filter"] = _filter(filters)
        return options


def _filter(filters: dict[str, Any] | None) -> dict[str, Any] | None:
    return desk_filter(filters) if filters else None


def desk_filter(filters: dict[str, Any], *, negated: bool = False) -> dict[str, Any]:
    """Haystack's filters in the desk's grammar; negated: what they leave out.

    Raises ValueError for what is no filter, and for what the desk can't say: a NOT over `<` and its
    like, which of a document without the field are neither true nor, turned round, false.
    """
    if not isinstance(filters, dict):
        raise ValueError(  # noqa: TRY004 - as for all that is wrong in a filter
            f"a filter must be a dict; this is {filters!r}"
        )
    operator = filters.get("operator")
    if "conditions" in filters:
        if operator not in ("AND", "OR", "NOT"):
            raise ValueError(f"a filter with conditions needs AND, OR or NOT, not {operator!r}")
        if not isinstance(filters["conditions"], list):
            raise ValueError(f"conditions must be a list; these are {filters['conditions']!r}")
        negated ^= operator == "NOT"
        kind = "or" if operator == "OR" else "and"
        inner = [desk_filter(one, negated=negated) for one in filters["conditions"]]
        return {"type": _OPPOSITES[kind] if negated else kind, "filters": inner}
    if operator not in _COMPARISONS or "field" not in filters or "value" not in filters:
        raise ValueError(
            "a filter needs 'field', 'value' and an operator of "
            f"{', '.join(_COMPARISONS)}; this is {filters!r}"
        )
    kind, key = _COMPARISONS[operator], str(filters["field"]).removeprefix("meta.")
    if negated and kind not in _OPPOSITES:
        raise ValueError(f"the desk has no NOT over {operator!r}, on {filters['field']!r}")
    return {
        "type": _OPPOSITES[kind] if negated else kind,
        "key": key,
        "value": filters["value"],
    }


def _output(found: Retrieved) -> dict[str, list[Document]]:
    return {"documents": [_document(hit) for hit in found.hits]}


def _document(hit: Hit) -> Document:
    return Document(
        id=f"{hit.corpus}/{hit.id}",
        content=hit.text,
        meta=hit.all_metadata,
        score=hit.score,
    )
