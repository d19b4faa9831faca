"""The retrievers of LangChain, LlamaIndex and Haystack: the real packages and the real desk."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.desk import Client, DeskError, NewDocument, NotFoundError
from tests.suite import Suite

MOON = "The Moon is 384,400 kilometres away from Earth. Its far side is rugged."
QUESTION = "How far away is the Moon?"


@pytest.fixture(scope="module")
def url(suite: Suite) -> Iterator[str]:
    """The desk's address; its corpus `frames` holds a few documents."""
    with Client(suite.url("retrieve")) as client:
        client.create_corpus("frames")
        client.add_documents(
            "frames",
            [
                NewDocument(
                    id="moon",
                    title="The Moon",
                    text=MOON,
                    url="https://example.org/moon",
                    metadata={"kind": "sky", "year": 2024},
                ),
                NewDocument(
                    id="bread",
                    title="Bread",
                    text="A sourdough starter is flour and water, fed daily.",
                    metadata={"title": "of the file", "page": 7},
                ),
                NewDocument(id="chess", text="In castling the king moves two squares."),
            ],
        )
        yield suite.url("retrieve")


# --- LangChain -------------------------------------------------------------------------------


async def test_langchain_gets_documents(url: str) -> None:
    from shared.desk import langchain

    retriever = langchain.DeskRetriever(corpora=["frames"], url=url, top_k=2)
    found = retriever.invoke(QUESTION)
    assert found[0].id == "frames/moon#0"
    assert found[0].page_content == MOON
    assert found[0].metadata["source"] == "https://example.org/moon"
    assert found[0].metadata["kind"] == "sky"
    assert 0 < found[0].metadata["score"] <= 1
    assert found == await retriever.ainvoke(QUESTION)
    assert len(retriever.invoke(QUESTION, top_k=1, curate=False)) == 1


def test_langchain_retrieves_in_a_chain(url: str) -> None:
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import PromptTemplate
    from langchain_core.runnables import RunnableLambda, RunnablePassthrough

    from shared.desk import langchain

    retriever = langchain.DeskRetriever(corpora=["frames"], url=url, top_k=1)
    passages = retriever | (lambda found: "\n".join(one.page_content for one in found))
    prompt = PromptTemplate.from_template("{question}\n{passages}")
    chain = (
        {"question": RunnablePassthrough(), "passages": passages}
        | prompt
        | RunnableLambda(lambda value: value.to_string())
        | StrOutputParser()
    )
    assert chain.invoke(QUESTION) == f"{QUESTION}\n{MOON}"
    assert chain.batch([QUESTION, QUESTION]) == [f"{QUESTION}\n{MOON}"] * 2


def test_langchain_refuses_a_mistyped_argument() -> None:
    from shared.desk import langchain

    with pytest.raises(ValueError, match="topk"):
        langchain.DeskRetriever(corpora=["frames"], topk=3)  # type: ignore[call-arg]


async def test_langchain_gets_the_desks_error(url: str) -> None:
    from shared.desk import langchain

    retriever = langchain.DeskRetriever(corpora=["nowhere"], url=url, api_key="k")
    assert "k'" not in repr(retriever)
    with pytest.raises(NotFoundError):
        retriever.invoke(QUESTION)
    with pytest.raises(NotFoundError):
        await retriever.ainvoke(QUESTION)


# --- LlamaIndex ------------------------------------------------------------------------------


async def test_llamaindex_gets_nodes_with_scores(url: str) -> None:
    from shared.desk import llamaindex

    retriever = llamaindex.DeskRetriever("frames", url=url, top_k=2, curate=False)
    found = retriever.retrieve(QUESTION)
    assert found[0].node.node_id == "frames/moon#0"
    assert found[0].text == MOON
    assert found[0].metadata["year"] == 2024
    assert found[0].score is not None
    assert found[0].score >= (found[1].score or 0)
    assert [one.node.node_id for one in await retriever.aretrieve(QUESTION)] == [
        one.node.node_id for one in found
    ]


def test_llamaindex_shows_a_model_the_documents_title_and_no_other_field(url: str) -> None:
    from llama_index.core.schema import MetadataMode

    from shared.desk import llamaindex

    retriever = llamaindex.DeskRetriever("frames", url=url, top_k=1)
    node = retriever.retrieve("What is a sourdough starter?")[0].node
    assert node.metadata["page"] == 7
    shown = node.get_content(MetadataMode.LLM)
    assert shown.startswith("title: Bread\n")
    assert "page" not in shown
    assert "corpus" not in shown


