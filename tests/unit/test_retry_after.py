"""The header Retry-After: whatever another side sends in it is understood, or says nothing."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.retry_after import retry_after_s


def test_a_number_and_a_date_both_tell_seconds() -> None:
    assert retry_after_s("7") == 7.0
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3000 < retry_after_s(date) <= 3600


@pytest.mark.parametrize(
    "value",
    ["", "soon", "nan", "Mon, 01 Jan 2024", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"],
)
def test_what_is_neither_says_nothing(value: str) -> None:
    assert retry_after_s(value) == 0.0


_DIGITS = st.integers(0, 10**24).map(str)


@given(
    st.one_of(
        st.text(),
        st.builds(
            "{}, {} {} {} {}:{}:{} {}{}".format,
            st.sampled_from(["Mon", "x", ""]),
            _DIGITS,
            st.sampled_from(["Jan", "Feb", "x"]),
            _DIGITS,
            _DIGITS,
            _DIGITS,
            _DIGITS,
            st.sampled_from(["GMT", "+", "-", ""]),
            _DIGITS,
        ),
    )
)
@example("Mon, 01 Jan 2024 00:00:00 +99999999999999999999")
@example("Mon, 01 Jan 0001 00:00:00 +2300")
def test_nothing_that_may_be_sent_is_an_error(value: str) -> None:
    assert not math.isnan(retry_after_s(value))
