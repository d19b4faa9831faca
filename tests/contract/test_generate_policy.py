"""A policy file in the running service: who is asked, who is refused, and how it changes."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from services.generate.app import build
from services.generate.routing import in_force
from shared.errors import StartupError
from shared.settings import Settings
from tests.calling import WEATHER
from tests.desk import Desk
from tests.guarded import keys_file
from tests.model_server import LIE, ModelServer
from tests.policed import change, policed, refusal
from tests.policies import POLICY_TEXT
from tests.writers import PORT, WHEN, Serve, ask, chat


async def test_an_answer_says_by_which_rule_and_policy_its_writer_was_chosen(
    serve: Serve, tmp_path: Path
) -> None:
    models = ModelServer()
    async with policed(serve, tmp_path, models, model_keys={"small-a": "k1"}) as (client, _, _):
        answer = await ask(client, WHEN)
        ready = (await client.get("/ready")).json()
        listed = (await client.get("/v1/models")).json()["data"]
    decision = answer["refdesk"]["decision"]
    assert (decision["tier"], decision["model"], decision["rule"]) == ("small", "s1", "scored")
    assert decision["data_class"] == "open"
    assert decision["policy"] == ready["policy"]["fingerprint"]
    assert ready["policy"]["error"] is None
    assert {tier: one["model"] for tier, one in ready["tiers"].items()} == {
        "small": "s1",
        "large": "l1",
    }
    assert {"model": "gone", "rule": "retired"}.items() <= {
        **next(one for one in decision["ruled_out"] if one["model"] == "gone")
    }.items()
    assert [one["id"] for one in listed] == [
        "auto", "small", "large", "small-a", "large-a", "large-b", "trial", "quote",
    ]  # fmt: skip
    assert models.seen[-1]["headers"]["authorization"] == "Bearer k1"


async def test_the_route_is_explained_and_nobody_writes(serve: Serve, tmp_path: Path) -> None:
    models = ModelServer()
    async with policed(serve, tmp_path, models) as (client, _, _):
        response = await client.post("/v1/route", json=chat(WHEN, tools=[WEATHER]))
        mark = {"data_class": "secret"}
        marked = (await client.post("/v1/route", json=chat(WHEN, refdesk=mark))).json()
    explained = response.json()
    assert explained["tier"] == "large", response.text  # small-a says that it has no tools
    assert explained["fallbacks"] == ["large-b"]
    assert {"model": "small-a", "rule": "capability", "why": "it lacks tools"} in explained[
        "ruled_out"
    ]
    assert explained["last_resort"] == "quote"
    assert sum(one["weight"] for one in explained["reasons"] if one["name"] != "scored") < 1
    assert (marked["model"], marked["data_class_source"]) == ("large-b", "caller")
    assert not models.asked


# --- compliance --------------------------------------------------------------------------------


async def test_marked_data_goes_to_the_models_of_its_class_alone(
    serve: Serve, tmp_path: Path
) -> None:
    models = ModelServer(s1=None, l1=None, l2=LIE, t=None)  # all fail: the way goes on to its end
    wanted: dict[str, set[str]] = {
        "auto": {"l2"},
        "large": {"l2"},
        "large-b": {"l2"},
        "quote": set(),
        "trial": {"t"},
    }
    async with policed(serve, tmp_path, models) as (client, _, _):
        for model, stream in itertools.product(wanted, (False, True)):
            body = chat(WHEN, model=model, stream=stream, refdesk={"data_class": "secret"})
            response = await client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200
            assert "1843" in response.text
            assert set(models.asked) == wanted[model], (model, stream)
            models.seen.clear()


async def test_a_forbidden_model_is_a_403_that_names_the_rule_and_no_other_model(
    serve: Serve, tmp_path: Path
) -> None:
    models = ModelServer()
    async with policed(serve, tmp_path, models) as (client, _, _):
        for model in ("small", "small-a", "large-a"):
            error = await refusal(client, 403, model=model, refdesk={"data_class": "secret"})
            assert (error["code"], error["param"]) == ("forbidden_model", "model")
            assert "compliance" in error["message"]
            assert "large-b" not in error["message"]
    assert not models.asked


async def test_what_is_found_in_a_text_counts_whatever_the_caller_says(
    serve: Serve, tmp_path: Path
) -> None:
    passages = [("a.md", "A", "Ada Lovelace wrote the first program in 1843. Write to a@b.example")]
    models = ModelServer(l2="Ada Lovelace wrote the first program in 1843 [1].")
    async with policed(serve, tmp_path, models, desk=Desk(passages=passages)) as (client, _, _):
        answer = await ask(client, WHEN, refdesk={"data_class": "open"})
    decision = answer["refdesk"]["decision"]
    assert (decision["data_class"], decision["model"]) == ("secret", "l2")
    assert "data_class: secret (detected email)" in decision["reasons"]
    assert set(models.asked) == {"l2"}


async def test_without_any_writer_for_the_data_nothing_is_written(
    serve: Serve, tmp_path: Path
) -> None:
    # large-b alone may see it, and it has not the time.
    text = POLICY_TEXT.replace("[large-b, trial, quote]", "[large-b]").replace(
        "model: l2,", "model: l2, latency_ms: 3600000,"
    )
    async with policed(serve, tmp_path, ModelServer(), text) as (client, _, _):
        error = await refusal(client, 403, refdesk={"data_class": "secret"})
    assert error["code"] == "no_writer_allowed"
    assert "compliance, deadline" in error["message"]


# --- names and limits --------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], int, str, str, str]] = [
    ({"model": "gpt-9"}, 404, "model_not_found", "model", "no model 'gpt-9'"),
    ({"model": "gone"}, 410, "model_retired", "model", "ask for 'small-a'"),
    ({"refdesk": {"data_class": "top"}}, 400, "invalid_request", "refdesk.data_class",
     "open, secret"),
    ({"refdesk": {"tiers": ["huge"]}}, 400, "invalid_request", "refdesk.tiers", "small, large"),
    ({"model": "small", "refdesk": {"tiers": ["large"]}}, 400, "model_unfit", "model",
     "allowed_tiers"),
    ({"model": "small", "refdesk": {"budget_nano_dollars": 1}}, 400, "model_unfit", "model",
     "the budget is 1"),
    ({"refdesk": {"budget_nano_dollars": -1}}, 400, "invalid_request",
     "refdesk.budget_nano_dollars", "0"),
]  # fmt: skip


async def test_a_name_or_limit_that_does_not_fit_is_told(serve: Serve, tmp_path: Path) -> None:
    models = ModelServer()
    async with policed(serve, tmp_path, models) as (client, _, _):
        for more, status, code, param, part in REFUSED:
            error = await refusal(client, status, **more)
            route = await client.post("/v1/route", json=chat(WHEN, **more))
            assert (error["code"], error["param"]) == (code, param)
            assert part in error["message"]
            assert route.status_code == status
    assert not models.asked


async def test_a_budget_leads_to_the_tier_that_it_pays_for(serve: Serve, tmp_path: Path) -> None:
    models = ModelServer()
    async with policed(serve, tmp_path, models) as (client, _, _):
        answer = await ask(client, WHEN, refdesk={"budget_nano_dollars": 5})
    assert answer["refdesk"]["decision"]["model"] == "l1"


# --- fallbacks and hops ------------------------------------------------------------------------


async def test_a_failed_check_leads_to_the_next_tier_and_a_failed_model_to_its_fallback(
    serve: Serve, tmp_path: Path
) -> None:
    models = ModelServer(s1=LIE, l1=None)
    async with policed(serve, tmp_path, models, POLICY_TEXT) as (client, _, url):
        answer = await ask(client, WHEN)
    decision = answer["refdesk"]["decision"]
    assert (decision["tier"], decision["model"]) == ("large", "l2")
    assert decision["escalated_from"] == f"small:{url}/v1"
    assert models.asked == {"s1": 1, "l1": 1, "l2": 1}
    assert answer["refdesk"]["degraded"] == ["similarity", f"{url}/v1"]


# --- the file changes --------------------------------------------------------------------------


async def test_a_changed_file_holds_for_the_next_question_and_a_broken_one_does_not(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "LOOK_EVERY_S", 0.0)
    models = ModelServer()
    async with policed(serve, tmp_path, models) as (client, path, _):
        good = path.read_text()
        before = (await client.get("/ready")).json()["policy"]
        change(path, good.replace("start: small", "start: large"))
        answer = await ask(client, WHEN)
        change(path, good.replace("start: small", "start: tiny"))
        kept = await ask(client, WHEN)
        ready = await client.get("/ready")
        metrics = (await client.get("/metrics")).text
    decision = answer["refdesk"]["decision"]
    assert decision["tier"] == "large"
    assert decision["policy"] != before["fingerprint"]
    assert kept["refdesk"]["decision"]["policy"] == decision["policy"]
    assert ready.status_code == 200
    assert "there is no tier named tiny" in ready.json()["policy"]["error"]
    assert "refdesk_generate_policy_stale 1.0" in metrics


async def test_with_keys_readiness_does_not_name_servers(serve: Serve, tmp_path: Path) -> None:
    async with policed(serve, tmp_path, ModelServer()) as (client, _, _):
        told = (await client.get("/ready")).json()
    keys = keys_file(tmp_path, {"name": "ann"})
    async with policed(serve, tmp_path, ModelServer(), keys_file=keys) as (client, _, _):
        ready = await client.get("/ready")
    assert "http://" in str(told["tiers"])
    assert "http://" not in ready.text
    assert ready.json()["tiers"] == {
        tier: {"model": one["model"]} for tier, one in told["tiers"].items()
    }


async def test_with_keys_readiness_does_not_name_the_file(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "LOOK_EVERY_S", 0.0)
    keys = keys_file(tmp_path, {"name": "ann"})
    async with policed(serve, tmp_path, ModelServer(), keys_file=keys) as (client, path, _):
        path.write_text("broken: [")
        error = (await client.get("/ready")).json()["policy"]["error"]
    assert "see the log" in error
    assert str(tmp_path) not in error


async def test_a_policy_that_can_not_be_used_keeps_the_service_from_starting(
    tmp_path: Path,
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY_TEXT.replace("start: small", "start: tiny"))
    with pytest.raises(StartupError, match=r"policy\.yaml:\d+: scored\.start"):
        await build(Settings(policy_file=path))


async def test_the_packaged_policy_answers_as_it_always_has(serve: Serve) -> None:
    async with serve(Desk()) as client:
        answer = await ask(client, PORT)
        explained = (await client.post("/v1/route", json=chat(PORT))).json()
    decision = answer["refdesk"]["decision"]
    assert (decision["endpoint"], decision["rule"]) == ("extractive", "good_evidence")
    assert (explained["tier"], explained["model"]) == ("utility", "utility-writer")
    assert explained["policy"] == decision["policy"]
