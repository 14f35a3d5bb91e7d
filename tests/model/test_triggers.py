"""When a schedule ticks, in its own time zone, also where the clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolute.model.triggers import (
    Manual,
    latest_tick,
    manual,
    next_tick,
    schedule,
    tick_id,
    tick_of,
)
from tests.support.examples import examples

OSLO = "Europe/Oslo"


def utc(text: str) -> float:
    """A moment such as "2026-03-29 01:00", as seconds of Unix time."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def shown(tick: float) -> str:
    return f"{datetime.fromtimestamp(tick, UTC):%Y-%m-%d %H:%M:%S}"


def ticks(cron: str, timezone: str, after: str, count: int) -> list[str]:
    """The next ticks after a moment, in UTC."""
    found: list[float] = [utc(after)]
    for _ in range(count):
        found.append(next_tick(cron, timezone, found[-1]))
    return [shown(tick)[:-3] for tick in found[1:]]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-22 04:00:00", "2026-11-22 04:00:00"),
        ("2026-11-22 04:00:00.001", "2026-11-22 04:00:00"),
        ("2026-11-22 03:59:59.999", "2026-11-22 00:00:00"),
        ("2026-11-22 04:00:01", "2026-11-22 04:00:00"),
    ],
)
def test_the_latest_tick_is_at_or_before_now(now: str, expected: str):
    assert shown(latest_tick("0 */4 * * *", "UTC", utc(now))) == expected


def test_the_next_tick_is_after_now_and_never_now():
    at = utc("2026-11-22 04:00")
    assert shown(next_tick("0 */4 * * *", "UTC", at)) == "2026-11-22 08:00:00"
    assert shown(next_tick("0 */4 * * *", "UTC", at - 1)) == "2026-11-22 04:00:00"


def test_a_schedule_ticks_by_the_wall_clock_of_its_zone():
    assert ticks("0 9 * * *", OSLO, "2026-01-10 00:00", 1) == ["2026-01-10 08:00"]
    assert ticks("0 9 * * *", OSLO, "2026-07-10 00:00", 1) == ["2026-07-10 07:00"]
    assert ticks("0 9 * * *", "Asia/Kolkata", "2026-07-10 00:00", 1) == ["2026-07-10 03:30"]
    assert ticks("0 9 * * MON", "America/New_York", "2026-07-10 00:00", 1) == ["2026-07-13 13:00"]


def test_where_the_clocks_go_forward_a_daily_schedule_keeps_its_hour():
    found = ticks("0 9 * * *", OSLO, "2026-03-28 00:00", 3)
    assert found == ["2026-03-28 08:00", "2026-03-29 07:00", "2026-03-30 07:00"]


def test_a_tick_in_the_hour_that_is_left_out_comes_when_it_is_over():
    found = ticks("30 2 * * *", OSLO, "2026-03-28 12:00", 2)
    assert found == ["2026-03-29 01:00", "2026-03-30 00:30"]


def test_a_daily_schedule_ticks_once_when_the_clocks_go_back():
    found = ticks("30 2 * * *", OSLO, "2026-10-24 12:00", 2)
    assert found == ["2026-10-25 00:30", "2026-10-26 01:30"]


def test_a_daily_schedule_was_due_once_when_the_clocks_went_back():
    assert shown(latest_tick("30 2 * * *", OSLO, utc("2026-10-25 12:00"))) == (
        "2026-10-25 00:30:00"
    )


def test_an_hourly_schedule_ticks_in_every_hour_that_there_is():
    assert ticks("0 * * * *", OSLO, "2026-03-28 23:00", 4) == [
        "2026-03-29 00:00", "2026-03-29 01:00", "2026-03-29 02:00", "2026-03-29 03:00",
    ]  # fmt: skip
    assert ticks("0 * * * *", OSLO, "2026-10-24 23:00", 4) == [
        "2026-10-25 00:00", "2026-10-25 01:00", "2026-10-25 02:00", "2026-10-25 03:00",
    ]  # fmt: skip


