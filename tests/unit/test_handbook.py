"""The handbook is true where a test can tell: links, commands, settings and routes exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import typer
from typer.core import TyperGroup

from services.generate.answer.outcome import Happened
from services.generate.routing.decision import Decided, Told
from shared.cli.main import app
from shared.settings import ServiceName, Settings
from tests.suite import Suite

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [*PAGES, REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
# A command with what stands before it: variables that are set for it alone.
_SHOWN = re.compile(r"^(?:[A-Z_]+=\S+ )*refdesk (.+)$")
_INLINE = re.compile(r"`([^`\n]+)`")
_VARIABLE = re.compile(r"REFDESK_[A-Z0-9_]*[A-Z0-9]")


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown viewer gives the headings of a page."""
    text = _FENCE.sub("", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The words after `refdesk` of every command in a block or between back-ticks."""
    text = page.read_text()
    blocks = "\n".join(_FENCE.findall(text)).splitlines()
    for line in [*blocks, *_INLINE.findall(_FENCE.sub("", text))]:
        match = _SHOWN.match(line.strip())
        if match:
            yield match[1].split()


def command_line() -> dict[tuple[str, ...], set[str]]:
    """The options of every command, by the words after `refdesk`; ``()`` is refdesk itself."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    found: dict[tuple[str, ...], set[str]] = {(): options(root)}
    for word, command in root.commands.items():
        if isinstance(command, TyperGroup):
            for inner, one in command.commands.items():
                found[word, inner] = options(one)
        else:
            found[(word,)] = options(command)
    return found


def options(command: Any) -> set[str]:
    """The long options that a command takes."""
    every = {"--help"}
    for parameter in command.params:
        every |= {*parameter.opts, *parameter.secondary_opts}
    return {option for option in every if option.startswith("--")}


def test_there_are_at_least_25_pages_worth_reading() -> None:
    long = [page for page in PAGES if len(page.read_text().split()) >= 150]
    assert len(long) >= 25


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_begins_with_its_title_and_is_plain_text(page: Path) -> None:
    text = page.read_text()
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", _FENCE.sub("", text), re.MULTILINE)) == 1
    assert text.count("\n```") % 2 == 0, "a fence is open"
    assert "@@" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize("page", READ, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_index() -> None:
    linked = {(DOCS / link).resolve() for link in _LINK.findall((DOCS / "index.md").read_text())}
    assert set(PAGES) - linked == {DOCS / "index.md"}


@pytest.mark.parametrize("page", READ, ids=name)
def test_every_command_and_option_that_is_shown_exists(page: Path) -> None:
    known = command_line()
    groups = {path[0] for path in known if len(path) > 1}
    for words in shown_commands(page):
        path = tuple(words[: 2 if words[0] in groups else 1])
        if words[0].startswith("-"):
            path = ()
        if len(path) == 1 and path[0] in groups:  # the group is spoken of, not a command
            continue
        assert path in known, words
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known[path]


def test_every_command_is_in_the_reference() -> None:
    page = (DOCS / "command-line.md").read_text()
    for path, offered in command_line().items():
        assert f"`{' '.join(('refdesk', *path))}" in page
        # Of a switch and its opposite, only the one that changes something is shown.
        for option in offered - {"--help", "--curate", "--stream"}:
            assert f"{option}`" in page or f"{option} " in page, f"{' '.join(path)} {option}"


@pytest.mark.parametrize("page", READ, ids=name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    known = {f"REFDESK_{field.upper()}" for field in Settings.model_fields}
    assert set(_VARIABLE.findall(page.read_text())) <= known


def test_the_defaults_in_the_configuration_page_are_those_of_the_code() -> None:
    rows = dict(
        re.findall(
            r"^\| `REFDESK_(\w+)` \| (.+?) \|",
            (DOCS / "configuration.md").read_text(),
            re.MULTILINE,
        )
    )
    for field, info in Settings.model_fields.items():
        shown, default = rows[field.upper()].strip("`"), info.default
        expected = {
            "None": "none",
            "": "empty",
            "[]": "empty",
            "{}": "empty",
            "False": "false",
        }.get(str(default), str(default))
        assert shown == expected, field


def test_every_route_of_every_service_is_described(suite: Suite) -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    missing = [
        f"{service}: {method.upper()} {path}"
        for service in get_args(ServiceName)
        for path, methods in httpx.get(f"{suite.url(service)}/openapi.json", timeout=30)
        .raise_for_status()
        .json()["paths"]
        .items()
        for method in methods
        # A route is described as METHOD PATH, or by its path alone where it takes one method.
        if f"{method.upper()} {path}" not in text and (len(methods) > 1 or f"`{path}`" not in text)
    ]
    assert missing == []


def error_codes() -> set[str]:
    """The code of every error that the sources raise with `ApiError(status, code, …)`."""
    found = set()
    for folder in ("services", "shared"):
        for source in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(source.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApiError":
                    code = node.args[1]
                    if isinstance(code, ast.Constant):
                        found.add(str(code.value))
    return found


def test_every_error_code_is_listed() -> None:
    page = (DOCS / "concepts" / "errors.md").read_text()
    assert [code for code in sorted(error_codes()) if f"`{code}`" not in page] == []


def test_every_reason_of_a_decision_is_explained() -> None:
    page = (DOCS / "concepts" / "tiers.md").read_text()
    reasons = (*Decided, *Told, *Happened)
    assert [reason for reason in reasons if f"\n| `{reason}` | " not in page] == []
