"""The official OpenAI client, unchanged, against the running services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.suite import Suite

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionMessageParam

DOCUMENTS = [
    {
        "id": "hours",
        "title": "Opening hours",
        "url": "https://library.example/hours",
        "text": "The reading room opens at nine o'clock on weekdays. On Sundays it stays closed.",
    },
    {
        "id": "cards",
        "title": "Reader cards",
        "text": "A reader card costs twelve euros a year. Students get it for free.",
    },
]
CORPUS = {"refdesk": {"corpora": ["openai-client"]}}


@pytest.fixture(scope="module")
def client(suite: Suite) -> openai.OpenAI:
    import openai

    corpus = f"{suite.url('retrieve')}/corpora/openai-client"
    httpx.put(corpus, json={}, timeout=60).raise_for_status()
    body = {"documents": DOCUMENTS}
    httpx.post(f"{corpus}/documents", json=body, timeout=60).raise_for_status()
    return openai.OpenAI(base_url=f"{suite.url('generate')}/v1", api_key="none")


def question(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_a_chat_answer_cites_the_document_that_holds_it(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="auto",
        messages=question("What does a reader card cost?"),
        extra_body=CORPUS,
    )
    message = answer.choices[0].message
    assert "twelve euros" in (message.content or "")
    assert message.annotations
    cited = message.annotations[0].url_citation
    assert cited.title == "Reader cards"
    assert "twelve euros" in (message.content or "")[cited.start_index : cited.end_index]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None


def test_a_stream_gives_the_same_answer_piece_by_piece(client: openai.OpenAI) -> None:
    pieces = list(
        client.chat.completions.create(
            model="auto",
            messages=question("When does the reading room open?"),
            stream=True,
            stream_options={"include_usage": True},
            extra_body=CORPUS,
        )
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert "nine o'clock" in text
    assert "[1]" in text
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == "stop"
    assert pieces[-1].usage is not None
    assert pieces[-1].choices == []


def test_what_the_documents_do_not_say_is_not_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="auto",
        messages=question("Who won the football world cup in 1990?"),
        extra_body=CORPUS,
    )
    text = answer.choices[0].message.content or ""
    assert text.startswith("The sources do not answer this question.")
    assert answer.refdesk["decision"]["answered"] is False  # type: ignore[attr-defined]  # it keeps a field of ours


def test_the_models_can_be_listed(client: openai.OpenAI) -> None:
    assert {"auto", "utility", "reasoning"} <= {model.id for model in client.models.list()}


def test_an_unknown_model_raises_the_clients_own_error(client: openai.OpenAI) -> None:
    import openai

    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.chat.completions.create(
            model="gpt-9",
            messages=question("hello"),
            extra_body=CORPUS,
        )


def test_a_response_cites_the_file_that_holds_it(client: openai.OpenAI) -> None:
    answer = client.responses.create(input="What does a reader card cost?", extra_body=CORPUS)
    assert "twelve euros" in answer.output_text
    (message,) = answer.output
    assert message.type == "message"
    content = message.content[0]
    assert content.type == "output_text"
    cited = content.annotations[0]
    assert cited.type == "file_citation"
    assert (cited.file_id, cited.filename) == ("cards", "Reader cards")
    with client.responses.stream(
        input="What does a reader card cost?", model="auto", extra_body=CORPUS
    ) as stream:
        pieces = [one.delta for one in stream if one.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(pieces) == answer.output_text
