"""What routing takes into account beside the question: keys, flags, history and a learned router;
and what another policy would have decided."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.generate.routing import in_force
from services.generate.routing.learned.model import write_router
from services.generate.routing.learned.outcomes import RecordedOutcome, columns, near_duplicates
from services.generate.routing.learned.train import train
from services.generate.routing.learned.vectors import embed
from shared.errors import StartupError
from shared.settings import Settings
from tests.desk import Desk
from tests.guarded import bearer, keys_file
from tests.learned import Embed, made_up, write_learned
from tests.model_server import LIE, ModelServer
from tests.policed import change, policed, refusal
from tests.policies import POLICY_TEXT, bent
from tests.suite import Suite, serving
from tests.writers import PORT, WHEN, Serve, ask, chat

FLAGGED = bent("rules:\n", "rules:\n  - {name: f, when: {flagged: true}, then: "
                           "{escalate: flagged_complex}}\n")  # fmt: skip
FLAG = {"flagged": True, "cache": False}


def keys(folder: Path, *tiers: str) -> Path:
    """Of root, an admin, and of ann, who reads with these tiers alone."""
    return keys_file(folder, {"name": "root", "role": "admin"}, {"name": "ann", "tiers": tiers})


# --- keys and flags ----------------------------------------------------------------------------


async def test_a_key_is_answered_by_its_tiers_alone_and_is_told_so(
    serve: Serve, tmp_path: Path
) -> None:
    models = ModelServer()
    served = policed(serve, tmp_path, models, keys_file=keys(tmp_path, "large", "gone"))
    async with served as (client, _, _):
        client.headers.update(bearer("ann"))
        answer = await ask(client, WHEN)
        for name in ("small", "small-a"):
            error = await refusal(client, 403, model=name)
            assert error["code"] == "forbidden_model"
            assert "'key_tiers': this key may not use tier small" in error["message"]
        narrower = await refusal(client, 403, refdesk={"tiers": ["small"]})
        listed = (await client.get("/v1/models")).json()["data"]
        client.headers.update(bearer("root"))
        free = await ask(client, WHEN, refdesk={"cache": False})
    assert answer["refdesk"]["decision"]["tier"] == "large"
    assert narrower["code"] == "no_writer_allowed"
    assert [one["id"] for one in listed] == ["auto", "large", "large-a", "large-b", "trial"]
    assert free["refdesk"]["decision"]["tier"] == "small"
    assert set(models.asked) == {"l1", "s1"}


async def test_a_flagged_question_begins_at_the_dearer_tier_and_is_counted(
    serve: Serve, tmp_path: Path
) -> None:
    models = ModelServer()
    async with policed(serve, tmp_path, models, FLAGGED) as (client, _, _):
        answer = await ask(client, WHEN, refdesk=FLAG)
        plain = await ask(client, WHEN, refdesk={"cache": False})
        [week] = (await client.get("/v1/escalations")).json()["weeks"]
        metrics = (await client.get("/metrics")).text
    decision = answer["refdesk"]["decision"]
    assert (decision["tier"], decision["rule"], decision["escalated_from"]) == ("large", "f", None)
    assert any("flagged_complex: from small to large" in one for one in decision["reasons"])
    assert plain["refdesk"]["decision"]["tier"] == "small"
    assert week["reasons"] == {"flagged_complex": 1}
    assert 'refdesk_generate_hops_total{reason="flagged_complex"}' in metrics


# --- history -----------------------------------------------------------------------------------

DOUBTS = bent("rules:\n", "rules:\n  - {name: doubts, when: {success: {tier: small, below: 0.6}}, "
                          "then: {tier: large}}\n")  # fmt: skip


async def test_a_tier_whose_drafts_fail_is_asked_less_also_after_a_restart(
    serve: Serve, tmp_path: Path
) -> None:
    models = ModelServer(s1=LIE)
    anew = {"cache": False}
    async with policed(serve, tmp_path, models, DOUBTS) as (client, _, _):
        rules = [
            (await ask(client, WHEN, refdesk=anew))["refdesk"]["decision"]["rule"] for _ in range(3)
        ]
        other = await client.post("/v1/route", json=chat("Why was the program written?"))
    assert rules == ["scored", "scored", "doubts"]
    assert other.json()["rule"] == "scored"  # of another kind: there less is known
    async with policed(serve, tmp_path, models, DOUBTS) as (client, _, _):
        again = (await client.post("/v1/route", json=chat(WHEN))).json()
    assert again["rule"] == "doubts"
    assert "success of small 0.5" in again["reasons"][-1]["seen"]


# --- the learned router ------------------------------------------------------------------------


def learned(mode: str) -> str:
    part = f"learned: {{model: router.json, mode: {mode}, cheap: small, strong: large}}\n"
    return bent("scored:\n", f"{part}scored:\n").replace("[prove, derive]", "[derive]")


@asynccontextmanager
async def routed(
    serve: Serve, folder: Path, mode: str, embed: Embed | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, Path]]:
    write_learned(folder / "router.json")
    async with serving(embed or Embed()) as url:
        served = policed(serve, folder, ModelServer(), learned(mode), embed_url=url)
        async with served as (client, path, _):
            yield client, path


HARD = "Prove when Ada Lovelace wrote the first program."


def told(answer: dict[str, Any]) -> str:
    [reason] = [one["seen"] for one in answer["reasons"] if one["name"] == "learned"]
    return str(reason)


async def explained(client: httpx.AsyncClient, question: str, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/route", json=chat(question, **more))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_in_shadow_the_learned_router_says_what_it_would_do_and_decides_nothing(
    serve: Serve, tmp_path: Path
) -> None:
    async with routed(serve, tmp_path, "shadow") as (client, _):
        hard, easy = await explained(client, HARD), await explained(client, WHEN)
        await ask(client, HARD)
        metrics = (await client.get("/metrics")).text
    assert (hard["tier"], hard["rule"]) == ("small", "scored")
    assert told(hard) == "would choose large, probability of a gain 0.99"
    assert told(easy) == "would choose small, probability of a gain 0.01"
    assert 'refdesk_generate_learned_total{mode="shadow",verdict="differs"} 1.0' in metrics


async def test_it_decides_where_no_rule_holds_and_declines_where_it_is_unsure(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with routed(serve, tmp_path, "decide") as (client, _):
        hard = await explained(client, HARD)
        ruled = await explained(client, "Prove that the contract holds.")
        write_learned(tmp_path / "router.json", margin=20.0)
        monkeypatch.setattr(in_force, "LOOK_EVERY_S", 0.0)
        unsure = await explained(client, HARD)
    assert (hard["tier"], hard["rule"]) == ("large", "learned")
    assert ruled["rule"] == "contracts"
    assert (unsure["tier"], unsure["rule"]) == ("small", "scored")
    assert told(unsure).startswith("declined: unsure")


async def test_what_was_trained_with_the_librarian_reads_the_librarians_vectors(
    suite: Suite, serve: Serve, tmp_path: Path
) -> None:
    outcomes = columns([RecordedOutcome.model_validate(row) for row in made_up()])
    embed_url = suite.url("embed")
    found = await embed(
        outcomes.texts, Settings(embed_url=embed_url), None, lambda done, total: None
    )
    router = await asyncio.to_thread(
        train, outcomes, found, near_duplicates(outcomes.texts), share=0.5, unsure=0.1
    )
    write_router(tmp_path / "router.json", router)
    served = policed(serve, tmp_path, ModelServer(), learned("shadow"), embed_url=embed_url)
    async with served as (client, _, _):
        hard = await explained(client, "Prove something about the lemma number 4")
        easy = await explained(client, "Spell something about the lemma number 4")
    assert hard["degraded"] == easy["degraded"] == []
    assert told(hard).startswith("would choose large")
    assert told(easy).startswith("would choose small")


async def test_without_a_vector_of_its_own_embedder_it_declines_and_the_answer_says_so(
    serve: Serve, tmp_path: Path
) -> None:
    async with routed(serve, tmp_path, "decide", Embed(revision="2")) as (client, _):
        other = await explained(client, HARD)
    assert (other["rule"], told(other)) == ("scored", "declined: it has no vector of the question")
    assert "learned_router" in other["degraded"]
    served = policed(serve, tmp_path, ModelServer(), learned("decide"))  # where there is no embed
    async with served as (client, _, _):
        away = await explained(client, HARD)
    assert (away["rule"], "learned_router" in away["degraded"]) == ("scored", True)


async def test_a_router_file_that_breaks_keeps_the_last_good_and_a_service_does_not_start_with_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "LOOK_EVERY_S", 0.0)
    async with routed(serve, tmp_path, "decide") as (client, path):
        router = path.parent / "router.json"
        whole = router.read_text()
        change(router, "{}")
        kept = await explained(client, HARD)
        error = (await client.get("/ready")).json()["policy"]["error"]
        router.unlink()
        still = await explained(client, HARD)
        change(router, whole)
        await explained(client, HARD)
        mended = (await client.get("/ready")).json()["policy"]["error"]
    assert [one["rule"] for one in (kept, still)] == ["learned", "learned"]
    assert "learned.model" in error
    assert "is no learned router" in error
    assert mended is None
    router.write_text("{}")
    with pytest.raises(StartupError, match="is no learned router"):
        async with policed(serve, tmp_path, ModelServer(), learned("shadow")):
            pass


# --- replay ------------------------------------------------------------------------------------

SINCE = {"since": "2020-W01"}


async def test_escalated_answers_are_decided_again_under_another_policy(
    serve: Serve, tmp_path: Path
) -> None:
    async with policed(serve, tmp_path, ModelServer(), FLAGGED, audit_text="full") as (
        client,
        _,
        _,
    ):
        await ask(client, WHEN, refdesk=FLAG)
        await ask(client, "When was the contract of the first program signed?", model="auto")
        same = (await client.post("/v1/escalations/replay", json=SINCE)).json()
        other = {**SINCE, "policy": POLICY_TEXT}
        changed = (await client.post("/v1/escalations/replay", json=other)).json()
        words = (await client.post("/v1/escalations/2/replay", json={"policy": POLICY_TEXT})).json()
    [case] = same["cases"]
    assert (case["record"], case["escalated"], case["changed"]) == (1, ["flagged_complex"], False)
    assert case["then"] == case["now"]
    assert (same["changed"], same["more"], same["left_out"]) == (0, False, [])
    [case] = changed["cases"]
    assert (case["then"]["model"], case["then"]["rule"]) == ("large-a", "f")
    assert (case["now"]["model"], case["now"]["rule"]) == ("small-a", "scored")
    assert (changed["changed"], case["untried"]) == (1, [])
    assert words["cases"][0]["now"]["rule"] == "contracts"


async def test_a_record_without_text_says_which_conditions_were_not_tried(
    serve: Serve, tmp_path: Path
) -> None:
    async with policed(serve, tmp_path, ModelServer()) as (client, _, _):
        await ask(client, "When was the contract of the first program signed?")
        replayed = (await client.post("/v1/escalations/1/replay", json={})).json()
        without = POLICY_TEXT.replace("keywords: [contract], ", "")
        without = without.replace("  keywords: [{words: [prove, derive], weight: 1.5}]\n", "")
        whole = (await client.post("/v1/escalations/1/replay", json={"policy": without})).json()
    [case] = replayed["cases"]
    assert (case["then"]["rule"], case["now"]["rule"]) == ("contracts", "scored")
    assert case["untried"] == ["keywords"]
    assert whole["cases"][0]["untried"] == []


async def test_what_can_not_be_replayed_is_told(serve: Serve, tmp_path: Path) -> None:
    desk = Desk()
    served = policed(serve, tmp_path, ModelServer(), desk=desk, keys_file=keys(tmp_path, "*"))
    async with served as (client, _, _):
        client.headers.update(bearer("root"))
        desk.trouble = "500"
        await client.post("/v1/chat/completions", json=chat(WHEN))
        failed = (await client.post("/v1/escalations/1/replay", json={})).json()
        desk.trouble = ""
        await ask(client, WHEN, model="small-a")
        gone = POLICY_TEXT.replace("small-a", "small-c")
        renamed = (await client.post("/v1/escalations/2/replay", json={"policy": gone})).json()
        unknown = await client.post("/v1/escalations/99/replay", json={})
        broken = await client.post("/v1/escalations/replay", json={**SINCE, "policy": "a: ["})
        week = await client.post("/v1/escalations/replay", json={"since": "yesterday"})
        client.headers.update(bearer("ann"))
        forbidden = [
            (await client.post(path, json=body)).status_code
            for path, body in (
                ("/v1/escalations/1/replay", {}),
                ("/v1/escalations/replay", SINCE),
                ("/v1/simulate", {}),
            )
        ]
    assert failed["cases"] == []
    assert "keeps no features" in failed["left_out"][0]["why"]
    assert renamed["cases"][0]["now"]["refused"] == "model_not_found"
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "record_not_found")
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "policy_refused")
    assert "policy:1: is not YAML" in broken.json()["error"]["message"]
    assert week.status_code == 400
    assert forbidden == [403] * 3


async def test_a_damaged_record_is_left_out_and_keeps_no_service_from_starting(
    serve: Serve, tmp_path: Path
) -> None:
    async with policed(serve, tmp_path, ModelServer(), FLAGGED) as (client, _, _):
        await ask(client, WHEN, refdesk=FLAG)
    with closing(sqlite3.connect(tmp_path / "generate.db")) as connection, connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("UPDATE audit SET body = CAST(x'7bff' AS TEXT)")
    async with policed(serve, tmp_path, ModelServer(), FLAGGED) as (client, _, _):
        found = (await client.post("/v1/escalations/replay", json=SINCE)).json()
    assert found["cases"] == []
    assert "the record is damaged" in found["left_out"][0]["why"]


# --- simulation --------------------------------------------------------------------------------


async def test_a_policy_is_tried_on_classes_rules_and_questions_without_asking_anybody(
    serve: Serve, tmp_path: Path
) -> None:
    desk, models = Desk(), ModelServer()
    samples = [
        {"question": "Is the contract signed?"},
        {"question": "Is the contract signed?", "data_class": "secret"},
        {"question": "Prove it.", "confidence": 0.1},
        {"question": WHEN, "model": "small", "data_class": "secret"},
        {"question": WHEN, "model": "unknown"},
        {"question": WHEN, "signals": {"documents": 0}},
    ]
    proposed = POLICY_TEXT.replace("when: {keywords: [contract], data_class: [open]}\n    then: "
                                   "{tier: large, critical: true}", "when: {words: {min: 99}}\n"
                                   "    then: {tier: none}")  # fmt: skip
    async with policed(serve, tmp_path, models, desk=desk) as (client, _, _):
        body = {"policy": proposed, "samples": samples}
        response = await client.post("/v1/simulate", json=body)
        assert response.status_code == 200, response.text
        bare = (await client.post("/v1/simulate", json={})).json()
    found = response.json()
    assert [one["now"]["rule"] for one in found["samples"]] == [
        "contracts", "scored", "scored", None, None, "no_passages",
    ]  # fmt: skip
    assert [one["then"]["model"] for one in found["samples"]] == [
        "small-a", "large-b", "large-a", None, None, None,
    ]  # fmt: skip
    assert [one["then"]["refused"] for one in found["samples"][3:]] == [
        "forbidden_model", "model_not_found", None,
    ]  # fmt: skip
    assert [one["changed"] for one in found["samples"]] == [True, *[False] * 5]
    assert found["changed"] == 1
    cells = {(one["data_class"], one["model"]): one["rule"] for one in found["matrix"]}
    assert cells["open", "small-a"] == ""
    assert cells["secret", "small-a"] == "compliance"
    assert cells["open", "gone"] == "retired"
    assert len(cells) == 2 * 6
    assert {(one["data_class"], one["tier"]) for one in found["rules"]} == {
        ("open", None),
        ("secret", None),
    }
    assert bare["policy"] == bare["now"] == found["now"]
    assert [(one["tier"], one["models"]) for one in bare["rules"]] == [
        ("large", ["large-a", "large-b"])
    ]
    assert not models.asked
    assert not desk.seen


async def test_a_policy_to_be_tried_is_checked_like_a_file(serve: Serve, tmp_path: Path) -> None:
    async with policed(serve, tmp_path, ModelServer()) as (client, _, _):
        bad = POLICY_TEXT.replace("start: small", "start: tiny")
        refused = await client.post("/v1/simulate", json={"policy": bad})
        huge = await client.post("/v1/simulate", json={"policy": "#" * 300_000})
        answer = await ask(client, PORT)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "policy_refused", "policy")
    assert "there is no tier named tiny" in error["message"]
    assert huge.status_code == 400
    assert answer["refdesk"]["decision"]["tier"] == "small"  # under the policy that holds
