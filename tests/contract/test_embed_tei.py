"""embed as text-embeddings-inference: the routes, headers and errors that its clients know."""

from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.suite import Suite

ROUTES = ("/", "/embed", "/embed_all", "/embed_sparse", "/similarity", "/tokenize")
LONG = "word " * 300  # 302 tokens with the special ones; the model reads 256


@pytest.fixture
def client(suite: Suite) -> httpx.Client:
    return httpx.Client(base_url=suite.url("embed"), timeout=60)


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    return client.post(path, json=body).raise_for_status().json()


def error_of(response: httpx.Response) -> dict[str, str]:
    error: dict[str, str] = response.json()
    assert set(error) == {"error", "error_type"}
    return error


def openai_vectors(client: httpx.Client, **body: Any) -> np.ndarray[Any, Any]:
    data = post(client, "/v1/embeddings", **body)["data"]
    return np.array([item["embedding"] for item in data], np.float32)


@pytest.mark.parametrize("path", ["/", "/embed"])
def test_embed_gives_the_bare_vectors_of_the_openai_route(client: httpx.Client, path: str) -> None:
    texts = ["a cat", "a tax return", "a cat"]
    vectors = np.array(post(client, path, inputs=texts), np.float32)
    assert np.allclose(vectors, openai_vectors(client, input=texts), atol=1e-4)
    assert np.array(post(client, path, inputs="a cat")).shape == (1, 384)


def test_the_headers_count_characters_and_tokens(client: httpx.Client) -> None:
    response = client.post("/embed", json={"inputs": ["hello world", "hello world"]})
    assert response.headers["x-compute-characters"] == "22"
    assert response.headers["x-compute-tokens"] == "8"
    assert int(response.headers["x-total-time"]) >= 0
    assert "x-truncated" not in response.headers


def test_fewer_dimensions_have_length_one_only_if_normalised(client: httpx.Client) -> None:
    [full] = np.array(post(client, "/embed", inputs="a cat"))
    [short] = np.array(post(client, "/embed", inputs="a cat", dimensions=64))
    [raw] = np.array(post(client, "/embed", inputs="a cat", dimensions=64, normalize=False))
    assert np.allclose(raw, full[:64])
    assert np.allclose(short, raw / np.linalg.norm(raw), atol=1e-6)


def test_a_text_that_is_too_long_is_refused_with_its_length_unless_truncated(
    client: httpx.Client,
) -> None:
    for path in ("/", "/embed", "/embed_all"):
        response = client.post(path, json={"inputs": ["short", LONG]})
        assert response.status_code == 413
        assert error_of(response)["error_type"] == "Validation"
        assert "inputs.1: the text has 302 tokens" in error_of(response)["error"]
        assert "reads 256" in error_of(response)["error"]
        response = client.post(path, json={"inputs": ["short", LONG], "truncate": True})
        assert response.status_code == 200
        assert response.headers["x-truncated-inputs"] == "1"
        assert response.headers["x-truncated"] == "1=46"


def test_a_text_is_cut_at_the_side_asked_for(client: httpx.Client) -> None:
    text = "a cat " * 200 + "the end"
    parts = {"Left": text.split()[-254:], "Right": text.split()[:254]}
    for side, words in parts.items():
        body = {"inputs": text, "truncate": True, "truncation_direction": side}
        response = client.post("/embed", json=body)
        assert response.headers["x-truncated"] == "0=148"
        [cut] = np.array(response.json())
        [alone] = np.array(post(client, "/embed", inputs=" ".join(words)))
        assert cut @ alone > 0.9999
    vectors = {
        side: post(client, "/embed", inputs=text, truncate=True, truncation_direction=side)[0]
        for side in parts
    }
    assert np.array(vectors["Left"]) @ np.array(vectors["Right"]) < 0.999


def test_many_truncated_texts_do_not_make_a_huge_header(client: httpx.Client) -> None:
    inputs = [f"{number} {LONG}" for number in range(101)]
    response = client.post("/embed", json={"inputs": inputs, "truncate": True})
    assert response.headers["x-truncated-inputs"] == "101"
    assert len(response.headers["x-truncated"].split(", ")) == 100


