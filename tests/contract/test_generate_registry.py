"""The registry of models over HTTP: its inventory, and lives that files and restarts respect."""

import csv
import io
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.generate.app import build
from services.generate.routing import in_force
from shared.errors import StartupError
from shared.settings import Settings
from tests.desk import Desk
from tests.guarded import bearer, keys_file
from tests.policies import POLICY_TEXT, bent
from tests.writers import Serve, chat

TRIAL = "state: candidate"
RISK = "risk: [{item: origin, points: 40, why: not told}], "


def write(folder: Path, text: str) -> Path:
    path, beside = folder / "policy.yaml", folder / "policy.new"
    beside.write_text(text)
    os.replace(beside, path)
    return path


@asynccontextmanager
async def running(
    serve: Serve, folder: Path, text: str, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service under a policy; a second one in the same folder is a restart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_force, "LOOK_EVERY_S", 0.0)
        path = write(folder, text)
        async with serve(Desk(), policy_file=path, data_dir=folder, **settings) as client:
            yield client


async def history(client: httpx.AsyncClient, **query: Any) -> list[tuple[str, str | None, str]]:
    response = await client.get("/v1/registry/history", params=query)
    assert response.status_code == 200, response.text
    return [(one["model"], one["before"], one["after"]) for one in response.json()["changes"]]


async def entry(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    models = (await client.get("/v1/registry")).json()["models"]
    [found] = [one for one in models if one["name"] == name]
    return dict(found)


# --- the life of a model -----------------------------------------------------------------------


async def test_a_file_may_lead_a_model_on_but_not_back_from_where_nothing_leads(
    serve: Serve, tmp_path: Path
) -> None:
    active, old = bent(TRIAL, "state: active"), bent(TRIAL, "state: deprecated")
    async with running(serve, tmp_path, POLICY_TEXT) as client:
        begun = (await entry(client, "trial"))["since"]
        write(tmp_path, active)
        found = await entry(client, "trial")
        assert (found["state"], found["since"] > begun) == ("active", True)
        good = (await client.get("/ready")).json()["policy"]

        write(tmp_path, POLICY_TEXT)  # a candidate again
        ready = (await client.get("/ready")).json()["policy"]
        assert ready["fingerprint"] == good["fingerprint"]
        assert (
            "policy.yaml:21: models.trial.state: model trial was active and can't"
            in (ready["error"])
        )
        write(tmp_path, old)
        assert (await client.get("/ready")).json()["policy"]["error"] is None
        write(tmp_path, active)  # rolled back
        assert (await entry(client, "trial"))["state"] == "active"
        assert (await history(client, model="trial"))[::-1] == [
            ("trial", None, "candidate"),
            ("trial", "candidate", "active"),
            ("trial", "active", "deprecated"),
            ("trial", "deprecated", "active"),
        ]
        assert len(await history(client, limit=2)) == 2
        assert ("gone", None, "retired") in await history(client)


async def test_a_restart_with_a_file_that_breaks_a_life_does_not_start_the_service(
    serve: Serve, tmp_path: Path
) -> None:
    async with running(serve, tmp_path, bent(TRIAL, "state: active")) as client:
        before = await history(client)
    revived = bent("state: retired", "state: active, price: {input: 0, output: 0}")
    for text, told in (
        (POLICY_TEXT, "trial was active and can't become candidate: active leads to deprecated"),
        (bent(TRIAL, "state: retired"), "trial was active and can't become retired"),
        (revived, "gone was retired and can't become active: give the model a new name"),
    ):
        path = write(tmp_path, text)
        with pytest.raises(StartupError, match=told):
            await build(Settings(policy_file=path, data_dir=tmp_path))
    async with running(serve, tmp_path, bent(TRIAL, "state: deprecated")) as client:
        now = await history(client)
    assert now == [("trial", "active", "deprecated"), *before]


async def test_a_model_that_was_left_out_comes_back_in_the_state_in_which_it_went(
    serve: Serve, tmp_path: Path
) -> None:
    start = POLICY_TEXT.index("  gone:")
    without = POLICY_TEXT[:start] + POLICY_TEXT[POLICY_TEXT.index("  quote: {tier") :]
    revived = bent("state: retired", "state: active, price: {input: 0, output: 0}")
    async with running(serve, tmp_path, POLICY_TEXT) as client:
        write(tmp_path, without)
        listed = (await client.get("/v1/registry")).json()["models"]
        assert "gone" not in [one["name"] for one in listed]
        write(tmp_path, revived)
        ready = (await client.get("/ready")).json()["policy"]
        assert "model gone was retired and can't become active" in ready["error"]
        write(tmp_path, POLICY_TEXT)
        assert (await client.get("/ready")).json()["policy"]["error"] is None
        assert await history(client, model="gone") == [("gone", None, "retired")]


async def test_without_its_database_a_new_policy_waits_and_the_last_good_one_goes_on(
    serve: Serve, tmp_path: Path
) -> None:
    kept, away = tmp_path / "generate.db", tmp_path / "away.db"
    async with running(serve, tmp_path, POLICY_TEXT, audit="off") as client:
        good = (await client.get("/ready")).json()["policy"]["fingerprint"]
        kept.rename(away)
        write(tmp_path, bent(TRIAL, "state: active"))
        ready = (await client.get("/ready")).json()["policy"]
        assert (ready["fingerprint"], "was removed" in ready["error"]) == (good, True)
        refused = await client.get("/v1/registry")
        assert refused.status_code == 503
        away.rename(kept)
        ready = (await client.get("/ready")).json()["policy"]
        assert ready["error"] is None
        assert ready["fingerprint"] != good


async def test_a_model_below_the_gate_is_not_made_active_by_a_new_file(
    serve: Serve, tmp_path: Path
) -> None:
    gated = bent("models:\n", "gate: {tiers: {small: {max_risk: 30}}}\nmodels:\n")
    gated = gated.replace("    latency_ms: 500\n", f"    {RISK[:-2]}\n")
    gated = gated.replace("kind: extractive, ", "kind: extractive, risk: [], ")
    async with running(serve, tmp_path, POLICY_TEXT) as client:
        write(tmp_path, gated)
        error = (await client.get("/ready")).json()["policy"]["error"]
        assert "small-a can't be active: its risk is 40, the gate allows 30" in error
        write(tmp_path, gated.replace("points: 40", "points: 30"))
        found = await entry(client, "small-a")
    assert (found["gate"], found["risk_score"], found["shortfalls"]) == ("passed", 30, [])


# --- the inventory -----------------------------------------------------------------------------


async def test_the_inventory_tells_every_model_as_json_and_as_a_table(
    serve: Serve, tmp_path: Path
) -> None:
    secret = {"small-a": "key-of-small-a"}
    async with running(serve, tmp_path, POLICY_TEXT, model_keys=secret) as client:
        whole = await client.get("/v1/registry")
        table = await client.get("/v1/registry?format=csv")
        wrong = await client.get("/v1/registry?format=xml")
        nobody = await client.get("/v1/registry/history?model=%00")
        policy = (await client.get("/ready")).json()["policy"]["fingerprint"]
    body = whole.json()
    assert body["policy"] == policy
    small = body["models"][0]
    assert (small["name"], small["serves"], small["version"]) == ("small-a", "s1", "7")
    assert small["price"] == {"input": 100, "output": 400}
    assert (small["capabilities"], small["risk"], small["classes"]) == ([], None, ["open"])
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text, newline="")))
    assert [row["name"] for row in rows] == [one["name"] for one in body["models"]]
    assert rows[0]["since"].replace("+00:00", "Z") == small["since"]
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "format")
    assert (nobody.status_code, nobody.json()["error"]["param"]) == (400, "model")
    assert "key-of-small-a" not in whole.text + table.text