def test_llamaindex_retrieves_in_a_query_engine(url: str) -> None:
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.response_synthesizers import get_response_synthesizer

    from shared.desk import llamaindex

    retriever = llamaindex.DeskRetriever("frames", url=url, top_k=1)
    engine = RetrieverQueryEngine(
        retriever,
        get_response_synthesizer(llm=MockLLM(), response_mode="compact"),  # type: ignore[arg-type]
    )
    answer = engine.query(QUESTION)
    assert [node.node.node_id for node in answer.source_nodes] == ["frames/moon#0"]
    assert MOON in str(answer)  # the mock repeats its prompt
    assert "The Moon" in str(answer)


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("==", "sky", {"type": "eq", "key": "k", "value": "sky"}),
        ("!=", 1, {"type": "ne", "key": "k", "value": 1}),
        ("<=", 1.5, {"type": "lte", "key": "k", "value": 1.5}),
        ("nin", ["a"], {"type": "nin", "key": "k", "value": ["a"]}),
        ("contains", "a", {"type": "eq", "key": "k", "value": "a"}),
        ("any", ["a", "b"], {"type": "in", "key": "k", "value": ["a", "b"]}),
        ("all", ["a"], {"type": "and", "filters": [{"type": "eq", "key": "k", "value": "a"}]}),
    ],
)
def test_llamaindex_filters_become_the_desks(operator: str, value: Any, expected: Any) -> None:
    from llama_index.core import vector_stores as filters

    from shared.desk import llamaindex

    one = filters.MetadataFilter(key="k", value=value, operator=filters.FilterOperator(operator))
    assert llamaindex.desk_filter(one) == expected
    several = filters.MetadataFilters(filters=[one], condition=filters.FilterCondition.OR)
    assert llamaindex.desk_filter(several) == {"type": "or", "filters": [expected]}


@pytest.mark.parametrize("operator", ["text_match", "is_empty", "text_match_insensitive"])
def test_llamaindex_filters_that_the_desk_lacks_are_refused(operator: str) -> None:
    from llama_index.core import vector_stores as filters

    from shared.desk import llamaindex

    one = filters.MetadataFilter(key="k", value="v", operator=filters.FilterOperator(operator))
    with pytest.raises(ValueError, match=f"no filter like '{operator}'"):
        llamaindex.desk_filter(one)
    with pytest.raises(ValueError, match="no filter like 'not'"):
        llamaindex.desk_filter(
            filters.MetadataFilters(filters=[], condition=filters.FilterCondition.NOT)
        )


def test_llamaindex_filters_that_are_none_are_refused() -> None:
    from shared.desk import llamaindex

    with pytest.raises(ValueError, match="must be MetadataFilters"):
        llamaindex.DeskRetriever("frames", filters=[1])  # type: ignore[arg-type]


# --- Haystack --------------------------------------------------------------------------------


async def test_haystack_gets_documents(url: str) -> None:
    from shared.desk import haystack

    retriever = haystack.DeskRetriever(["frames"], url=url, options={"curate": False})
    found = retriever.run(QUESTION, top_k=2)["documents"]
    assert found[0].id == "frames/moon#0"
    assert found[0].content == MOON
    assert found[0].meta["title"] == "The Moon"
    assert found[0].score is not None
    assert (await retriever.run_async(QUESTION, top_k=2))["documents"] == found


def test_haystack_takes_a_runs_arguments_before_options_and_those_before_its_own(url: str) -> None:
    from shared.desk import haystack

    year = {"type": "eq", "key": "year", "value": 2024}
    bread = {"field": "meta.year", "operator": "!=", "value": 2024}
    retriever = haystack.DeskRetriever(
        "frames", url=url, top_k=1, filters=bread, options={"top_k": 2, "filter": year}
    )

    def found(**run: Any) -> list[str]:
        return [one.meta["document_id"] for one in retriever.run("flour", **run)["documents"]]

    assert found() == ["moon"]
    assert set(found(filters=bread)) == {"bread", "chess"}
    assert len(found(filters={})) == 2
    assert len(found(filters={}, top_k=1)) == 1