@examples(200)
@given(
    now=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
    cron=st.sampled_from(["*/5 * * * *", "0 */4 * * *", "15 3 * * *", "0 0 1 * *", "0 12 * * SUN"]),
    timezone=st.sampled_from(["UTC", OSLO, "America/New_York", "Asia/Kolkata", "Pacific/Apia"]),
)
def test_now_always_lies_between_the_latest_tick_and_the_next(
    now: datetime, cron: str, timezone: str
):
    at = now.replace(tzinfo=UTC).timestamp()
    latest, following = latest_tick(cron, timezone, at), next_tick(cron, timezone, at)
    assert latest <= at < following
    assert latest_tick(cron, timezone, following) == following
    assert next_tick(cron, timezone, latest) == following


def test_the_id_of_a_tick_is_the_moment_in_utc_whoever_asks():
    moment = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)
    there = moment.astimezone(tz=None) + timedelta(0)
    assert tick_id("report", 1, moment.timestamp()) == "report:cron1:20261122T050000Z"
    assert tick_id("report", 1, there.timestamp()) == tick_id("report", 1, moment.timestamp())


@pytest.mark.parametrize("cron", ["0 */4 * * *", "@daily", "*/15 9-17 * * MON-FRI", "0 0 29 2 *"])
def test_a_schedule_that_ticks_has_no_problem(cron: str):
    assert schedule(cron, timezone=OSLO).problem() is None


@pytest.mark.parametrize(
    "cron", ["", "a", "60 * * * *", "* * * *", "0 0 31 2 *", "0 0 * * * * 2026"]
)
def test_a_schedule_that_cannot_tick_says_so(cron: str):
    problem = schedule(cron).problem()
    assert problem is not None
    assert repr(cron) in problem


@pytest.mark.parametrize("timezone", ["Mars/Olympus", "", "../etc/passwd", "CEST+1"])
def test_a_time_zone_that_is_unknown_is_named(timezone: str):
    problem = schedule("0 0 * * *", timezone=timezone).problem()
    assert problem is not None
    assert repr(timezone) in problem


def test_a_manual_trigger_says_for_people_who_starts_it():
    assert manual("api") == Manual("api")


@pytest.mark.parametrize("cron", ["@hourly", "0 */1 * * *", "30 */2 * * *"])
def test_a_schedule_for_every_hour_or_every_few_ticks_in_both_that_are_the_same(cron: str):
    found = ticks(cron, OSLO, "2026-10-24 23:59", 3)
    assert (
        found
        == {
            "@hourly": ["2026-10-25 00:00", "2026-10-25 01:00", "2026-10-25 02:00"],
            "0 */1 * * *": ["2026-10-25 00:00", "2026-10-25 01:00", "2026-10-25 02:00"],
            "30 */2 * * *": ["2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 03:30"],
        }[cron]
    )


def test_a_schedule_with_seconds_ticks_by_them_and_once_at_fixed_hours():
    assert shown(next_tick("0 0 * * * 30", "UTC", utc("2026-01-10 00:00"))) == (
        "2026-01-10 00:00:30"
    )
    found = ticks("30 2 * * * 0", OSLO, "2026-10-24 12:00", 2)
    assert found == ["2026-10-25 00:30", "2026-10-26 01:30"]


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("0 0 31 2 *", "is never due"),
        ("0 0 * * * * *", "expected 5 fields, or 6 with seconds"),
        ("* * * *", "expected 5 fields, or 6 with seconds"),
        ("60 * * * *", "cannot parse"),
        ("@often", "cannot parse"),
    ],
)
def test_a_schedule_that_cannot_tick_says_why(cron: str, why: str):
    assert why in (schedule(cron).problem() or "")


def test_a_tick_is_read_back_from_the_id_of_its_run():
    run_id = tick_id("a:cron1:b", 12, 1_700_020_800)
    assert tick_of(run_id, "a:cron1:b") == (12, 1_700_020_800_000)


@pytest.mark.parametrize(
    "run_id",
    ["f", "g:cron0:20231115T040000Z", "f:cron0:20231315T040000Z", "f:cron0:20231115T040000Z/~1"],
)
def test_other_ids_are_no_ticks_of_a_flow(run_id: str):
    assert tick_of(run_id, "f") is None
