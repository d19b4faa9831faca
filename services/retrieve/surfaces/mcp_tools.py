"""The tools that agents get over MCP: `search`, `fetch` and `retrieve`, all of them read-only.

`search` and `fetch` have the shapes that ChatGPT's connectors ask for; see
https://platform.openai.com/docs/mcp. Source of the rest: the protocol's own pages,
https://modelcontextprotocol.io/specification.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from services.retrieve.desk import Desk
from services.retrieve.protocol import Hit, RetrieveResponse
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.surfaces.ask import Words, ask
from services.retrieve.surfaces.asked import Asked
from shared.errors import ApiError

_MAX_CORPORA = 16  # of one search
_RESULTS = 10  # documents that `search` lists
_HITS = 30  # passages that they are looked for among
_LONGEST_ID = 1024  # characters; those of a corpus and of a document are shorter together
_WORDS = Words({"filter.filters": "filters", "filter": "filters"})
_DESCRIPTION = 300  # characters of a corpus's own description in a tool's

# Lists here, so that no model has to leave a schema to read what it points to.
Scalar = str | int | float | bool
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


def _value(value: object) -> object:
    """One message for whatever is wrong: a union would give one for each of its members."""
    if not all(isinstance(one, Scalar) for one in (value if isinstance(value, list) else [value])):
        raise ValueError("must be a text, a number, true or false, or a list of such values")
    return value


class _Arguments(Asked):
    model_config = ConfigDict(extra="forbid")


class SearchArguments(_Arguments):
    """Of `search`."""

    query: Annotated[str, Field(description="What to look for, as a full question.")]


class FetchArguments(_Arguments):
    """Of `fetch`."""

    id: Annotated[str, Field(description="The id of a result of search or retrieve.")]


class Condition(_Arguments):
    """A condition on the documents' metadata."""

    key: Annotated[str, Field(description="Name of the metadata.")]
    type: Annotated[
        Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"],
        Field(description="How to compare; in and nin (not in) take a list of values."),
    ]
    value: Annotated[
        Scalar | list[Scalar],
        BeforeValidator(_value, json_schema_input_type=Scalar | list[Scalar]),
        Field(description="A text, a number, a date such as 2026-01-31."),
    ]


class RetrieveArguments(_Arguments):
    """Of `retrieve`."""

    query: Annotated[str, Field(description="What to look for, as a full question.")]
    corpora: list[str] = Field(
        default_factory=list, description="Where to look; without it in all of the corpora."
    )
    top_k: Annotated[int, Field(ge=1, le=50, description="Passages, at most.")] = 5
    filters: list[Condition] = Field(
        default_factory=list,
        description="Conditions that a document's metadata must meet, all of them.",
    )
    min_score: Annotated[
        float, Field(ge=0, le=1, description="Least score of a passage; 0 takes all.")
    ] = 0
    max_tokens: Annotated[
        Tokens | None,
        WithJsonSchema(TypeAdapter(Tokens).json_schema()),  # no null: it is the same as absent
        Field(
            description="Budget of tokens for all passages together; without it there is none.",
            json_schema_extra=lambda schema: schema.pop("default"),
        ),
    ] = None


@dataclass(frozen=True)
class DeskTool:
    """A tool: what a model is told of it, the arguments that it takes, and its work.

    run gives the answer as a JSON object, and raises ApiError.
    """

    name: str
    title: str
    description: str
    arguments: type[_Arguments]
    run: Callable[[Desk, Any], Awaitable[dict[str, Any]]]

    def schema(self, corpora: Sequence[str]) -> dict[str, Any]:
        """The JSON schema of the arguments, with the names of the corpora that there are."""
        schema = self.arguments.model_json_schema()
        schema.pop("$defs", None)
        properties = schema["properties"]
        if "filters" in properties:
            properties["filters"]["items"] = Condition.model_json_schema()
        if "corpora" in properties and corpora:
            properties["corpora"]["items"] = {"type": "string", "enum": list(corpora)}
        return schema


async def search(desk: Desk, arguments: SearchArguments) -> dict[str, Any]:
    """The documents that answer best: ``{"results": [{"id", "title", "url"}]}``."""
    found = await _found(desk, {"query": arguments.query, "top_k": _HITS}, None)
    best: dict[str, Hit] = {}
    for hit in found.hits:
        best.setdefault(join_id(hit.corpus, hit.document_id), hit)
    results = [
        {"id": id_, "title": hit.title or hit.document_id, "url": hit.url or ""}
        for id_, hit in list(best.items())[:_RESULTS]
    ]
    return {"results": results}


