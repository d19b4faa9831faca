"""embed over HTTP: OpenAI's surface, true token counts, clear refusals."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from services.embed.app import build
from services.embed.protocol import EmbeddingResponse
from shared.modelstore.entry import ENTRY_FILE
from shared.modelstore.folder import FolderSource
from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.suite import ServiceProcess, Suite, free_port, serving


@pytest.fixture
def client(suite: Suite) -> httpx.Client:
    return httpx.Client(base_url=suite.url("embed"), timeout=60)


def embed(client: httpx.Client, **body: object) -> httpx.Response:
    return client.post("/v1/embeddings", json=body)


def test_the_official_client_gets_unit_vectors_in_order(suite: Suite) -> None:
    import openai

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


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_answer_is_what_the_openapi_document_says(client: httpx.Client, encoding: str) -> None:
    answer = embed(client, input=["short", "word " * 300], encoding_format=encoding).json()
    assert EmbeddingResponse.model_validate(answer).model_dump(exclude_unset=True) == answer
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/embeddings"]["post"]["responses"]["200"]
    assert "EmbeddingResponse" in json.dumps(operation)


def test_what_does_not_fit_the_window_is_reported(client: httpx.Client) -> None:
    answer = embed(client, input=["short", "word " * 300]).json()
    assert answer["truncated"] == [{"index": 1, "tokens_cut": 46}]
    assert answer["usage"]["total_tokens"] == 3 + 256
    assert "truncated" not in embed(client, input="short").json()


def test_a_text_that_is_too_long_is_refused_on_request(client: httpx.Client) -> None:
    response = embed(client, input=["short", "word " * 300], truncate=False)
    assert response.status_code == 413
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("text_too_long", "input.1")
    assert "302 tokens" in error["message"]
    assert "reads 256" in error["message"]
    assert embed(client, input="word " * 254, truncate=False).status_code == 200


@pytest.mark.parametrize("default", [None, "passage"])
async def test_a_model_with_prompts_reads_them_before_each_text(
    minilm_dir: Path, tmp_path: Path, default: str | None
) -> None:
    folder = tmp_path / "prompted"
    # Without the store's entry, which would not know the changed file.
    shutil.copytree(minilm_dir, folder, ignore=shutil.ignore_patterns(ENTRY_FILE))
    config = folder / "config_sentence_transformers.json"
    prompts = {"query": "query: ", "passage": "passage: ", "none": ""}
    config.write_text(json.dumps({"prompts": prompts, "default_prompt_name": default}))
    ModelStore(tmp_path / "models").pull(FolderSource(folder, "prompted"))
    app = await build(
        Settings(
            models_dir=tmp_path / "models",
            data_dir=tmp_path / "data",
            embed_model="prompted",
            embed_precision="fp32",
            embed_threads=1,
        )
    )

    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def vector(**body: object) -> list[float]:
            response = await client.post("/v1/embeddings", json=body)
            numbers: list[float] = response.raise_for_status().json()["data"][0]["embedding"]
            return numbers

        query = await vector(input="query: a cat", prompt_name="none")
        passage = await vector(input="passage: a cat", prompt_name="none")
        plain = await vector(input="a cat", prompt_name="none")
        assert query != passage != plain
        assert await vector(input="a cat", input_type="query") == pytest.approx(query, abs=1e-4)
        for use in ("document", "passage"):  # the model's word for what is searched
            assert await vector(input="a cat", input_type=use) == pytest.approx(passage, abs=1e-4)
        unasked = await vector(input="a cat")
        assert unasked == pytest.approx(passage if default else plain, abs=1e-4)
        both = await vector(input="a cat", input_type="query", prompt_name="none")
        assert both == pytest.approx(plain, abs=1e-4)
        [tei] = (
            await client.post("/embed", json={"inputs": "a cat", "prompt_name": "query"})
        ).json()
        assert tei == pytest.approx(query, abs=1e-4)
        body = {"inputs": "a cat", "prompt_name": "query", "add_special_tokens": False}
        [tokens] = (await client.post("/tokenize", json=body)).json()
        assert [token["text"] for token in tokens] == ["query", ":", "a", "cat"]
        unknown = await client.post("/v1/embeddings", json={"input": "x", "prompt_name": "title"})
        assert unknown.status_code == 400
        error = unknown.json()["error"]
        assert (error["code"], error["param"]) == ("unknown_prompt", "prompt_name")
        assert "query, passage, none" in error["message"]
        info = (await client.get("/info")).json()
        assert (info["prompts"], info["default_prompt"]) == (prompts, prompts[default or "none"])


def test_a_model_without_prompts_embeds_every_use_alike(client: httpx.Client) -> None:
    plain = embed(client, input="a cat").json()["data"]
    for use in ("query", "document", "passage"):
        assert embed(client, input="a cat", input_type=use).json()["data"] == plain
    response = embed(client, input="a cat", prompt_name="query")
    assert response.status_code == 400
    assert "its prompts are: none" in response.json()["error"]["message"]


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
        ({"input": "x", "dimensions": -1}, "dimensions"),
        ({"input": "x", "dimensions": 10**18}, "384"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "x", "input_type": "clustering"}, "input_type"),
        ({"input": "x", "prompt_name": "x" * 300}, "prompt_name"),
        ({"input": ["x", ""]}, "input.1"),
        ({"input": [["x"]]}, "input"),
        ({"input": ["x", 7]}, "input.1"),
        ({"input": {"a": "x"}}, "input"),
        ({"input": "x", "truncate": 0}, "truncate"),
        ({"input": "x", "dimensions": "64"}, "dimensions"),
        ({"input": "x", "outputs": []}, "outputs"),
        ({"input": "x", "outputs": ["dens"]}, "outputs.0"),
        ({"input": "x", "outputs": "dense"}, "outputs"),
        ({"input": ["x"] * 16_385}, "16384"),
        ({"input": ["x"] * 100_000}, "16384"),
    ],
)
def test_a_request_that_makes_no_sense_is_told_why(
    client: httpx.Client, body: dict[str, object], words: str
) -> None:
    response = embed(client, **body)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"input": "\\ud800"}',
        b'{"input": "\xff"}',
        b'{"input": NaN}',
        b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"input": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
def test_rubbish_is_refused_in_the_shape_of_openai(client: httpx.Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = client.post("/v1/embeddings", content=body, headers=headers)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_of_text_and_tokens_come_in_one_answer(client: httpx.Client, encoding: str) -> None:
    def numbers(field: list[float] | str) -> np.ndarray[Any, Any]:
        if isinstance(field, str):
            return np.frombuffer(base64.b64decode(field), "<f4")
        return np.array(field, np.float32)

    texts = ["hello world", "cat", "hello world"]
    outputs = ["dense", "tokens"]
    answer = embed(client, input=texts, outputs=outputs, encoding_format=encoding).json()
    assert EmbeddingResponse.model_validate(answer).model_dump(exclude_unset=True) == answer
    plain = [numbers(one["embedding"]) for one in embed(client, input=texts).json()["data"]]
    for item, dense, length in zip(answer["data"], plain, (4, 3, 4), strict=True):
        assert numbers(item["embedding"]) @ dense > 0.999
        rows = np.stack([numbers(row) for row in item["token_embeddings"]])
        assert rows.shape == (length, 384)
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    [alone] = embed(client, input="cat", outputs=["tokens"]).json()["data"]
    assert alone.keys() == {"object", "index", "token_embeddings"}


def test_what_the_model_does_not_make_is_said(client: httpx.Client) -> None:
    response = embed(client, input="x", outputs=["dense", "sparse"])
    assert response.status_code == 424
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("no_such_output", "outputs")
    assert "makes no sparse vectors, only dense vectors and token vectors" in error["message"]


def test_token_vectors_are_given_for_so_many_tokens_alone(client: httpx.Client) -> None:
    response = embed(client, input=["word " * 300] * 33, outputs=["tokens"])
    assert response.status_code == 413
    assert "8,192 tokens at a time" in response.json()["error"]["message"]


def test_an_unknown_model_names_the_known_one(client: httpx.Client) -> None:
    response = embed(client, input="x", model="text-embedding-3-small")
    assert response.status_code == 404
    assert "all-MiniLM-L6-v2" in response.json()["error"]["message"]


def test_ten_megabytes_of_text_are_refused(client: httpx.Client) -> None:
    response = embed(client, input="x" * 10_000_000)
    assert response.status_code == 413
    assert response.json()["error"]["param"] == "input.0"


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "\n\t ",
        "\x00",
        "\x01\x1b\x7f",
        "日本語のテキスト",
        "👩‍👩‍👧‍👦" * 50,
        "\u202e",
        "x" * 50_000,
    ],
)
def test_any_text_gets_a_finite_vector(client: httpx.Client, text: str) -> None:
    vector = np.array(embed(client, input=text).json()["data"][0]["embedding"])
    assert abs(np.linalg.norm(vector) - 1) < 1e-4


def test_the_tokenizer_can_be_had(client: httpx.Client) -> None:
    model = client.get("/info").json()["model"]
    assert client.get(f"/v1/models/{model}/tokenizer").json()["model"]["type"] == "WordPiece"
    assert client.get("/v1/models/other/tokenizer").status_code == 404
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == [model]


@pytest.mark.long
def test_the_torch_backend_gives_the_same_vectors(
    suite: Suite, models_dir: Path, tmp_path: Path
) -> None:
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
