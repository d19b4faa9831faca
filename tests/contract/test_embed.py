"""embed over HTTP: OpenAI's surface, true token counts, clear refusals."""

import base64
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from tests.suite import ServiceProcess, Suite, free_port


@pytest.fixture
def client(suite: Suite) -> httpx.Client:
    return httpx.Client(base_url=suite.url("embed"), timeout=60)


def embed(client: httpx.Client, **body: object) -> httpx.Response:
    return client.post("/v1/embeddings", json=body)


def test_the_official_client_gets_unit_vectors_in_order(suite: Suite) -> None:
    client = openai.OpenAI(base_url=f"{suite.url('embed')}/v1", api_key="none")
    texts = ["a cat", "a tax return", "a kitten"]
    answer = client.embeddings.create(input=texts, model="all-MiniLM-L6-v2")
    vectors = np.array([item.embedding for item in answer.data])
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1] + 0.3


def test_base64_and_float_hold_the_same_numbers(client: httpx.Client) -> None:
    numbers = embed(client, input="a cat").json()["data"][0]["embedding"]
    text = embed(client, input="a cat", encoding_format="base64").json()["data"][0]["embedding"]
    assert np.array_equal(np.float32(numbers), np.frombuffer(base64.b64decode(text), "<f4"))


def test_usage_counts_tokens_not_characters(client: httpx.Client) -> None:
    usage = embed(client, input=["hello world", "hello world"]).json()["usage"]
    assert usage == {"prompt_tokens": 8, "total_tokens": 8}  # [CLS] hello world [SEP], twice


def test_the_answer_tells_which_state_of_the_model_made_the_vectors(client: httpx.Client) -> None:
    info = client.get("/info").json()
    answer = embed(client, input="a cat", encoding_format="base64").json()
    assert (answer["model"], answer["revision"]) == (info["model"], info["revision"])


def test_fewer_dimensions_have_length_one_again(client: httpx.Client) -> None:
    full = np.array(embed(client, input="a cat").json()["data"][0]["embedding"])
    short = np.array(embed(client, input="a cat", dimensions=64).json()["data"][0]["embedding"])
    assert np.allclose(short, full[:64] / np.linalg.norm(full[:64]), atol=1e-6)
    assert embed(client, input="a cat", dimensions=385).status_code == 400


def test_what_does_not_fit_the_window_is_reported(client: httpx.Client) -> None:
    answer = embed(client, input=["short", "word " * 300]).json()
    assert answer["truncated"] == [{"index": 1, "tokens_cut": 46}]
    assert answer["usage"]["total_tokens"] == 3 + 256
    assert "truncated" not in embed(client, input="short").json()


def test_equal_texts_get_equal_vectors_at_every_place(client: httpx.Client) -> None:
    data = embed(client, input=["x", "y", "x"]).json()["data"]
    assert data[0]["embedding"] == data[2]["embedding"] != data[1]["embedding"]


def test_a_text_has_the_same_direction_alone_and_among_many(client: httpx.Client) -> None:
    alone = np.array(embed(client, input="a cat").json()["data"][0]["embedding"])
    texts = ["a cat", *(f"{'filler ' * (n % 90)}{n}" for n in range(300))]
    among = np.array(embed(client, input=texts).json()["data"][0]["embedding"])
    assert alone @ among > 0.9999


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2]]}, "check_embedding_ctx_length=False"),
        ({"input": ""}, "input.0"),
        ({"input": []}, "input"),
        ({}, "input"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"input": ["x"] * 2049}, "2048"),
    ],
)
def test_a_request_that_makes_no_sense_is_told_why(
    client: httpx.Client, body: dict[str, object], words: str
) -> None:
    response = embed(client, **body)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


def test_an_unknown_model_names_the_known_one(client: httpx.Client) -> None:
    response = embed(client, input="x", model="text-embedding-3-small")
    assert response.status_code == 404
    assert "all-MiniLM-L6-v2" in response.json()["error"]["message"]


def test_ten_megabytes_of_text_are_refused(client: httpx.Client) -> None:
    response = embed(client, input="x" * 10_000_000)
    assert response.status_code == 413
    assert response.json()["error"]["param"] == "input.0"


@pytest.mark.parametrize(
    "text", [" ", "\x00", "日本語のテキスト", "👩‍👩‍👧‍👦" * 50, "\u202e", "x" * 50_000]
)
def test_any_text_gets_a_finite_vector(client: httpx.Client, text: str) -> None:
    vector = np.array(embed(client, input=text).json()["data"][0]["embedding"])
    assert abs(np.linalg.norm(vector) - 1) < 1e-4


def test_the_tokenizer_can_be_had(client: httpx.Client) -> None:
    model = client.get("/info").json()["model"]
    assert client.get(f"/v1/models/{model}/tokenizer").json()["model"]["type"] == "WordPiece"
    assert client.get("/v1/models/other/tokenizer").status_code == 404
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == [model]


def test_the_torch_backend_gives_the_same_vectors(
    suite: Suite, models_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    port = free_port()
    env = {
        "REFDESK_EMBED_PORT": str(port),
        "REFDESK_EMBED_BACKEND": "sentence-transformers",
        "REFDESK_DATA_DIR": str(tmp_path),
    }
    torch = ServiceProcess("embed", f"http://127.0.0.1:{port}", env, tmp_path / "embed.log")
    texts = ["a cat", "How do I reset my password?", "word " * 300]
    try:
        torch.start()
        vectors = [
            np.array([item["embedding"] for item in answer.json()["data"]])
            for answer in (
                httpx.post(f"{url}/v1/embeddings", json={"input": texts}, timeout=60)
                for url in (torch.url, suite.url("embed"))
            )
        ]
    finally:
        torch.stop()
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.98  # int8 against fp32
