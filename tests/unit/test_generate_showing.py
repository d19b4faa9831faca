"""What of a draft is shown while it is written, however it comes in pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generate.prompting.prompt import DECLINE
from services.generate.prompting.showing import Showing
from shared.errors import ApiError

SECRET = "9f86d081884c7d65"
# Texts that are near to what is held back: white space, the refusal, parts of the secret.
PARTS = ["Ada ", "wrote.", " ", "\n\n", "[1]", "9", "9f86", "9F86D081", "NOT ", "d65", "é"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map("".join) | st.text(max_size=40)


def shown(pieces: list[str]) -> list[str]:
    """What gets out of a draft in pieces that is no refusal."""
    out: list[str] = []
    showing = Showing(out.append, (SECRET,))
    for piece in pieces:
        showing.feed(piece)
    showing.close()
    assert showing.text == "".join(out)
    assert showing.begun == bool(out)
    return out


def cut(text: str, places: list[int]) -> list[str]:
    """The text cut at some places."""
    at = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(at)]


@given(TEXTS, st.lists(st.integers(0, 1000), max_size=20))
def test_in_all_the_text_without_white_space_around_it_is_shown(
    text: str, places: list[int]
) -> None:
    assert "".join(shown(cut(text, places))) == text.strip()


@given(TEXTS, TEXTS, st.booleans(), st.lists(st.integers(0, 1000), max_size=20))
def test_a_secret_stops_the_draft_before_any_of_it_is_shown(
    before: str, after: str, large: bool, places: list[int]
) -> None:
    text = before + (SECRET.upper() if large else SECRET) + after
    out: list[str] = []
    showing = Showing(out.append, (SECRET,))
    with pytest.raises(ApiError) as stopped:
        list(map(showing.feed, cut(text, places)))
    assert stopped.value.code == "leak"
    assert before.lstrip().startswith("".join(out))


@pytest.mark.parametrize(
    "refusal",
    [DECLINE, f"{DECLINE}.", "Not in the sources.", f"[1] **{DECLINE}**", f' "{DECLINE}"'],
)
def test_the_agreed_refusal_is_not_shown_however_it_comes(refusal: str) -> None:
    out: list[str] = []
    showing = Showing(out.append, (SECRET,))
    for letter in refusal:
        showing.feed(letter)
    assert not showing.begun
    assert out == []


def test_what_only_began_like_the_refusal_is_shown() -> None:
    assert "".join(shown(["NOT IN", " THE", " MOOD to answer."])) == "NOT IN THE MOOD to answer."


def test_words_come_as_they_are_written() -> None:
    assert shown(["Ada", " wrote", " it."]) == ["Ada", " wrote", " it."]
