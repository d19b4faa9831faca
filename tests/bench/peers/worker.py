"""One library in a process of its own, to be measured: bare, and behind the least of a server.

    python worker.py LIBRARY MODEL_FOLDER PORT [--threads 2] [--batch 32]

`POST /bare` encodes each list of texts by one call of the library and says how long each call took:
no HTTP, JSON or base64 is in that time. `POST /v1/embeddings` is what people write around such a
library: a route that calls it and answers in OpenAI's form. It runs under the environment of the
library that it is given, so nothing of refdesk is imported but for refdesk's own bare loop.
"""

import argparse
import base64
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Response

Encode = Callable[[Sequence[str]], Any]  # texts to an array, float32 [n, d]
Score = Callable[[str, Sequence[str]], Any]  # query and documents to an array, float32 [n]


def sentence_transformers(folder: Path, threads: int, batch: int) -> Encode:
    """PyTorch, fp32; it sorts by length itself."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return lambda texts: model.encode(
        list(texts), batch_size=batch, normalize_embeddings=True, show_progress_bar=False
    )


def fastembed(folder: Path, threads: int, batch: int) -> Encode:
    """ONNX Runtime; the folder has `model.onnx`. It runs texts in the order given."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local"),
        dim=json.loads((folder / "config.json").read_text())["hidden_size"],
        model_file="model.onnx",
    )
    model = TextEmbedding("local", specific_model_path=str(folder), threads=threads)
    return lambda texts: np.stack(list(model.embed(list(texts), batch_size=batch)))


def refdesk(folder: Path, threads: int, batch: int) -> Encode:
    """The loop that embed's thread runs: sorted by length, batches of `batch` padded tokens."""
    from shared.encoder.encoder import Encoder
    from shared.settings import Settings

    built = Settings().built_dir
    encoder = Encoder.open(folder, built, "int8", threads)

    def encode(texts: Sequence[str]) -> Any:
        tokenized = encoder.tokenizer.tokenize(texts)
        order = sorted(range(len(texts)), key=lambda place: -len(tokenized[place]))
        vectors = np.empty((len(texts), encoder.dimension), np.float32)
        while order:
            room = max(1, batch // len(tokenized[order[0]]))
            places, order = order[:room], order[room:]
            vectors[places] = encoder.embed([tokenized[place] for place in places])
        return vectors

    return encode


ENCODERS: dict[str, Callable[[Path, int, int], Encode]] = {
    "sentence-transformers": sentence_transformers,
    "fastembed": fastembed,
    "refdesk": refdesk,
}


def cross_encoder(folder: Path, threads: int, batch: int) -> Score:
    """sentence-transformers' CrossEncoder, fp32."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    return lambda query, documents: model.predict(
        [(query, document) for document in documents], batch_size=batch, show_progress_bar=False
    )


def timed(call: Callable[[], Any]) -> float:
    """Seconds that the call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def embedding_app(encode: Encode) -> FastAPI:
    """The routes around an encoder. They are coroutines: the library has the process to itself,
    one call at a time, which is the fastest that it can be served without batching.
    """
    app = FastAPI()

    @app.post("/bare")
    async def bare(body: dict[str, Any]) -> list[float]:
        return [timed(partial(encode, texts)) for texts in body["batches"]]

    @app.post("/v1/embeddings")
    async def embeddings(body: dict[str, Any]) -> Response:
        data = [
            {
                "object": "embedding",
                "index": place,
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode(),
            }
            for place, vector in enumerate(encode(body["input"]))
        ]
        answer = {"object": "list", "data": data, "model": body["model"]}
        return Response(json.dumps(answer), media_type="application/json")

    return app


def scoring_app(score: Score) -> FastAPI:
    """The bare route around a cross-encoder."""
    app = FastAPI()

    @app.post("/bare")
    async def bare(body: dict[str, Any]) -> float:
        return timed(partial(score, body["query"], body["documents"]))

    return app


def main() -> None:
    """Load the library's model and serve until stopped."""
    parser = argparse.ArgumentParser(description="One library in a process of its own.")
    parser.add_argument("library", choices=[*ENCODERS, "cross-encoder"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    given = (options.folder, options.threads, options.batch)
    if options.library == "cross-encoder":
        app = scoring_app(cross_encoder(*given))
    else:
        app = embedding_app(ENCODERS[options.library](*given))

    @app.get("/health")
    async def health() -> str:
        return "ok"

    uvicorn.run(app, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