async def fetch(desk: Desk, arguments: FetchArguments) -> dict[str, Any]:
    """A whole document: ``{"id", "title", "text", "url", "metadata"}``."""
    corpus, document_id = split_id(arguments.id)
    found = await desk.document(corpus, document_id)
    return {
        "id": arguments.id,
        "title": found.title or found.id,
        "text": found.text,
        "url": found.url or "",
        "metadata": dict(found.metadata),
    }


async def retrieve(desk: Desk, arguments: RetrieveArguments) -> dict[str, Any]:
    """The passages that answer: ``{"passages": [...], "degraded": [...]}``, best first.

    Their ids are those of `fetch`. degraded: the stages that the search went without.
    """
    conditions = [condition.model_dump() for condition in arguments.filters]
    fields = {
        "query": arguments.query,
        "top_k": arguments.top_k,
        "filter": {"type": "and", "filters": conditions} if conditions else None,
        "min_score": arguments.min_score or None,
        "max_tokens": arguments.max_tokens,
    }
    found = await _found(desk, fields, arguments.corpora)
    passages = [_passage(hit) for hit in found.hits]
    return {"passages": passages, "degraded": list(found.degraded)}


TOOLS = (
    DeskTool(
        "search",
        "Search documents",
        "Find the documents that answer a question. Gives ids, titles and addresses; read a "
        "document with fetch.",
        SearchArguments,
        search,
    ),
    DeskTool("fetch", "Read a document", "Read a whole document.", FetchArguments, fetch),
    DeskTool(
        "retrieve",
        "Retrieve passages",
        "Find the passages that answer a question, best first, each with its score (0 to 1) and "
        "its document's metadata; the passages can be narrowed down by corpus and by metadata. "
        "`degraded` names the stages that the search had to go without.",
        RetrieveArguments,
        retrieve,
    ),
)


def described(tool: DeskTool, corpora: Sequence[CorpusInfo]) -> str:
    """A tool's description, with the corpora that there are."""
    if not corpora:
        return f"{tool.description}\n\nThere is no corpus yet."
    lines = [f"- {info.name}: {_short(info.description)}".rstrip(": ") for info in corpora]
    return "\n".join([tool.description, "", "Corpora:", *lines])


def join_id(corpus: str, document_id: str) -> str:
    """The id of a document among those of all corpora. A corpus's name holds no slash."""
    return f"{corpus}/{document_id}"


def split_id(joined: str) -> tuple[str, str]:
    """Corpus and document of an id that `join_id` made. Raises ApiError 404 for another text."""
    corpus, slash, document_id = joined.partition("/")
    if not slash or not corpus or not document_id or len(joined) > _LONGEST_ID:
        message = "id: is none that search or retrieve gave; send one of theirs as it came"
        raise ApiError(404, "document_not_found", message, param="id")
    return corpus, document_id


async def _found(
    desk: Desk, fields: Mapping[str, Any], corpora: Sequence[str] | None
) -> RetrieveResponse:
    """What a search finds in the corpora, or in all. None: the tool does not take their names."""
    names = list(corpora or ()) or [info.name for info in desk.corpora()]
    if not names:
        raise ApiError(404, "corpus_not_found", "there is no corpus to search")
    if len(names) > _MAX_CORPORA:
        if corpora is None:
            message = f"there are {len(names)}, and one search takes {_MAX_CORPORA}: use the tool "
            message += "retrieve and name those to search"
        elif not corpora:
            message = f"there are {len(names)}, and one search takes {_MAX_CORPORA}: name those to "
            message += "search"
        else:
            message = f"names {len(names)}, and one search takes {_MAX_CORPORA}: name fewer, or "
            message += "search them one after the other"
        raise ApiError(422, "invalid_request", f"corpora: {message}", param="corpora")
    return await ask(desk, {**fields, "corpora": names}, _WORDS)


def _passage(hit: Hit) -> dict[str, Any]:
    return {
        "id": join_id(hit.corpus, hit.document_id),
        "corpus": hit.corpus,
        "title": hit.title or hit.document_id,
        "url": hit.url or "",
        "text": hit.text,
        "score": hit.score,
        "metadata": dict(hit.metadata),
    }


def _short(description: str) -> str:
    line = " ".join(description.split())
    return line if len(line) <= _DESCRIPTION else line[: _DESCRIPTION - 1] + "…"