def test_embed_all_gives_a_vector_for_each_token(client: httpx.Client) -> None:
    texts = ["hello world", "cat", "hello world"]
    vectors = [np.array(rows) for rows in post(client, "/embed_all", inputs=texts)]
    assert [rows.shape for rows in vectors] == [(4, 384), (3, 384), (4, 384)]
    assert np.allclose(np.linalg.norm(np.concatenate(vectors), axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert len(post(client, "/embed_all", inputs=["x"] * 100)) == 100
    response = client.post("/embed_all", json={"inputs": [LONG] * 33, "truncate": True})
    assert response.status_code == 413
    assert "8,192 tokens at a time" in error_of(response)["error"]


def test_sparse_vectors_are_refused_as_what_the_model_lacks(client: httpx.Client) -> None:
    response = client.post("/embed_sparse", json={"inputs": "a cat"})
    assert response.status_code == 424
    assert error_of(response)["error_type"] == "Backend"
    assert "sparse" in error_of(response)["error"]


def test_similarity_gives_a_cosine_for_each_sentence(client: httpx.Client) -> None:
    sentences = ["a kitten", "a tax return", "a cat"]
    inputs = {"source_sentence": "a cat", "sentences": sentences}
    cosines = post(client, "/similarity", inputs=inputs)
    vectors = openai_vectors(client, input=["a cat", *sentences])
    assert np.allclose(cosines, vectors[1:] @ vectors[0], atol=1e-3)
    assert cosines[2] == pytest.approx(1, abs=1e-3)
    inputs["sentences"] = ["a kitten", LONG]
    response = client.post("/similarity", json={"inputs": inputs})
    assert response.status_code == 413
    assert "inputs.sentences.1" in error_of(response)["error"]
    body = {"inputs": inputs, "parameters": {"truncate": True}}
    assert len(post(client, "/similarity", **body)) == 2


def test_tokenize_gives_each_token_its_place_in_the_text(client: httpx.Client) -> None:
    text = "Grüße, Welt"
    [tokens] = post(client, "/tokenize", inputs=text)
    assert [token["text"] for token in (tokens[0], tokens[-1])] == ["[CLS]", "[SEP]"]
    assert tokens[0] | {"id": 0} == {
        "id": 0, "text": "[CLS]", "special": True, "start": None, "stop": None
    }  # fmt: skip
    for token in tokens[1:-1]:
        assert text[token["start"] : token["stop"]] == token["text"]
    assert "".join(token["text"] for token in tokens[1:-1]) == text.replace(" ", "")
    [bare] = post(client, "/tokenize", inputs=[text], add_special_tokens=False)
    assert bare == tokens[1:-1]
    [long] = post(client, "/tokenize", inputs=LONG)
    assert len(long) == 302


def test_info_has_the_fields_of_both(client: httpx.Client) -> None:
    info = client.get("/info").json()
    assert info["model_id"] == info["model"] == "all-MiniLM-L6-v2"
    assert info["model_sha"] == info["revision"]
    assert info["max_input_length"] == info["max_tokens"] == 256
    assert info["max_client_batch_size"] == 16_384
    assert "embedding" in info["model_type"]


@pytest.mark.parametrize("route", ["", "/embed"])
def test_the_client_of_huggingface_works_unchanged(suite: Suite, route: str) -> None:
    client = InferenceClient(model=suite.url("embed") + route)
    vectors = client.feature_extraction(["a cat", "a dog"], normalize=True)
    assert vectors.shape == (2, 384)
    short = client.feature_extraction(
        LONG, truncate=True, truncation_direction="right", dimensions=8, normalize=False
    )
    assert short.shape == (1, 8)
    with pytest.raises(HfHubHTTPError) as refused:
        client.feature_extraction("x", prompt_name="query")
    assert refused.value.response.status_code == 422


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 422),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"inputs": null}', 422),
        (b'{"inputs": 7}', 422),
        (b'{"inputs": [1, 2, 3]}', 422),
        (b'{"inputs": [["x"]]}', 422),
        (b'{"inputs": []}', 422),
        (b'{"inputs": ""}', 422),
        (b'{"inputs": ["x", ""]}', 422),
        (b'{"inputs": {"source_sentence": "", "sentences": []}}', 422),
        (b'{"inputs": "\\ud800"}', 400),
        (b'{"inputs": "\xff"}', 400),
        (b'{"inputs": NaN}', 400),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}", 422),
        (b'{"inputs": ' + b'{"inputs": ' * 500 + b"1" + b"}" * 501, 422),
        (b'{"inputs": [' + b'"x",' * 100_000 + b'"x"]}', 422),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_rubbish_is_refused_in_the_shape_of_tei(
    client: httpx.Client, path: str, body: bytes, status: int
) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert error_of(response)["error_type"] == "Validation"
    assert len(error_of(response)["error"]) < 500


@pytest.mark.parametrize(
    ("path", "more", "status", "words"),
    [
        ("/embed", {"dimensions": 0}, 422, "dimensions"),
        ("/embed", {"dimensions": -1}, 422, "dimensions"),
        ("/embed", {"dimensions": 385}, 422, "384"),
        ("/embed", {"dimensions": 10**18}, 422, "384"),
        ("/embed", {"prompt_name": "query"}, 422, "its prompts are: none"),
        ("/embed", {"prompt_name": "x" * 300}, 422, "prompt_name"),
        ("/embed", {"truncation_direction": "Up"}, 422, "truncation_direction"),
        ("/embed_all", {"prompt_name": "query"}, 422, "its prompts are: none"),
        ("/tokenize", {"prompt_name": "query"}, 422, "its prompts are: none"),
        ("/tokenize", {"inputs": ["x" * 150_000] * 2}, 413, "200,000"),
        ("/embed", {"inputs": "x" * 1_000_001}, 413, "1,000,000"),
        ("/embed_all", {"inputs": "x" * 1_000_001}, 413, "1,000,000"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(
    client: httpx.Client, path: str, more: dict[str, Any], status: int, words: str
) -> None:
    response = client.post(path, json={"inputs": "a cat"} | more)
    assert response.status_code == status
    assert words in error_of(response)["error"]


@pytest.mark.parametrize("text", [" ", "\n\t", "\x00\x01\x1b", "\u202e", "👩‍👩‍👧‍👦" * 20])
def test_any_text_is_read(client: httpx.Client, text: str) -> None:
    [vector] = post(client, "/embed", inputs=text)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    assert len(post(client, "/embed_all", inputs=text)[0]) >= 2
    assert len(post(client, "/tokenize", inputs=text)[0]) >= 2
    inputs = {"source_sentence": text, "sentences": [text]}
    assert post(client, "/similarity", inputs=inputs) == pytest.approx([1], abs=1e-3)


def test_what_the_envelope_refuses_has_the_shape_of_tei_too(client: httpx.Client) -> None:
    late = client.post("/embed", json={"inputs": "x"}, headers={"x-deadline-ms": "0"})
    assert late.status_code == 504
    assert error_of(late)["error_type"] == "Overloaded"
    assert error_of(client.get("/embed"))["error_type"] == "Validation"
    huge = client.post("/embed", content=b"x" * (33 * 1024 * 1024))
    assert huge.status_code == 413
    assert error_of(huge)["error_type"] == "Validation"
    assert "error_type" not in client.get("/elsewhere").json()