async def test_haystack_retrieves_in_a_pipeline_that_was_written_down(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from haystack import Pipeline
    from haystack.components.builders import PromptBuilder
    from haystack.core.serialization import allow_deserialization_module
    from haystack.utils import Secret

    from shared.desk import haystack

    monkeypatch.setenv("DESK_KEY", "k-1")
    key = Secret.from_env_var("DESK_KEY")
    template = "{% for one in documents %}{{ one.content }}{% endfor %}"
    pipeline = Pipeline()
    pipeline.add_component("desk", haystack.DeskRetriever(["frames"], url=url, api_key=key))
    pipeline.add_component("prompt", PromptBuilder(template, required_variables=["documents"]))
    pipeline.connect("desk.documents", "prompt.documents")
    written = pipeline.dumps()
    assert "k-1" not in written
    assert "DESK_KEY" in written
    allow_deserialization_module("shared.desk")
    given = {"desk": {"query": QUESTION, "top_k": 1}}
    assert Pipeline.loads(written).run(given)["prompt"]["prompt"] == MOON
    answer = await Pipeline.loads(written).run_async(given)
    assert answer["prompt"]["prompt"] == MOON


def test_haystack_writes_down_all_that_it_was_made_with() -> None:
    from haystack.utils import Secret

    from shared.desk import haystack

    condition = {"field": "meta.kind", "operator": "==", "value": "sky"}
    made = haystack.DeskRetriever(
        ["a", "b"],
        url="http://desk.example",
        api_key=Secret.from_env_var("NO_SUCH_KEY", strict=False),
        top_k=9,
        filters={"operator": "AND", "conditions": [condition]},
        timeout_s=3,
        options={"curate": False, "filter": {"type": "eq", "key": "k", "value": 1}},
    )
    again = haystack.DeskRetriever.from_dict(made.to_dict())
    assert again.to_dict() == made.to_dict()
    assert again.filters == made.filters


def test_haystack_filters_become_the_desks() -> None:
    from shared.desk import haystack

    sky = {"field": "meta.kind", "operator": "==", "value": "sky"}
    old = {"field": "meta.year", "operator": "<", "value": 2000}
    kinds = {"field": "kind", "operator": "not in", "value": ["a", "b"]}
    assert haystack.desk_filter({"operator": "OR", "conditions": [sky, old]}) == {
        "type": "or",
        "filters": [
            {"type": "eq", "key": "kind", "value": "sky"},
            {"type": "lt", "key": "year", "value": 2000},
        ],
    }
    assert haystack.desk_filter({"operator": "NOT", "conditions": [sky, kinds]}) == {
        "type": "or",
        "filters": [
            {"type": "ne", "key": "kind", "value": "sky"},
            {"type": "in", "key": "kind", "value": ["a", "b"]},
        ],
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {
                "operator": "NOT",
                "conditions": [{"field": "meta.year", "operator": ">", "value": 1}],
            },
            "no NOT over '>'",
        ),
        ({"operator": "XOR", "conditions": []}, "AND, OR or NOT"),
        ({"field": "meta.kind", "operator": "like", "value": "s%"}, "needs 'field'"),
        ({"kind": "sky"}, "needs 'field'"),
        ([1], "must be a dict"),
        ({"operator": "AND", "conditions": [1]}, "must be a dict"),
        ({"operator": "AND", "conditions": {"kind": "sky"}}, "must be a list"),
    ],
)
def test_haystack_filters_that_the_desk_lacks_are_refused(wrong: Any, message: str) -> None:
    from shared.desk import haystack

    with pytest.raises(ValueError, match=message):
        haystack.DeskRetriever(["frames"]).run(QUESTION, filters=wrong)


# --- filters, as the desk understands them --------------------------------------------------


def test_the_filters_of_all_three_are_the_desks(url: str) -> None:
    from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

    from shared.desk import haystack, langchain, llamaindex

    year = {"type": "gte", "key": "year", "value": 2020}
    chain = langchain.DeskRetriever(corpora=["frames"], url=url, options={"filter": year})
    assert [one.metadata["document_id"] for one in chain.invoke("king or flour")] == ["moon"]
    one = MetadataFilter(key="kind", value="sky", operator=FilterOperator.NE)
    index = llamaindex.DeskRetriever("frames", url=url, filters=MetadataFilters(filters=[one]))
    found = {node.metadata["document_id"] for node in index.retrieve(QUESTION)}
    assert found == {"bread", "chess"}
    sky = {"field": "meta.kind", "operator": "==", "value": "sky"}
    stack = haystack.DeskRetriever(["frames"], url=url, filters=sky)
    assert [one.meta["document_id"] for one in stack.run("flour")["documents"]] == ["moon"]
    turned = {"operator": "NOT", "conditions": [sky]}
    documents = stack.run(QUESTION, filters=turned)["documents"]
    assert {one.meta["document_id"] for one in documents} == {"bread", "chess"}


# --- all three -------------------------------------------------------------------------------


async def test_all_take_one_corpus_or_several_and_can_be_closed(url: str) -> None:
    from shared.desk import haystack, langchain, llamaindex

    chain = langchain.DeskRetriever(corpora="frames", url=url)
    index = llamaindex.DeskRetriever("frames", url=url)
    stack = haystack.DeskRetriever("frames", url=url)
    assert stack.to_dict()["init_parameters"]["corpora"] == "frames"
    asked: list[Callable[[], Any]] = [
        lambda: chain.invoke(QUESTION),
        lambda: index.retrieve(QUESTION),
        lambda: stack.run(QUESTION)["documents"],
    ]
    awaited: list[Callable[[], Any]] = [
        lambda: chain.ainvoke(QUESTION),
        lambda: index.aretrieve(QUESTION),
        lambda: stack.run_async(QUESTION),
    ]
    for ask in asked:
        assert len(ask()) == 3
    for ask in awaited:
        await ask()
    for retriever in (chain, index, stack):
        retriever.close()
    for ask in asked:
        with pytest.raises(DeskError, match="closed"):
            ask()
    for ask in awaited:
        with pytest.raises(DeskError, match="closed"):
            await ask()
