"""Images: what is taken as one, who may see it, and what it counts for."""

import base64
import hashlib
import itertools
import json
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generate.policy.file import PolicyError, parse
from services.generate.prompting.chat import Capability, Chat
from services.generate.prompting.conversation import fitted, needs, turns
from services.generate.prompting.images import Image, told, with_images
from services.generate.prompting.masking import Vault
from services.generate.protocol import ChatRequest
from services.generate.protocol.images import (
    MOST_IMAGE_BYTES,
    MOST_IMAGES,
    MOST_IMAGES_BYTES,
    ImageUrl,
    read_image,
)
from services.generate.reading.sensitivity import Sensitive
from services.generate.routing.decision import Decision, Step
from services.generate.routing.refusals import refuse_route
from services.generate.routing.router import route
from services.generate.tiers.completion import Completion
from shared.errors import ApiError
from tests.escalating import BEHAVIOURS, MODELS, PLAIN, TIERS, outcome_of, policy_of
from tests.imaged import GIF, JPEG, PNG, WEBP, data_url, part, png
from tests.policies import POLICY_TEXT, bent, seen
from tests.writers import WHEN

VISION = frozenset({"vision"})


def read(url: str) -> Image:
    return read_image(ImageUrl(url=url), "here")


def status(url: str) -> int:
    try:
        read(url)
    except ApiError as error:
        return error.status
    return 200


def request(*images: str) -> ChatRequest:
    content = [{"type": "text", "text": WHEN}, *map(part, images)]
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": content}]})


# --- what is taken -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "first"),
    [("image/png", PNG), ("image/jpeg", JPEG), ("image/gif", GIF), ("image/webp", WEBP),
     ("IMAGE/PNG", PNG)],
)  # fmt: skip
@given(rest=st.binary(max_size=300))
def test_an_image_is_known_by_its_hash_and_its_size(kind: str, first: bytes, rest: bytes) -> None:
    url = data_url(first + rest, kind)
    image = read(url)
    assert image.sha256 == hashlib.sha256(first + rest).hexdigest()
    assert (image.media_type, image.size, image.url) == (kind.lower(), len(first + rest), url)


