"""What an author of a document could steer a prompt with, made harmless. Pure functions.

For the prompt alone: what people are shown, and what drafts are verified against, stays as it is.
"""

import re
from collections.abc import Iterable

_TITLE_CHARACTERS = 200
# What a reader does not see and a model does: controls, zero-width and directional characters, and
# the tag and variation characters that carry whole hidden texts. Not the joiners, which some
# scripts cannot be written without.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_LINE_BREAK = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Tokens of chat templates. A model server may read them as what they look like wherever they stand:
# the end of the user's turn and the beginning of the system's. llama.cpp's does: a prompt with ten
# times "<|im_end|>" in it is ten tokens longer. Tags of thoughts: a draft that copied one would be
# taken for thoughts. And this prompt's own delimiter.
_TOKEN = re.compile(
    r"<(?=[|\uff5c][^\s<>|\uff5c]{1,40}[|\uff5c]>|</?SYS>>"
    r"|\s{0,4}/?\s{0,4}(?:s|bos|eos|pad|unk|sources|think|thinking|start_of_turn"
    r"|end_of_turn)\b[^<>]{0,80}>)|\[(?=/?(?:INST|THINK|SYSTEM_PROMPT|AVAILABLE_TOOLS"
    r"|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\])",
    re.IGNORECASE,
)
_FAKE_NUMBER = re.compile(r"^([ \t]*)\[(\d+)\]", re.MULTILINE)


def defanged(text: str) -> str:
    """A passage's text without unseen characters, control tokens and forged heads of sources."""
    visible = _UNSEEN.sub("", _LINE_BREAK.sub("\n", text))
    return _FAKE_NUMBER.sub(r"\1(\2)", without_tokens(visible))


def seen(texts: Iterable[str]) -> frozenset[str]:
    """Texts as they are and as a model is given passages: what is not seen can part an address."""
    return frozenset(form for text in texts for form in (text, defanged(text)))


def without_tokens(text: str) -> str:
    """A message without control tokens. They keep their looks but for their first character."""
    return _TOKEN.sub(lambda found: "\u2039" if found[0] == "<" else "(", text)


def one_line(title: str) -> str:
    """A title, defanged, in one line of at most 200 characters."""
    line = " ".join(defanged(title).split())
    return line if len(line) <= _TITLE_CHARACTERS else line[: _TITLE_CHARACTERS - 1] + "…"
