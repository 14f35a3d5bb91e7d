"""The checker itself, on made-up lines: it sees what is wrong, and allows what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec
import pytest

from resolute.model.messages import Entry, Event
from resolute.status import EventKind, RunStatus
from tests.faults.app import BURST, RATE
from tests.faults.checker.ended import Ended, judge_letters
from tests.faults.checker.lines import CutOff, judge_lines
from tests.faults.nemesis import GARBAGE
from tests.faults.oracle import Line, in_order

LEASE = 3.0  # s


def limited(times: Iterable[float]) -> list[Line]:
    """Starts under the limit at these times, each of a run of its own."""
    return [
        Line("start", f"r{number}", "limited", 2, 0, 1, f"m{number}", pid=1, at=at)
        for number, at in enumerate(times)
    ]


def broken_in(lines: list[Line], *cut_off: CutOff, extra_bursts: int = 0) -> set[str]:
    account = judge_lines(lines, {}, cut_off, lease=LEASE, extra_bursts=extra_bursts)
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


def seated(*spans: tuple[float, float | None], pid: int = 1) -> list[Line]:
    """Executions at one table, from and until these times, each of a run of its own."""
    found: list[Line] = []
    for number, (since, until) in enumerate(spans):
        line = Line("start", f"{pid}-{number}", "seated-a", 2, 0, 1, f"{pid}-{number}", pid=pid)
        found.append(msgspec.structs.replace(line, at=since, note="table"))
        if until is not None:
            found.append(msgspec.structs.replace(line, what="end", at=until))
    return in_order(found)


def test_one_more_than_there_are_places_is_seen() -> None:
    assert broken_in(seated((0, 5), (1, 5), (5, 6))) == set()
    assert broken_in(seated((0, 5), (1, 5), (4, 6))) == {"I10"}


def test_one_that_never_ended_ran_as_long_as_its_process() -> None:
    there = seated((2, 3), (2.5, 4), pid=2)
    assert broken_in(in_order([*seated((0, None)), *there])) == set()
    assert broken_in(in_order([*seated((0, None), (3.5, 4)), *there])) == {"I10"}


def test_a_place_of_a_process_that_was_cut_off_beyond_its_lease_may_be_another_s() -> None:
    lines = in_order([*seated((0, 9)), *seated((7, 8), (7, 8), pid=2)])
    assert broken_in(lines, CutOff(1, 1.0, 6.0, LEASE)) == set()
    assert broken_in(lines, CutOff(1, 1.0, 2.0, LEASE)) == {"I10"}


def alone(*spans: tuple[float, float], key: str = "key 1") -> list[Line]:
    """Executions of runs with one key."""
    lines = [msgspec.structs.replace(line, node="alone", note=key) for line in seated(*spans)]
    return [
        line if line.what == "start" else msgspec.structs.replace(line, note="") for line in lines
    ]


def test_two_runs_of_one_key_at_one_time_are_seen() -> None:
    assert broken_in(alone((0, 1), (1, 2))) == set()
    assert broken_in(alone((0, 1), (0.5, 2))) == {"I11"}


def test_runs_of_two_keys_may_run_at_one_time() -> None:
    other = [
        msgspec.structs.replace(line, run=f"x{line.run}", mark=f"x{line.mark}")
        for line in alone((0.5, 2), key="key 2")
    ]
    assert broken_in(in_order([*alone((0, 1)), *other])) == set()


def test_a_debounced_run_without_its_last_input_is_seen() -> None:
    lines = [Line("started", "r", "hushed", note=str(number)) for number in (4, 6, 5)]
    for number, expected in ((6, set[str]()), (7, set[str]()), (5, {"I11"})):
        ended = Ended(
            "r", "hushed", RunStatus.COMPLETED, "1-x", 1.0, 2, 2, 0, {}, is_poisoned=False,
            number=number,
        )  # fmt: skip
        account = judge_lines(lines, {"r": ended}, (), lease=LEASE)
        assert {one.invariant for one in account.broken} == expected


CANCELLED, TERMINATED = RunStatus.CANCELLED, RunStatus.TERMINATED
COMPLETED, FAILED = RunStatus.COMPLETED, RunStatus.FAILED


def stops(*told: str) -> list[Line]:
    """The lines of stops, each with its answer if there is one: "cancel True", "terminate"."""
    found: list[Line] = []
    for how, _, answer in (one.partition(" ") for one in told):
        found.append(Line("stopping", "r", note=how))
        if answer:
            found.append(Line("stopped", "r", note=f"{how} {answer}"))
    return found


def ended_as(status: RunStatus) -> dict[str, Ended]:
    return {"r": Ended("r", "long", status, "1-x", 1.0, 0, 0, 0, {}, is_poisoned=False)}


@pytest.mark.parametrize(
    ("told", "allowed"),
    [
        ((), {COMPLETED, FAILED}),
        (("cancel True",), {CANCELLED}),
        (("cancel True", "cancel True"), {CANCELLED}),
        (("terminate True",), {TERMINATED}),
        (("cancel True", "terminate True"), {TERMINATED}),
        (("cancel True", "terminate"), {CANCELLED, TERMINATED}),
        (("cancel False",), {COMPLETED, FAILED}),
        (("terminate False",), {COMPLETED, FAILED}),
        (("cancel",), {COMPLETED, FAILED, CANCELLED}),
        (("cancel False", "cancel"), {COMPLETED, FAILED, CANCELLED}),
        (("terminate",), {COMPLETED, FAILED, TERMINATED}),
    ],
)
def test_a_run_ends_as_its_stops_were_answered(
    told: Sequence[str], allowed: set[RunStatus]
) -> None:
    found = {
        status
        for status in (COMPLETED, FAILED, CANCELLED, TERMINATED)
        if not judge_lines(stops(*told), ended_as(status), [], lease=LEASE).broken
    }
    assert found == allowed


def test_hooks_that_heard_of_another_end_are_seen() -> None:
    one = {"r": replace(ended_as(FAILED)["r"], is_told=True)}
    heard = [Line("told", "r", note="running"), Line("told", "r", note="completed")]
    (broken,) = judge_lines(heard, one, [], lease=LEASE).broken
    assert "were not told that it failed" in broken.why
    heard.append(Line("told", "r", note="failed"))
    assert not judge_lines(heard, one, [], lease=LEASE).broken


def executed(
    *spans: tuple[int, float, float | None], others: Sequence[tuple[int, float]] = ()
) -> list[Line]:
    """One instance, executed in these processes from and to these times (None: no end is told).

    `others` are lines of other instances in these processes.
    """
    found = [
        Line("start", f"other-{number}", "other", 1, 0, 1, f"other-{number}", pid=pid, at=at)
        for number, (pid, at) in enumerate(others)
    ]
    for number, (pid, begin, end) in enumerate(spans):
        mark = f"m{number}"
        found.append(Line("start", "r", "slow", 1, 0, 1, mark, pid=pid, at=begin))
        if end is not None:
            found.append(Line("end", "r", "slow", 1, 0, 1, mark, pid=pid, at=end))
    return sorted(found, key=lambda line: line.at)


def test_executions_that_follow_each_other_are_allowed() -> None:
    assert broken_in(executed((1, 0, 1), (2, 1.5, 2), (1, 3, 4))) == set()
    assert broken_in(executed((1, 0, None), (2, 4, 5), others=[(1, 1)])) == set()


def test_two_executions_at_once_are_seen() -> None:
    assert broken_in(executed((1, 0, 2), (2, 1, 3))) == {"I3"}


def test_an_execution_is_compared_with_all_that_were_before_it() -> None:
    frozen = CutOff(1, 0.1, 9)
    # The first one lasts over the two others; its neighbour alone does not show it.
    assert broken_in(executed((1, 0, 20), (2, 1, 2), (3, 15, 16))) == {"I3"}
    assert broken_in(executed((1, 0, 20), (2, 1, 4), (3, 3, 5)), frozen) == {"I3"}


def test_an_execution_without_an_end_lasts_while_its_process_writes() -> None:
    lines = executed((1, 0, None), (2, 4, 5), others=[(1, 4.5)])
    assert broken_in(lines) == {"I3"}
    assert broken_in(lines, CutOff(1, 0.5, 4.2)) == set()


def test_only_a_span_of_more_than_two_thirds_of_the_lease_is_an_excuse() -> None:
    lines = executed((1, 0, 6), (2, 4, 5))
    assert broken_in(lines, CutOff(1, 1, 2.9, after=LEASE)) == {"I3"}
    assert broken_in(lines, CutOff(1, 1, 3.2, after=LEASE)) == set()
    assert broken_in(lines, CutOff(1, 1, 2.5), CutOff(1, 3, 4)) == set()  # one after the other
    assert broken_in(lines, CutOff(2, 1, 5)) == {"I3"}  # the other process
    assert broken_in(lines, CutOff(1, 4.1, 9)) == {"I3"}  # after it was handed out
    assert broken_in(lines, CutOff(1, -9, -4, after=LEASE)) == {"I3"}  # long before


def test_only_garbage_may_be_buried() -> None:
    assert judge_letters((raw, "why") for raw in GARBAGE) == []
    for valid in (Entry("r", "plan", 0, 1, 0, "1-x.0"), Event(EventKind.LOOK, "r")):
        (broken,) = judge_letters([(msgspec.msgpack.encode(valid), "why")])
        assert (broken.invariant, broken.run) == ("I1", "r")