@pytest.mark.parametrize("size", [256 * 1024 * 3 // 4 + n for n in (-1, 0, 1, 2)])
def test_the_pieces_that_it_is_read_in_do_not_show(size: int) -> None:
    image = png(bytes(size))
    assert read(data_url(image)).sha256 == hashlib.sha256(image).hexdigest()


def test_what_is_told_of_an_image_is_never_the_image() -> None:
    image = read(data_url(png(b"secret" * 9)))
    shown = orjson.dumps({"a": image}, default=told).decode() + repr(image) + str(image)
    assert image.sha256 in shown
    assert image.url[-40:] not in shown
    with pytest.raises(TypeError):
        orjson.dumps({"a": image})
    with pytest.raises(TypeError, match="is no image"):
        told(object())


BIG = base64.b64encode(png(bytes(400_000))).decode()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/a.png", "addresses are not fetched"),
        (" ftp://example.org/a.png", "addresses are not fetched"),
        # A pattern that looked any further would hold up all others.
        (" " * 200 + "https://example.org/a.png", "must be a data URL"),
        ("a" * 200 + "://example.org/a.png", "must be a data URL"),
        ("", "must be a data URL"),
        ("data:image/png,abc", "must be a data URL"),
        ("data:image/png;charset=utf-8;base64,iVBORw0KGgo=", "must be a data URL"),
        ("data:text/html;base64,iVBORw0KGgo=", "must be a data URL"),
        (data_url(PNG, "image/svg+xml"), "image/gif; it says"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,=", "empty"),
        ("data:image/png;base64,iVBORw0KGgo", "not valid base64"),
        ("data:image/png;base64,iVBORw0K Ggo=", "not valid base64"),
        ("data:image/png;base64,iVBORw0K\u00e9Ggo=", "not valid base64"),
        ("data:image/png;base64,iVBORw0K__8=", "not valid base64"),
        (data_url(PNG) + "AAAA", "not valid base64"),
        (f"data:image/png;base64,{BIG[:-4]}****", "not valid base64"),
        (f"data:image/png;base64,{BIG[: 256 * 1024 - 2]}=={BIG[256 * 1024 :]}", "not valid base64"),
        (data_url(JPEG), "first bytes are not those of image/png"),
        (data_url(PNG[:7]), "first bytes"),
    ],
)
def test_what_is_no_image_is_refused(url: str, said: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(url)
    assert (refused.value.status, refused.value.param) == (400, "here")
    assert said in refused.value.message


@given(st.text(max_size=60))
def test_no_text_behind_the_beginning_does_more_than_be_refused(text: str) -> None:
    for beginning in ("", "data:", "data:image/png;base64,", "data:image/png;base64,iVBORw0KGgo"):
        assert status(beginning + text) in (200, 400)


def test_the_limits_of_number_and_size_hold() -> None:
    assert len(request(*[data_url(PNG)] * MOST_IMAGES).images()[0]) == MOST_IMAGES
    largest = png(bytes(MOST_IMAGE_BYTES - len(PNG)))
    assert read(data_url(largest)).size == MOST_IMAGE_BYTES
    half = data_url(largest)
    together = request(half, half).images()[0]
    assert sum(one.size for one in together) == MOST_IMAGES_BYTES
    for images, param, said in (
        ([data_url(PNG)] * (MOST_IMAGES + 1), "messages", f"{MOST_IMAGES} are the most"),
        ([data_url(largest + b"x")], "messages.0.content.1.image_url.url", "10,485,760"),
        ([half, data_url(largest + b"x")], "messages", f"{MOST_IMAGES_BYTES:,}"),
    ):
        with pytest.raises(ApiError) as refused:
            request(*images).images()
        assert (refused.value.status, refused.value.param) == (400, param)
        assert said in refused.value.message


def test_images_are_no_characters_of_the_conversation() -> None:
    body = request(data_url(png(bytes(600_000))))
    assert sum(one.size for one in body.messages) == len(WHEN)
    assert body.question() == WHEN


# --- in a prompt -------------------------------------------------------------------------------


def test_images_stand_behind_the_text_of_their_turn() -> None:
    image = read(data_url(png()))
    chat = Chat(before=({"role": "user", "content": "This?", "images": (image,)},), images=(image,))
    prompt = [{"role": "system", "content": "Rules."}, {"role": "user", "content": "Sources."}]
    system, before, asking = map(with_images, turns(prompt, chat))
    assert system["content"].startswith("Rules.")
    assert before["content"] == [{"type": "text", "text": "This?"}, part(image.url)]
    assert asking["content"] == [{"type": "text", "text": "Sources."}, part(image.url)]
    assert with_images({"content": "", "images": (image,)})["content"] == [part(image.url)]
    assert needs(chat) == VISION
    assert needs(fitted(replace(chat, images=()))[0]) == VISION


def test_images_that_are_cut_with_their_turn_are_needed_no_more() -> None:
    image = read(data_url(png()))
    turn = {"role": "user", "content": "This?", "images": (image,) * 3}
    chat, out = fitted(Chat(before=(turn, {"role": "assistant", "content": "Yes."})))
    assert (chat.before, out, needs(chat)) == ((), 2, frozenset())


def test_masking_reads_the_text_beside_an_image_and_leaves_the_image() -> None:
    image = read(data_url(png()))
    turn = {"content": "ada@example.org", "images": (image,)}
    masked = Vault(frozenset(Sensitive), "salt").mask_all(turn)
    assert masked == {"content": "EMAIL_1_salt", "images": (image,)}


def test_what_a_server_counts_for_an_image_is_believed() -> None:
    for images, believed in ((0, None), (1, (16_384, 7))):
        completion = Completion()
        usage = {"prompt_tokens": 16_384, "completion_tokens": 7}
        completion.feed(json.dumps({"choices": [], "usage": usage}).encode())
        text = {"choices": [{"delta": {"content": "An answer."}}]}
        completion.feed(json.dumps(text).encode())
        assert completion.usage(1000, images) == believed


# --- who may see it ----------------------------------------------------------------------------

SEES = bent("model: l2,", "model: l2, capabilities: [vision],")
LARGE_B = "large-b: {tier: large, kind: openai, url: http://127.0.0.1:1/v1, model: l2,"
ONLY_SMALL_SEES = bent("capabilities: []", "capabilities: [vision]")


def test_a_server_that_states_nothing_is_not_taken_to_see() -> None:
    asked = replace(seen("Prove it.", 0.9), needs=VISION)
    chosen = route(asked, parse(SEES, "p"))
    assert chosen.chain == ("large-b",)
    against = {one.model: (one.rule, one.why) for one in chosen.ruled_out}
    assert against["large-a"] == ("capability", "it lacks vision")
    embedded = route(replace(asked, embedded=frozenset({"large-b"})), parse(SEES, "p"))
    assert embedded.tier is None


def test_a_cheaper_tier_that_sees_is_better_than_nobody() -> None:
    policy = parse(ONLY_SMALL_SEES, "p")
    for question in ("Prove it.", "Is the contract signed?"):
        chosen = route(replace(seen(question, 0.1), needs=VISION), policy)
        assert (chosen.tier, chosen.chain) == ("small", ("small-a",))
        assert chosen.escalated is None
        assert route(seen(question, 0.1), policy).tier == "large"


def test_what_escalates_to_a_tier_that_does_not_see_is_no_escalation() -> None:
    rule = "rules:\n  - {name: f, when: {flagged: true}, then: {escalate: flagged_complex}}\n"
    asked = replace(seen("When was it signed?", 0.9), flagged=True)
    for text, tier in ((ONLY_SMALL_SEES, "small"), (SEES, "large")):
        policy = parse(text.replace("rules:\n", rule), "p")
        assert route(asked, policy).escalated is not None
        chosen = route(replace(asked, needs=VISION), policy)
        assert (chosen.tier, chosen.escalated) == (tier, None)


@pytest.mark.parametrize("requested", [None, "small", "large", "large-a"])
def test_where_nobody_sees_the_refusal_says_what_is_lacking_and_what_to_do(
    requested: str | None,
) -> None:
    asked = replace(seen("When was it signed?", 0.9), needs=VISION, requested=requested)
    decision = route(asked, parse(POLICY_TEXT, "p"))
    with pytest.raises(ApiError) as refused:
        refuse_route(decision, requested)
    error = refused.value
    assert (error.status, error.code, error.param) == (400, "model_unfit", "model")
    assert "lacks vision" in error.message
    assert "ask for such a model, or leave them out" in error.message


def test_a_rule_can_send_images_to_a_tier_and_a_score_can_weigh_them() -> None:
    rule = "rules:\n  - {name: images, when: {vision: true}, then: {tier: large}}\n"
    policy = parse(SEES.replace("rules:\n", rule), "p")
    asked = seen("When was it signed?", 0.9)
    assert route(asked, policy).rule == "scored"
    assert route(replace(asked, needs=VISION), policy).rule == "images"
    weighing = parse(SEES.replace("words: 0.01,", "words: 0.01, vision: 3.0,"), "p")
    assert route(asked, weighing).tier == "small"
    reasons = route(replace(asked, needs=VISION), weighing).reasons
    assert [one.weight for one in reasons if one.name == "vision"] == [3.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            POLICY_TEXT.replace(
                "rules:\n", "rules:\n  - {name: i, when: {vision: true}, then: {tier: large}}\n"
            ),
            "rules.0.then.tier: rule i is for images, and no model of tier large states vision",
        ),
        (
            bent(LARGE_B, LARGE_B + " capabilities: [vision], mask: true,"),
            "what is in an image can't be masked: leave out mask, or vision",
        ),
    ],
)
def test_the_lint_refuses_what_can_show_an_image_to_nobody_or_unmasked(
    text: str, said: str
) -> None:
    with pytest.raises(PolicyError) as refused:
        parse(text, "p.yaml")
    assert any(said in one for one in refused.value.findings), refused.value.findings