async def test_the_packaged_policys_inventory_tells_which_models_the_settings_name(
    serve: Serve,
) -> None:
    async with serve(Desk()) as client:
        models = (await client.get("/v1/registry")).json()["models"]
    assert {one["name"]: one["serves"] for one in models} == {
        "utility-writer": "extractive",
        "reasoning-writer": "m",
        "extractive": "extractive",
    }


async def test_only_an_admin_sees_the_registry(serve: Serve, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, {"name": "ann"}, {"name": "eve", "role": "admin"})
    async with running(serve, tmp_path, POLICY_TEXT, keys_file=keys) as client:
        for path in ("/v1/registry", "/v1/registry?format=csv", "/v1/registry/history"):
            told = await client.get(path, headers=bearer("ann"))
            assert (told.status_code, told.json()["error"]["code"]) == (403, "forbidden_admin")
            seen = await client.get(path, headers=bearer("eve"))
            assert seen.status_code == 200


async def test_a_named_model_without_price_can_not_escape_a_budget(
    serve: Serve, tmp_path: Path
) -> None:
    text = bent("budgets: {answer_nano_dollars: 1000000000}\n", "").replace(
        "state: candidate,\n    price: {input: 0, output: 0}}", "state: candidate}"
    )
    body = chat("When?", model="trial", refdesk={"budget_nano_dollars": 10**9})
    async with running(serve, tmp_path, text) as client:
        response = await client.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "model_unfit")
    assert "the rule 'budget': it has no price" in error["message"]
