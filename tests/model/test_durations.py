from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolute.durations import Duration, humanize, milliseconds, seconds, spell


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("2m", 120),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (" 1h 30m ", 5400),
        (1.5, 1.5),
        (0, 0),
        (timedelta(minutes=1, milliseconds=5), 60.005),
    ],
)
def test_a_span_is_read_as_people_write_it(value: Duration, expected: float):
    assert seconds(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value", ["", "m", "5", "5x", "-5s", "1h-30m", "5 parsecs", "1h30", "s5", "1..5s", "1e3s"]
)
def test_what_is_no_span_is_refused_with_what_was_expected(value: str):
    with pytest.raises(ValueError, match="expected a duration") as caught:
        seconds(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_a_span_that_is_negative_or_endless_is_refused(value: Duration):
    with pytest.raises(ValueError, match="expected a duration of 0 or more"):
        seconds(value)


@pytest.mark.parametrize(
    ("value", "expected"), [("1s", 1000), ("1ms", 1), (0.0001, 1), (0, 0), ("2m", 120_000)]
)
def test_milliseconds_are_whole_and_only_zero_is_none(value: Duration, expected: int):
    assert milliseconds(value) == expected


@given(st.integers(0, 10**9), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_any_number_of_any_unit_is_a_span(count: int, unit: str):
    factor = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}[unit]
    assert seconds(f"{count}{unit}") == pytest.approx(count * factor)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.012, "12 ms"),
        (0.9994, "999 ms"),
        (3.21, "3.2 s"),
        (59.94, "59.9 s"),
        (250, "4m 10s"),
        (3599.6, "1h 0m"),
        (7325, "2h 2m"),
    ],
)
def test_a_span_is_shown_short(span: float, text: str):
    assert humanize(span) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [(604_800_000, "7d"), (5_400_000, "1h30m"), (1500, "1s500ms"), (90_061_000, "1d1h1m1s")],
)
def test_a_span_is_spelled_exactly(span: int, text: str):
    assert spell(span) == text


@given(st.integers(min_value=0, max_value=10**13))
def test_what_is_spelled_can_be_read_again(span: int):
    assert milliseconds(spell(span)) == span