async def test_no_image_ever_reaches_a_model_that_does_not_state_vision() -> None:
    image = read(data_url(png()))
    chat = Chat(images=(image,))
    asked_of_all: set[str] = set()
    for able in itertools.chain.from_iterable(
        itertools.combinations(MODELS[:3], size) for size in range(4)
    ):
        plain = policy_of({"public": ("*",)})
        models = {
            name: one.model_copy(
                update={"capabilities": (Capability.VISION,) if name in able else None}
            )
            for name, one in plain.models.items()
        }
        policy = plain.model_copy(update={"models": models})
        asked = replace(PLAIN, needs=VISION, embedded=frozenset({"quote"}))
        decisions: list[Decision] = []
        for requested in (None, *TIERS, *MODELS):
            decision = route(replace(asked, requested=requested), policy)
            named = {*decision.chain, *(one for step in decision.escalation for one in step.chain)}
            assert named <= {*able}, decision
            decisions.append(decision)
        # One that no router may make: with every model in it.
        steps = (Step("dearer", ("dear",), "strict"),)
        decisions.append(
            replace(decisions[0], tier="cheap", chain=MODELS[:2], escalation=steps, declines=False)
        )
        for decision in decisions:
            for behaviours in itertools.product(BEHAVIOURS, repeat=3):
                _, reached = await outcome_of(decision, policy, behaviours, chat=chat)
                assert {*reached} <= {*able, "quote"}, (able, decision)
                asked_of_all |= {*reached}
    assert asked_of_all == {*MODELS}
