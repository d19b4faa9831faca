"""A request of the Responses API as the chat that it means."""

from typing import Any

import pytest

from services.generate.responses.request import ResponsesRequest
from services.generate.responses.translation import Translation, as_chat
from shared.errors import ApiError


def translated(**body: Any) -> Translation:
    return as_chat(ResponsesRequest.model_validate(body))


def test_a_text_is_the_question_and_instructions_are_a_system_message() -> None:
    chat = translated(input="Which port?", instructions="Be kind.", model="utility").chat
    assert [(one.role, one.text) for one in chat.messages] == [
        ("system", "Be kind."),
        ("user", "Which port?"),
    ]
    assert chat.question() == "Which port?"
    assert chat.model == "utility"


def test_what_is_left_out_or_null_is_as_in_a_chat() -> None:
    chat = translated(input="x", model=None, stream=None, refdesk=None, tools=None, text=None).chat
    assert (chat.model, chat.stream, chat.refdesk.top_k) == ("auto", False, 5)
    assert chat.response_format is None
    assert chat.tools is None


def test_messages_keep_their_roles_order_and_parts() -> None:
    said = [{"type": "output_text", "text": "In 1843. [1]", "annotations": []}]
    asked = [{"type": "input_text", "text": "And"}, {"type": "input_text", "text": "where?"}]
    chat = translated(
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "When?"},
            {"type": "message", "id": "msg_1", "role": "assistant", "content": said},
            {"role": "user", "content": asked},
        ]
    ).chat
    assert [(one.role, one.text) for one in chat.messages] == [
        ("developer", "Be brief."),
        ("user", "When?"),
        ("assistant", "In 1843. [1]"),
        ("user", "And\nwhere?"),
    ]


def test_calls_in_a_row_are_one_turn_of_the_assistant_before_their_outputs() -> None:
    call = {"type": "function_call", "name": "weather", "arguments": "{}"}
    chat = translated(
        input=[
            {"role": "user", "content": "Is it warm?"},
            {**call, "call_id": "a"},
            {**call, "call_id": "b"},
            {"type": "function_call_output", "call_id": "a", "output": "12 degrees"},
            {
                "type": "function_call_output",
                "call_id": "b",
                "output": [{"type": "input_text", "text": "rain"}],
            },
        ]
    ).chat
    assert [one.role for one in chat.messages] == ["user", "assistant", "tool", "tool"]
    assert [one.id for one in chat.messages[1].tool_calls or ()] == ["a", "b"]
    assert [(one.tool_call_id, one.text) for one in chat.messages[2:]] == [
        ("a", "12 degrees"),
        ("b", "rain"),
    ]
    assert chat.question() == "Is it warm?"


def test_tools_and_the_form_of_the_text_have_the_shape_of_a_chat() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    chat = translated(
        input="x",
        max_output_tokens=50,
        parallel_tool_calls=False,
        tools=[{"type": "function", "name": "weather", "parameters": schema, "strict": True}],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", "name": "place", "schema": schema}},
    ).chat
    inner = chat.chat({})
    assert chat.max_completion_tokens == 50
    assert inner.parallel_tool_calls is False
    assert inner.tools is not None
    function = inner.tools[0]["function"]
    assert (function["name"], function["parameters"], function["strict"]) == (
        "weather",
        schema,
        True,
    )
    assert inner.tool_choice == {"type": "function", "function": {"name": "weather"}}
    assert inner.response_format is not None
    assert inner.response_format["json_schema"]["schema"] == schema


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("messages", "input"),
        ("messages.0.content", "instructions"),
        ("messages.1.content", "input.0.content"),
        ("messages.2.tool_call_id", "input.1.call_id"),
        ("tools.0.function.parameters", "tools.0.parameters"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("max_completion_tokens", "max_output_tokens"),
        ("refdesk.corpora", "refdesk.corpora"),
        ("model", "model"),
    ],
)
def test_an_error_about_the_chat_names_the_field_of_the_request(param: str, told: str) -> None:
    question = {"role": "user", "content": "x"}
    request = translated(instructions="Be kind.", input=[question, question])
    error = request.told(ApiError(400, "invalid_request", f"{param}: is wrong", param=param))
    assert error.param == told
    assert error.message == f"{told}: is wrong"
    assert (error.status, error.code) == (400, "invalid_request")


def test_an_error_that_names_no_field_stays_as_it_is() -> None:
    error = ApiError(503, "unreachable", "messages can't be read", headers={"Retry-After": "1"})
    assert translated(input="x").told(error) is error


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.type"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]},
            "input.0.content.0.type",
        ),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "n"}]}, "input.0.arguments"),
        ({"input": [{"type": ["message"], "role": "user", "content": "x"}]}, "input.0.type"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["a"]}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
    ],
)
def test_what_has_no_meaning_here_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        translated(**{"input": "x", **body})
    assert (refused.value.status, refused.value.param) == (400, param)


def test_what_is_off_or_null_is_not_refused() -> None:
    chat = translated(
        input="x", previous_response_id=None, conversation=None, background=False, store=True
    ).chat
    assert chat.question() == "x"
