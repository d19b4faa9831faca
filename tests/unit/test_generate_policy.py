"""The policy file: what it may say, what the lint refuses, and how it is read anew."""

import asyncio
import os
import re
import threading
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.generate.policy.file import PolicyError, default_policy, load, parse
from services.generate.policy.lint import Finding
from services.generate.policy.schema import COUNTS, NUMBERS, SHARES, Policy, Range, When
from services.generate.routing.in_force import PolicyFile
from tests.learned import write_learned
from tests.policies import POLICY_TEXT, bent
from tests.suite import REPOSITORY


def findings(text: str) -> list[str]:
    with pytest.raises(PolicyError) as told:
        parse(text, "p.yaml")
    return told.value.findings


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_the_packaged_policy_is_good() -> None:
    assert list(default_policy().tiers) == ["utility", "reasoning"]


def test_the_example_of_the_handbook_is_good() -> None:
    page = (REPOSITORY / "docs" / "concepts" / "policy.md").read_text()
    [example] = re.findall(r"```yaml\n(.+?)```", page, re.DOTALL)
    assert list(parse(example, "policy.md").models) == ["small", "strong", "own", "extractive"]


# --- what a file may say -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "p.yaml:1: is empty"),
        ("a: [", "p.yaml:1: is not YAML"),
        ("- 1", "p.yaml:1: Input should be"),
        ("version: 1\nversion: 1\n", "p.yaml:2: version stands twice"),
        ("a: &x 1\nb: *x\n", "p.yaml:2: anchors and aliases are not taken"),
        ("!!python/object/apply:os.system [id]", "p.yaml:1: is not YAML"),
        ("[" * 500 + "]" * 500, "p.yaml: is not YAML"),
        ("x: \x00", "p.yaml: is not YAML"),
    ],
)
def test_a_text_that_is_no_policy_is_told_so(text: str, told: str) -> None:
    assert findings(text)[0].startswith(told)


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("kind: extractive", "kind: magic", "models.quote.kind", "Input should be"),
        ("input: 100", "input: -1", "models.small-a.price.input", "greater than"),
        ("input: 100", "input: 0.5", "models.small-a.price.input", "integer"),
        ("keywords: [contract]", "key_words: [contract]", "rules.0.when.key_words", "Extra"),
        ("keywords: [contract]", "keywords: []", "rules.0.when.keywords", "at least 1"),
        ("max_hops: 1", "max_hops: 99", "escalation.max_hops", "less than"),
        ("checks: light", "checks: tight", "tiers.small.checks", "there is no profile named tight"),
        ("    context: 4096\n", "    context: 1\n", "models.small-a.context", "256"),
        ("data_class: [open]", "words: {min: 5, below: 5}", "rules.0.when.words", "nothing is"),
        ("data_class: [open]", "confidence: {min: good}", "rules.0.when.confidence.min", "answers"),
        ("    url: http://127.0.0.1:1/v1\n", "", "models.small-a", "has url and model"),
        ("    url: http:", "    url: ftp:", "models.small-a.url", "http://"),
        ("    url: http://127.0.0.1:1/", "    url: http://h:x/", "models.small-a.url", "http://"),
        ("    url: http://127.0.0.1:1/", "    url: http://[::1/", "models.small-a.url", "http://"),
    ],
)
def test_what_does_not_fit_the_schema_names_its_line_and_field(
    old: str, new: str, place: str, message: str
) -> None:
    text = bent(old, new)
    found = [one for one in findings(text) if f" {place}: " in one]
    assert found, findings(text)
    assert message in found[0]
    match = re.match(r"p\.yaml:(\d+): ", found[0])
    assert match
    last = place.rsplit(".", 1)[-1]
    assert f"{last}:" in text.splitlines()[int(match[1]) - 1]


def test_a_bare_off_is_a_profile_and_no_truth_value() -> None:
    assert parse(bent("checks: light", "checks: off"), "p").tiers["small"].checks == "off"


def test_named_bars_are_the_calibrated_ones() -> None:
    more = "data_class: [open], confidence: {min: answers, below: 0.99}"
    policy = parse(bent("data_class: [open]", more), "p")
    bar = policy.rules[0].when.confidence
    assert bar is not None
    assert bar.holds(0.98)
    assert not bar.holds(0.99)


