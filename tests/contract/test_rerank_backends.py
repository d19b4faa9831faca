"""What every backend of the curator keeps to, whatever runs it."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from services.rerank.models.base import RerankModel, TextTooLongError
from services.rerank.models.cross_encoder import open_cross_encoder
from services.rerank.models.late_interaction import LateInteraction
from shared.encoder.weights import ModelError
from shared.errors import StartupError
from shared.settings import Precision, Settings
from tests.cross_encoder import auc, from_collection, from_handbook, logits, make_cross_encoder
from tests.random_model import save_random_model
from tests.suite import REPOSITORY

QUERY = "How do I reset my password?"
ANSWER = "To reset your password, open the account page and choose a new password."
OTHER = "The cafeteria serves soup at noon."
UNREAD = ("", " \n\t")

in_its_loop = pytest.mark.asyncio(loop_scope="module")  # of a model, which is opened once


def _settings(built: Path, precision: Precision = "fp32") -> Settings:
    return Settings(data_dir=built, rerank_precision=precision, rerank_cache_mb=0)


def _late(minilm: Path, small: Path, built: Path) -> RerankModel:
    return LateInteraction("late", minilm, _settings(built, "int8"))


def _fp32(minilm: Path, small: Path, built: Path) -> RerankModel:
    return open_cross_encoder("small", small, _settings(built))


def _int8(minilm: Path, small: Path, built: Path) -> RerankModel:
    return open_cross_encoder("small", small, _settings(built, "int8"))


def _torch(minilm: Path, small: Path, built: Path) -> RerankModel:
    from services.rerank.models.sentence_transformers import open_torch_cross_encoder

    return open_torch_cross_encoder("small", small, "0123456789ab", _settings(built))


def _flag(minilm: Path, small: Path, built: Path) -> RerankModel:
    from services.rerank.models.flag import open_flag

    return open_flag("small", small, "0123456789ab", _settings(built))


# Each opens a model: of MiniLM's folder, or of a small cross-encoder's; with a folder for graphs.
BACKENDS: dict[str, Callable[[Path, Path, Path], RerankModel]] = {
    "late-interaction": _late,
    "cross-encoder-fp32": _fp32,
    "cross-encoder-int8": _int8,
    "sentence-transformers": _torch,
    "flag": _flag,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="module")
def judged(request: pytest.FixtureRequest) -> list[tuple[str, str, bool]]:
    """Judged pairs: of a collection's train split, or without it of the handbook."""
    try:
        return from_collection(request.getfixturevalue("datasets") / "scifact", 60)
    except pytest.skip.Exception:
        return from_handbook(REPOSITORY / "docs", 40)


