"""Tools over HTTP: what is passed on, what comes back as calls, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.calling import WEATHER, YEAR, call, calls, served, writes
from tests.desk import Desk
from tests.streams import events, text_of
from tests.upstream import good, upstream
from tests.writers import WHEN, Serve, ask, chat, records

PARIS = '{"city": "Paris", "days": 2}'


async def test_a_tool_call_that_fits_is_the_answer(serve: Serve, tmp_path: Path) -> None:
    async with upstream(calls(PARIS)) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as client:
            answer = await ask(
                client, "Will it rain?", tools=[WEATHER], tool_choice="auto", model="m0"
            )
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {
            "id": "call_0",
            "type": "function",
            "function": {"name": "weather", "arguments": PARIS},
        }
    ]
    assert answer["refdesk"]["decision"]["verification"] == {"passed": True, "failures": []}
    [sent] = model.seen
    assert (sent["tools"], sent["tool_choice"]) == ([WEATHER], "auto")


async def test_the_official_client_reads_streamed_tool_calls(serve: Serve, tmp_path: Path) -> None:
    import openai

    strict = {**WEATHER["function"], "strict": True}
    async with upstream(calls(PARIS, '{"city": "Rome"}')) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as http:
            client = openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="x", max_retries=0)
            async with client.chat.completions.stream(
                model="auto",
                messages=[{"role": "user", "content": "Will it rain?"}],
                tools=[{"type": "function", "function": strict}],
            ) as stream:
                final = await stream.get_final_completion()
            await client.close()
    [choice] = final.choices
    assert choice.finish_reason == "tool_calls"
    assert [one.function.arguments for one in choice.message.tool_calls or ()] == [
        PARIS,
        '{"city": "Rome"}',
    ]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (calls('{"city": 7}'), "don't fit"),
        (calls('{"city": "Paris", "planet": "Mars"}'), "don't fit"),
        (calls('{"city": '), "no JSON"),
        (calls('["Paris"]'), "no object"),
        (calls(PARIS, name="launch"), "no tool launch"),
    ],
)
async def test_a_call_that_does_not_fit_escalates_to_the_next_tier(
    serve: Serve, tmp_path: Path, bad: Any, said: str
) -> None:
    async with upstream(bad) as first, upstream(calls(PARIS)) as second:
        policy = served(tmp_path, first.url, second.url)
        async with serve(Desk(), policy_file=policy) as client:
            answer = await ask(client, "Will it rain?", tools=[WEATHER])
    decision = answer["refdesk"]["decision"]
    [one] = answer["choices"][0]["message"]["tool_calls"]
    assert one["function"]["arguments"] == PARIS
    assert decision["escalated_from"] == f"tier0:{first.url}"
    assert [failure["check"] for failure in decision["verification"]["failures"]] == ["tools"]
    assert said in decision["verification"]["failures"][0]["detail"]
    assert [one["ended"] for one in answer["refdesk"]["attempts"]] == ["drafted", "drafted"]
    assert answer["usage"]["prompt_tokens"] == 600


@pytest.mark.parametrize("stream", [False, True])
async def test_where_a_call_must_come_and_none_does_there_is_an_error_and_no_text(
    serve: Serve, tmp_path: Path, stream: bool
) -> None:
    async with upstream(good) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            body = chat(WHEN, tools=[WEATHER], tool_choice="required", stream=stream)
            response = await client.post("/v1/chat/completions", json=body)
    if stream:
        found = events(response.text)
        error = found[-1]["error"]
        assert text_of(found) == ""
    else:
        assert response.status_code == 502
        error = response.json()["error"]
    assert error["code"] == "no_valid_format"


async def test_a_model_may_answer_in_words_though_it_has_tools(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(good) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as client:
            answer = await ask(client, WHEN, tools=[WEATHER])
    message = answer["choices"][0]["message"]
    assert message["content"] == "Ada Lovelace wrote the first program in 1843. [3]"
    assert message["tool_calls"] is None


async def test_words_before_a_call_are_not_shown_and_said_to_be_left_out(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(calls(PARIS, text="Paris was founded in 1999.")) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            answer = await ask(client, "Will it rain?", tools=[WEATHER])
    assert answer["choices"][0]["message"]["content"] is None
    assert any(
        one.startswith("text_left_out: ") for one in answer["refdesk"]["decision"]["reasons"]
    )


async def test_an_answer_may_rest_on_what_a_tool_answered(serve: Serve, tmp_path: Path) -> None:
    said = "It will rain in Paris on Tuesday."
    messages = [
        {"role": "user", "content": "Will it rain in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call("Paris")]},
        {"role": "tool", "tool_call_id": "call_1", "content": said},
    ]

    async def rains(wire: Any) -> None:
        await good(wire, said)

    async with upstream(rains) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as client:
            body = {"messages": messages, "tools": [WEATHER]}
            answer = (await client.post("/v1/chat/completions", json=body)).json()
    message = answer["choices"][0]["message"]
    assert message["content"] == f"{said} [4]"
    [annotation] = message["annotations"]
    assert annotation["url_citation"]["title"] == "weather"
    assert annotation["url_citation"]["url"] == "refdesk:tool/call_1"
    system, user, assistant, tool = model.seen[0]["messages"]
    assert (system["role"], user["role"], assistant["role"]) == ("system", "user", "assistant")
    assert assistant["tool_calls"] == [call("Paris")]
    assert tool == {"role": "tool", "content": said, "tool_call_id": "call_1"}


async def test_calls_and_what_they_were_asked_in_are_on_record(
    serve: Serve, tmp_path: Path
) -> None:
    kept = {"data_dir": tmp_path / "data", "audit_text": "full"}
    async with upstream(calls(PARIS)) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy, **kept) as client:
            await ask(client, "Will it rain?", tools=[WEATHER])
    [record] = records(tmp_path / "data")
    [made] = record["tool_calls"]
    assert (made["name"], made["arguments"]["text"]) == ("weather", PARIS)
    assert json.loads(record["chat"]["text"])["tools"] == [WEATHER]


async def test_langchain_calls_a_tool_and_reads_a_structured_answer(
    serve: Serve, tmp_path: Path
) -> None:
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import tool as as_tool
    from langchain_openai import ChatOpenAI

    @as_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"It will rain in {city} on Tuesday."

    async def rains(wire: Any) -> None:
        await good(wire, "It will rain in Paris on Tuesday.")

    async with upstream(calls('{"city": "Paris"}'), rains, writes('{"year": 1843}')) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as http:
            plain = ChatOpenAI(
                base_url=f"{http.base_url}/v1", api_key="x", model="auto", max_retries=0
            )
            writer = plain.bind_tools([weather])
            asked = HumanMessage("Will it rain in Paris?")
            called = await writer.ainvoke([asked])
            result = await weather.ainvoke(called.tool_calls[0])
            answer = await writer.ainvoke([asked, called, result])
            year = await plain.with_structured_output(
                YEAR["json_schema"]["schema"] | {"title": "year", "description": "A year."}
            ).ainvoke(WHEN)
    assert answer.content == "It will rain in Paris on Tuesday. [4]"
    assert year == {"year": 1843}


async def test_no_passages_do_not_keep_a_model_from_calling_a_tool(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(calls(PARIS)) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(passages=[]), policy_file=policy) as client:
            answer = await ask(client, "Will it rain?", tools=[WEATHER])
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


async def test_tools_that_must_not_be_called_are_not_sent(serve: Serve, tmp_path: Path) -> None:
    async with upstream(good) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as client:
            await ask(client, WHEN, tools=[WEATHER], tool_choice="none")
    assert "tools" not in model.seen[0]
    assert "tool_choice" not in model.seen[0]


async def test_writers_that_know_no_tools_are_ruled_out(serve: Serve, tmp_path: Path) -> None:
    asked = {"tools": [WEATHER]}
    async with serve(Desk(), policy_file=served(tmp_path)) as client:
        for more in ({}, {"model": "quote"}, {"model": "tier0"}):
            response = await client.post("/v1/chat/completions", json=chat(WHEN, **asked, **more))
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (400, "model_unfit"), error
            assert "tools" in error["message"]
        answer = await ask(client, WHEN, **asked, tool_choice="none")
    assert answer["refdesk"]["decision"]["endpoint"] == "extractive"


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **function}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [{"type": "web_search"}]}, "tools.0.type", "function"),
    ({"tools": [{"type": "function"}]}, "tools.0.function", "required"),
    ({"tools": [tool(name="a b")]}, "tools.0.function.name", "pattern"),
    ({"tools": [tool(name="x" * 65)]}, "tools.0.function.name", "pattern"),
    ({"tools": [tool(), tool()]}, "tools", "same name"),
    ({"tools": [tool(name=f"f{n}") for n in range(129)]}, "tools", "128"),
    (
        {"tools": [tool(name=f"f{n}", parameters={"title": "x" * 50_000}) for n in range(6)]},
        "tools",
        "262,144 bytes",
    ),
    (
        {"tools": [tool(name=f"f{n}", parameters={"enum": [0] * 4000}) for n in range(6)]},
        "tools",
        "over 20,000 parts, the schemas of all tools together",
    ),
    ({"tools": [tool(parameters=[])]}, "tools.0.function.parameters", "dictionary"),
    (
        {"tools": [tool(parameters={"type": "objekt"})]},
        "tools.0.function.parameters",
        "no JSON Schema",
    ),
    (
        {"tools": [tool(parameters={"$ref": "http://127.0.0.1:1/x"})]},
        "tools.0.function.parameters",
        "within the schema",
    ),
    (
        {"tools": [tool(parameters={"description": "x" * 70_000})]},
        "tools.0.function.parameters",
        "65,536 bytes",
    ),
    (
        {"tools": [tool(name=f"f{n}", parameters={"pattern": "a" * 40}) for n in range(65)]},
        "tools",
        "over 64 patterns",
    ),
    ({"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice", "'auto'"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice", "'auto'"),
    (
        {
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "launch"}},
        },
        "tool_choice",
        "no tool 'launch'",
    ),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ({"functions": [{"name": "f"}]}, "functions", "tools and tool_choice"),
    ({"function_call": "auto"}, "function_call", "tools and tool_choice"),
]


async def test_forty_tools_of_three_hundred_parts_each_are_taken(serve: Serve) -> None:
    properties = {f"p{n}": {"type": "string", "description": "what it is"} for n in range(90)}
    own = {"type": "object", "properties": properties}
    tools = [tool(name=f"f{n}", parameters=own) for n in range(40)]
    async with serve(Desk()) as client:
        answer = await ask(client, WHEN, tools=tools)
    assert answer["refdesk"]["decision"]["answered"]


async def test_tools_that_can_not_be_used_are_refused_in_a_sentence(serve: Serve) -> None:
    async with serve(Desk()) as client:
        for more, param, said in REFUSED:
            response = await client.post("/v1/chat/completions", json=chat(WHEN, **more))
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, param), error
            assert said in error["message"]