# --- the lint ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("models: [large-a, large-b]", "models: [large-a]", "critical rule contracts: tier large"),
        # two names of one server's model fail together
        ("model: l2", "model: l1", "has 1 model path for data of class open; two are needed"),
        ("critical: true", "critical: true, checks: light", "is not checked strictly"),
        ("{tier: large, critical: true}", "{tier: none, critical: true}", "asks no writer"),
        ("scored:", "  - {name: again, when: {keywords: [contract], data_class: [open], "
         "words: {min: 3}}, then: {tier: small}}\nscored:", "rule again is unreachable"),
        ("    price: {input: 100, output: 400}\n", "", "tier small has no price"),
        ("models: [small-a]", "models: [small-z]", "there is no model named small-z"),
        ("models: [large-a, large-b]", "models: [large-a, large-a]", "stands twice"),
        ("models: [small-a]", "models: [gone]", "none of its models is active"),
        ("default_class: open", "default_class: shut", "there is no class named shut"),
        ("corpora: {attic: secret}", "corpora: {attic: shut}", "corpora.attic: there is no class"),
        ("detect: {email: secret}", "detect: {email: shut}", "detect.email: there is no class"),
        ("start: small", "start: tiny", "there is no tier named tiny"),
        ("intent.explain: 0.5", "intent.sing: 0.5", "there is no feature intent.sing"),
        ("words: 0.01", "speed: 0.01", "there is no feature speed"),
        ("secret: [large-b, trial, quote]", "secret: []", "class secret has no model"),
        ("secret: [large-b, trial, quote]", "secret: [gone]", "class secret has no model"),
        ("  secret: [large-b, trial, quote]\n", "", "class secret has no model"),
        ("secret: [large-b,", "secret: [large-x,", "there is no model named large-x"),
        ("instead: small-a", "instead: x", "there is no model named x"),
        ("last_resort: quote", "last_resort: large-a", "not of kind extractive"),
        ("last_resort: quote", "last_resort: nope", "there is no model named nope"),
        ("classes: [open, secret]", "classes: [open, secret, open]", "a class stands twice"),
        ("  trial: {tier: large", "  small: {tier: large", "the name of a tier"),
        ("data_class: [open]", "data_class: [shut]", "there is no class named shut"),
        ("when: {keywords: [contract], data_class: [open]}", "when: {}", "it is never used"),
        ("when: {keywords: [contract]", "when: {served: huge", "there is no tier named huge"),
    ],
)  # fmt: skip
def test_the_lint_refuses(old: str, new: str, message: str) -> None:
    assert any(message in one for one in findings(bent(old, new))), findings(bent(old, new))


def test_a_question_that_no_rule_may_match_is_refused() -> None:
    text = POLICY_TEXT[: POLICY_TEXT.index("scored:")] + "last_resort: quote\n"
    assert any("may match no rule" in one for one in findings(text))


def rules_are(*whens: str) -> list[str]:
    """What the lint says of rules with these conditions, and nothing after them."""
    start, end = POLICY_TEXT.index("rules:"), POLICY_TEXT.index("escalation:")
    rules = "".join(
        f"  - {{name: r{index}, when: {{{when}}}, then: {{tier: small}}}}\n"
        for index, when in enumerate(whens)
    )
    try:
        parse(POLICY_TEXT[:start] + "rules:\n" + rules + POLICY_TEXT[end:], "p")
    except PolicyError as error:
        return [re.sub(r"^p:\d+: [\w.]+: ", "", one) for one in error.findings]
    return []


UNREACHABLE = "is unreachable: one above holds wherever it does"
OPEN = "some question may match no rule: add one without conditions, or scored routing"


@pytest.mark.parametrize(
    ("whens", "told"),
    [
        ([""], []),
        (["", "turns: {min: 2}"], [f"rule r1 {UNREACHABLE}"]),
        # what several rules leave to one below is counted together
        (["words: {below: 40}", "words: {min: 40}"], []),
        (["words: {below: 40}", "words: {min: 40}", ""], [f"rule r2 {UNREACHABLE}"]),
        (["words: {below: 40}", "words: {min: 41}", ""], []),
        (["words: {below: 40}", "words: {min: 41}"], [OPEN]),
        (["intent: [lookup, explain]", "intent: [compare, summarise]"], []),
        (["intent: [lookup, explain]", "intent: [compare]"], [OPEN]),
        (["tools: true", "tools: false, words: {min: 5}", "words: {min: 9}", ""],
         [f"rule r2 {UNREACHABLE}"]),
        (["confidence: {min: 0}"], []),  # there is none below
        (["confidence: {below: 1}", ""], []),
        (["confidence: {min: 1.5}", ""], ["rule r0 can never hold: a range is empty"]),
        (["keywords: [a, b]", "keywords: [b, a]", ""], [f"rule r1 {UNREACHABLE}"]),
        (["keywords: [a]", "keywords: [b]", ""], []),
        (["language: [de]", "language: [de, fr]", "language: [fr]", ""],
         [f"rule r2 {UNREACHABLE}"]),
        (["served: large", "served: large, turns: {min: 2}", ""], [f"rule r1 {UNREACHABLE}"]),
        (["data_class: [open]", "data_class: [secret]", "top_score: {min: 0.5}"],
         [f"rule r2 {UNREACHABLE}"]),
    ],
)  # fmt: skip
def test_a_rule_that_those_above_leave_nothing_is_refused(
    whens: list[str], told: list[str]
) -> None:
    assert rules_are(*whens) == told