@pytest.fixture(scope="module")
def small(
    minilm_dir: Path, judged: list[tuple[str, str, bool]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a small cross-encoder, fitted to the first half of the judgements."""
    folder = tmp_path_factory.mktemp("small") / "model"
    make_cross_encoder(folder, minilm_dir, judged[: len(judged) // 2])
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BACKENDS)
async def model(
    request: pytest.FixtureRequest, minilm_dir: Path, small: Path, built: Path
) -> AsyncIterator[RerankModel]:
    opened = BACKENDS[request.param](minilm_dir, small, built)
    yield opened
    await opened.close()


@in_its_loop
async def test_scores_are_in_the_order_of_the_request_and_relevance_is_above_the_rest(
    model: RerankModel,
) -> None:
    scored = await model.score(QUERY, [OTHER, ANSWER, "soup"])
    assert scored.scores[1] > max(scored.scores[0], scored.scores[2])
    assert scored.raw_scores[1] > max(scored.raw_scores[0], scored.raw_scores[2])
    assert all(0 <= score <= 1 for score in scored.scores)
    assert all(type(score) is float for score in scored.scores + scored.raw_scores)


@in_its_loop
async def test_every_document_is_scored_counted_and_reported(model: RerankModel) -> None:
    documents = [ANSWER, "", OTHER, " \n\t", ANSWER, "x", "\x00\x07", "Übung 🙂 漢字", "ﷺ" * 50]
    scored = await model.score(QUERY, documents)
    for each in (scored.scores, scored.raw_scores, scored.document_tokens, scored.truncated):
        assert each is not None
        assert len(each) == len(documents)
    assert scored.tokens is not None
    assert scored.document_tokens is not None
    assert scored.tokens > sum(scored.document_tokens)
    assert np.isfinite(scored.scores + scored.raw_scores).all()


@in_its_loop
async def test_equal_documents_score_alike_and_blank_ones_lowest(model: RerankModel) -> None:
    scored = await model.score(QUERY, [ANSWER, UNREAD[0], ANSWER, OTHER, UNREAD[1]])
    assert scored.scores[0] == scored.scores[2]
    assert scored.scores[1] == scored.scores[4] == 0
    assert scored.raw_scores[1] == scored.raw_scores[4] < min(scored.raw_scores[0], 0)
    assert scored.scores[3] >= 0
    assert scored.document_tokens is not None
    assert scored.document_tokens[1] == scored.document_tokens[4] == 0


@in_its_loop
async def test_no_documents_and_only_blank_ones_need_no_model(model: RerankModel) -> None:
    assert (await model.score(QUERY, [])).scores == []
    assert (await model.score(QUERY, list(UNREAD))).scores == [0, 0]


@in_its_loop
async def test_a_document_scores_the_same_alone_and_among_hundreds(model: RerankModel) -> None:
    documents = [f"Note {number} says little." for number in range(249)]
    documents.insert(125, ANSWER)
    scored = await model.score(QUERY, documents)
    alone = await model.score(QUERY, [ANSWER])
    assert len(scored.scores) == 250
    assert int(np.argmax(scored.scores)) == 125
    # In int8 a sum's order may move a number over the edge of a step.
    assert scored.scores[125] == pytest.approx(alone.scores[0], abs=0.02)


@in_its_loop
async def test_a_very_long_document_is_cut_and_says_by_how_much(model: RerankModel) -> None:
    long = "word " * 20_000
    scored = await model.score(QUERY, [long, ANSWER])
    assert scored.document_tokens is not None
    assert model.info.max_tokens is not None
    assert scored.document_tokens[0] <= model.info.max_tokens
    assert scored.truncated[0] > 19_000
    assert scored.truncated[1] == scored.query_truncated == 0


@in_its_loop
async def test_a_very_long_query_leaves_room_for_the_documents(model: RerankModel) -> None:
    scored = await model.score(f"{QUERY} {'word ' * 2000}", [ANSWER, OTHER])
    assert scored.query_truncated > 1400
    assert scored.truncated == [0, 0]
    assert scored.scores[0] > scored.scores[1]


@in_its_loop
async def test_fewer_tokens_of_a_document_may_be_read_from_either_end(model: RerankModel) -> None:
    text = "one two three four five"
    start = await model.score(QUERY, [text], max_tokens=2)
    assert start.truncated == [3]
    assert start.raw_scores == pytest.approx((await model.score(QUERY, ["one two"])).raw_scores)
    end = await model.score(QUERY, [text], max_tokens=2, keep="end")
    assert end.truncated == [3]
    assert end.raw_scores == pytest.approx((await model.score(QUERY, ["four five"])).raw_scores)


@in_its_loop
async def test_whole_refuses_what_would_be_cut_and_says_which_text(model: RerankModel) -> None:
    long = "word " * 2000
    with pytest.raises(TextTooLongError) as caught:
        await model.score(QUERY, [ANSWER, long], whole=True)
    assert caught.value.place == 1
    assert caught.value.tokens > caught.value.limit
    with pytest.raises(TextTooLongError) as caught:
        await model.score(long, [ANSWER], whole=True)
    assert caught.value.place is None
    assert len((await model.score(QUERY, [ANSWER], whole=True)).scores) == 1


@in_its_loop
async def test_a_caller_who_leaves_harms_no_other(model: RerankModel) -> None:
    many = [f"Paragraph {number} is about nothing much. " * 20 for number in range(100)]
    leaving = asyncio.create_task(model.score(QUERY, many))
    await asyncio.sleep(0.05)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    scored = await asyncio.gather(*(model.score(QUERY, [OTHER, ANSWER]) for _ in range(4)))
    assert all(one.scores[1] > one.scores[0] for one in scored)


async def test_onnx_gives_the_logits_of_pytorch(
    minilm_dir: Path, small: Path, built: Path, judged: list[tuple[str, str, bool]]
) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    ours, theirs = _fp32(minilm_dir, small, built), _torch(minilm_dir, small, built)
    query = judged[0][0]
    documents = [document for _, document, _ in judged[:20]]
    found = (await ours.score(query, documents)).raw_scores
    expected = (await theirs.score(query, documents)).raw_scores
    assert np.abs(np.array(found) - expected).max() < 1e-3
    own = CrossEncoder(str(small), device="cpu").predict(
        [(query, document) for document in documents[:5]], activation_fn=torch.nn.Identity()
    )
    assert np.abs(np.array(found[:5]) - own).max() < 1e-3
    await ours.close()
    await theirs.close()


def test_the_small_cross_encoder_is_better_than_chance_on_queries_it_was_not_fitted_to(
    small: Path, built: Path, judged: list[tuple[str, str, bool]]
) -> None:
    """So the tests of order mean something: it was 0.84 on SciFact's train queries; chance 0.5."""
    unseen = judged[len(judged) // 2 :]
    assert auc(logits(small, built, unseen), unseen) > 0.65


def test_an_encoder_without_a_classifier_is_refused(minilm_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="asks for a module Pooling"):
        open_cross_encoder("bare", minilm_dir, _settings(tmp_path))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).symlink_to(minilm_dir / name)
    with pytest.raises(ModelError, match="lacks a readable tensor classifier"):
        open_cross_encoder("bare", tmp_path, _settings(tmp_path))


def test_a_damaged_cross_encoder_is_refused(small: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((small / name).read_bytes()[:500])
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        open_cross_encoder("damaged", tmp_path, _settings(tmp_path))
    (tmp_path / "tokenizer.json").write_bytes((small / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match=r"model\.safetensors|config\.json"):
        open_cross_encoder("damaged", tmp_path, _settings(tmp_path))


@pytest.mark.parametrize(("kind", "labels"), [("Bert", 2), ("Roberta", 1)])
async def test_other_classifiers_and_ready_graphs_give_the_logits_of_pytorch(
    minilm_dir: Path, tmp_path: Path, kind: str, labels: int
) -> None:
    from services.rerank.models.sentence_transformers import open_torch_cross_encoder

    folder, ready, built = tmp_path / "model", tmp_path / "ready", tmp_path / "built"
    save_random_model(
        f"{kind}ForSequenceClassification",
        folder,
        max_position_embeddings=130,
        vocab_size=30522,
        type_vocab_size=2,
        initializer_range=0.2,
        num_labels=labels,
    )
    described = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
    for name in described:
        shutil.copy(minilm_dir / name, folder)
    ours = open_cross_encoder("random", folder, _settings(built))
    theirs = open_torch_cross_encoder("random", folder, "0123456789ab", _settings(built))
    documents = [ANSWER, OTHER, "x", "word " * 300]
    found = await ours.score(QUERY, documents)
    expected = await theirs.score(QUERY, documents)
    assert found.raw_scores == pytest.approx(expected.raw_scores, abs=1e-3)
    assert np.ptp(found.raw_scores) > 0.01

    ready.mkdir()
    [graph] = built.glob("**/*.onnx")
    shutil.copy(graph, ready / "model.onnx")
    for name in ("config.json", *described):
        shutil.copy(folder / name, ready)
    as_exported = open_cross_encoder("ready", ready, _settings(tmp_path / "unused"))
    assert as_exported.info.precision == "as exported"
    assert (await as_exported.score(QUERY, documents)).raw_scores == found.raw_scores
    for model in (ours, theirs, as_exported):
        await model.close()
