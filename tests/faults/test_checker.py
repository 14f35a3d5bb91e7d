"""The checker itself, on made-up lines: it sees what is wrong, and allows what is allowed."""

from __future__ import annotations

from collections.abc import Iterable

from tests.faults.app import BURST, RATE
from tests.faults.checker import judge_lines
from tests.faults.oracle import Line


def limited(times: Iterable[float]) -> list[Line]:
    """Starts under the limit at these times, each of a run of its own."""
    return [
        Line("start", f"r{number}", "limited", 2, 0, 1, f"m{number}", pid=1, at=at)
        for number, at in enumerate(times)
    ]


def broken_in(lines: list[Line], extra_bursts: int = 0) -> set[str]:
    account = judge_lines(lines, {}, [], extra_bursts=extra_bursts)
    return {one.invariant for one in account.broken}


def test_a_tenth_too_many_starts_breaks_the_limit_in_the_long_run() -> None:
    assert broken_in(limited(i / (1.1 * RATE) for i in range(60 * 44))) == {"I7"}


def test_a_burst_and_then_the_rate_keep_the_limit_wherever_they_begin() -> None:
    burst = [100.0] * BURST
    at_rate = [100 + i / RATE for i in range(1, 60 * RATE)]
    assert broken_in(limited([*burst, *at_rate])) == set()
    assert broken_in(limited([0.0, 50.0, *burst, *at_rate])) == set()


def test_two_bursts_break_the_limit_where_one_is_allowed() -> None:
    times = [0.0] * BURST + [0.1] * BURST
    assert broken_in(limited(times)) == {"I7"}
    assert broken_in(limited(times), extra_bursts=1) == set()