def test_the_numbers_that_are_told_apart_are_the_ranges_of_a_condition() -> None:
    ranges = {name for name, one in When.model_fields.items() if one.annotation == Range | None}
    assert ranges == {*NUMBERS}
    assert len(NUMBERS) == len(SHARES) + len(COUNTS) == len(ranges)


def test_very_many_conditions_are_looked_at_rule_by_rule() -> None:
    many = [
        f"{name}: {{min: 0.{place}, below: 0.{place + 1}}}"
        for name in ("confidence", "top_score", "margin", "agreement", "coverage")
        for place in range(1, 9)
    ]
    assert rules_are(*many, many[0], "") == [f"rule r40 {UNREACHABLE}"]


def test_a_finding_of_the_lint_has_its_line() -> None:
    text = bent("start: small", "start: tiny")
    assert findings(text) == [
        f"p.yaml:{line_of(text, 'start: tiny')}: scored.start: there is no tier named tiny"
    ]


# --- the fingerprint ---------------------------------------------------------------------------


def test_the_fingerprint_is_of_what_a_policy_says_not_of_how() -> None:
    plain = parse(POLICY_TEXT, "p")
    same = parse("# a comment\n" + POLICY_TEXT.replace("[open, secret]", "[open,  'secret']"), "q")
    assert same.fingerprint == plain.fingerprint
    assert parse(bent("words: 0.01", "words: 0.02"), "p").fingerprint != plain.fingerprint
    small, large = (
        "  small: {models: [small-a], checks: light}\n",
        POLICY_TEXT[
            (start := POLICY_TEXT.index("  large: {models")) : POLICY_TEXT.index("\n", start) + 1
        ],
    )
    swapped = parse(POLICY_TEXT.replace(small + large, large + small), "p")
    assert list(swapped.tiers) == ["large", "small"]
    assert swapped.fingerprint != plain.fingerprint  # their order is that of their prices


# --- read anew ---------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)


def stale() -> float | None:
    return REGISTRY.get_sample_value("refdesk_generate_policy_stale")


async def test_a_change_is_seen_within_a_second_and_a_broken_file_keeps_the_last_good(
    tmp_path: Path,
) -> None:
    path, clock = tmp_path / "policy.yaml", Clock()
    write(path, POLICY_TEXT)
    file = PolicyFile(path, clock)
    first = await file.current()

    write(path, bent("words: 0.01", "words: 0.02"))
    assert await file.current() is first  # not looked at yet
    clock.now = 1.0
    second = await file.current()
    assert second.fingerprint != first.fingerprint

    for broken in ("version: [", bent("start: small", "start: tiny"), ""):
        write(path, broken)
        clock.now += 1
        assert await file.current() is second
        assert file.error is not None
        assert file.error.startswith(str(path))
        assert stale() == 1
    path.unlink()
    clock.now += 1
    assert await file.current() is second
    assert file.error is not None
    assert "can't be read" in file.error

    write(path, POLICY_TEXT)
    clock.now += 1
    assert (await file.current()).fingerprint == first.fingerprint
    assert (file.error, stale()) == (None, 0)


async def test_a_policy_is_never_held_with_the_router_of_another(tmp_path: Path) -> None:
    path, clock = tmp_path / "policy.yaml", Clock()
    reached, go_on = threading.Event(), threading.Event()

    def admit(_: Policy) -> list[Finding]:
        reached.set()
        assert go_on.wait(30)
        return []

    go_on.set()
    write(path, POLICY_TEXT)
    file = PolicyFile(path, clock, admit)
    first = await file.held()
    assert first.router is None
    part = "learned: {model: router.json, mode: decide, cheap: small, strong: large}\n"
    write_learned(tmp_path / "router.json")
    write(path, bent("scored:\n", f"{part}scored:\n"))
    reached.clear()
    go_on.clear()
    clock.now = 1
    reading = asyncio.create_task(file.held())
    assert await asyncio.to_thread(reached.wait, 30)  # the router is read, the policy not in force
    clock.now = 2
    meanwhile = await file.held()
    go_on.set()
    second = await reading
    assert meanwhile is first
    assert second.policy.learned is not None
    assert second.router is not None
    assert await file.held() is second


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * (1024 * 1024 + 1)])
def test_a_file_that_is_no_text_is_told_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=re.escape(str(path))):
        load(path)
    with pytest.raises(PolicyError, match="can't be read"):
        load(tmp_path)
