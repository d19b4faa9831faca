"""The desk as a retriever of LlamaIndex. Needs the extra `llamaindex`."""

from typing import Any

from shared.desk.client import Pair
from shared.desk.models import Hit, Retrieved

try:
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import (
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
    from llama_index.core.vector_stores import (
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the LlamaIndex retriever needs llama-index-core: pip install -e '.[llamaindex]'"
    ) from error

_COMPARISONS = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
    # The desk compares a list by its elements.
    FilterOperator.CONTAINS: "eq",
    FilterOperator.ANY: "in",
}


class DeskRetriever(BaseRetriever):
    """Passages of the desk as LlamaIndex nodes with scores.

    corpora: one name or several. url: of the service retrieve. filters: LlamaIndex's own; what the
    desk has no like of (`text_match`, `is_empty`, `not`) raises ValueError. options: further
    arguments of `Client.retrieve`, such as ``curate=False``. A node's metadata holds the document's
    own, and over it `corpus`, `document_id`, `title` and `url`.
    """

    def __init__(
        self,
        corpora: str | list[str],
        *,
        url: str = "http://127.0.0.1:8003",
        api_key: str | None = None,
        top_k: int = 5,
        filters: MetadataFilters | None = None,
        timeout_s: float = 60,
        **options: Any,
    ) -> None:
        super().__init__()
        self._corpora = corpora
        self._options = {"top_k": top_k, **options}
        if filters is not None and not isinstance(filters, MetadataFilters):
            raise ValueError(f"filters must be MetadataFilters; this is {filters!r}")
        if filters is not None and filters.filters:
            self._options["filter"] = desk_filter(filters)
        self._desk = Pair(url, api_key=api_key, timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._desk.close()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = query_bundle.query_str
        return _nodes(self._desk.plain.retrieve(query, self._corpora, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = query_bundle.query_str
        return _nodes(await self._desk.asyncio.retrieve(query, self._corpora, **self._options))


def desk_filter(filters: MetadataFilters | MetadataFilter) -> dict[str, Any]:
    """LlamaIndex's filters in the desk's grammar. Raises ValueError for what that can't say."""
    if isinstance(filters, MetadataFilter):
        if filters.operator is FilterOperator.ALL:
            if not isinstance(filters.value, list):
                raise ValueError(f"the filter on '{filters.key}' needs a list for its 'all'")
            every = [{"type": "eq", "key": filters.key, "value": one} for one in filters.value]
            return {"type": "and", "filters": every}
        if filters.operator not in _COMPARISONS:
            raise ValueError(
                f"the desk has no filter like '{filters.operator.value}', on '{filters.key}'"
            )
        kind = _COMPARISONS[filters.operator]
        return {"type": kind, "key": filters.key, "value": filters.value}
    condition = filters.condition or FilterCondition.AND
    if condition is FilterCondition.NOT:
        raise ValueError("the desk has no filter like 'not': use ne or nin")
    return {"type": condition.value, "filters": [desk_filter(one) for one in filters.filters]}


def _nodes(found: Retrieved) -> list[NodeWithScore]:
    return [NodeWithScore(node=_node(hit), score=hit.score) for hit in found.hits]


def _node(hit: Hit) -> TextNode:
    metadata = hit.all_metadata
    return TextNode(
        id_=f"{hit.corpus}/{hit.id}",
        text=hit.text,
        metadata=metadata,
        start_char_idx=hit.position.start,
        end_char_idx=hit.position.end,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.document_id)},
        # The title helps a language model; the rest is for the program.
        excluded_llm_metadata_keys=[key for key in metadata if key != "title"],
    )
