"""What a node keeps that its limits let wait, and when it asks again."""

from __future__ import annotations

import pytest

from resolute.engine.admission import (
    LONGEST_TURN,
    Bucket,
    Hold,
    asks_of,
    hold_for_time,
    hold_in_line,
    hold_of,
    is_kept,
    line_of,
    read_hold,
    reserved_in,
    turn_ms,
)
from resolute.model.plan import LimitPlan
from resolute.status import WOKEN
from resolute.store.limits import Ask, Grant
from resolute.store.places import Seat

LEASE = 15.0
BUCKETS: list[Bucket] = [(LimitPlan(name, 1_000, 1), "") for name in ("one", "two")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", Hold()),
        ("reserved:5:7", Hold("reserved:5:7")),
        ("+12:1", Hold("", 12, 1)),
        ("line:5:7+12:0", Hold("line:5:7", 12, 0)),
        ("reserved:5:7=12", Hold("reserved:5:7", 12)),
        (WOKEN, Hold(WOKEN)),
        ("+x:y", Hold()),
    ],
)
def test_a_hold_is_read_as_it_was_written(text: str, found: Hold):
    assert read_hold(text) == found


def test_what_a_node_has_of_its_places_does_not_change_what_it_asks_for_its_time():
    assert asks_of("reserved:5:7=12", 1) == [(Ask.CONFIRM, 5, 7)]
    assert asks_of("line:5:7+12:0", 1) == [(Ask.RETURNING, 5, 7)]
    for nothing in ("", "+12:0", WOKEN, "line:x:7"):
        assert asks_of(nothing, 1) == [(Ask.NEW, 0, 0)]


def test_of_several_limits_each_is_asked_for_what_it_told():
    held = "reserved:5:7,line:6:8=12"
    assert asks_of(held, 2) == [(Ask.CONFIRM, 5, 7), (Ask.RETURNING, 6, 8)]
    assert asks_of(held, 3) == [(Ask.NEW, 0, 0)] * 3  # of another plan
    assert asks_of("line:x:7,line:6:8", 2) == [(Ask.NEW, 0, 0), (Ask.RETURNING, 6, 8)]
    assert asks_of("", 2) == [(Ask.NEW, 0, 0)] * 2


def test_the_latest_start_is_kept_and_of_the_others_the_turn_in_line():
    # Servers have clocks of their own: what counts is how long it is until then.
    grants = [Grant(True, 4_000, 1, 3_000), Grant(True, 950_000, 2, 0), Grant(True, 999_999, 3, 0)]
    assert [is_kept(grant, grants) for grant in grants] == [False, True, True]
    assert hold_of(grants) == "line:4000:1,reserved:950000:2,reserved:999999:3"
    later = [*grants, Grant(False, 2_000_000, 4, 0)]
    assert hold_of(later) == "line:4000:1,line:950000:2,line:999999:3,line:2000000:4"
    assert line_of(grants) == "line:4000:1,line:950000:2,line:999999:3"
    assert hold_of(grants[:1]) == "reserved:4000:1"


def test_who_gets_no_place_gives_its_start_up_and_keeps_both_of_its_turns():
    seats = [Seat(True, 20), Seat(False, 12, 3)]
    hold = hold_in_line("reserved:5:7=15", seats)
    assert read_hold(hold) == Hold("line:5:7", 12, 1)
    assert reserved_in(hold, BUCKETS[:1]) == []
    assert hold_in_line(hold, seats) == hold
    both = hold_in_line("reserved:5:7,line:6:8=15", seats)
    assert read_hold(both) == Hold("line:5:7,line:6:8", 12, 1)


def test_who_waits_for_its_start_keeps_its_ticket():
    assert hold_for_time("reserved:5:7", [Seat(True, 20), Seat(True, 12)]) == "reserved:5:7=12"
    assert reserved_in("reserved:5:7=12", BUCKETS[:1]) == [(BUCKETS[0], 5, 7)]
    assert reserved_in("line:5:7,reserved:6:8=12", BUCKETS) == [(BUCKETS[1], 6, 8)]
    assert hold_for_time("reserved:5:7", []) == "reserved:5:7"


def test_however_many_wait_only_a_few_ask_in_any_second():
    turns = [turn_ms([Seat(False, 0, before)], LEASE) for before in range(100_000)]
    assert turns == sorted(turns)
    assert turns[0] == LEASE * 1000
    assert turns[-1] == LONGEST_TURN * 1000
    assert sum(1000 / turn for turn in turns[:1000]) < 2.5
