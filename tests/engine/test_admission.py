"""What a node keeps that its limits let wait, and when it asks again."""

from __future__ import annotations

import pytest

from resolute.engine.admission import (
    LONGEST_TURN,
    Hold,
    ask_of,
    hold_for_time,
    hold_in_line,
    read_hold,
    reservation_in,
    turn_ms,
)
from resolute.status import WOKEN
from resolute.store.limits import Ask
from resolute.store.places import Seat

LEASE = 15.0


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
    assert ask_of("reserved:5:7=12", 1) == (Ask.CONFIRM, 5, 7)
    assert ask_of("line:5:7+12:0", 1) == (Ask.RETURNING, 5, 7)
    assert ask_of("+12:0", 1) == (Ask.NEW, 0, 0)
    assert ask_of(WOKEN, 1) == (Ask.NEW, 0, 0)


def test_who_gets_no_place_gives_its_start_up_and_keeps_both_of_its_turns():
    seats = [Seat(True, 20), Seat(False, 12, 3)]
    hold = hold_in_line("reserved:5:7=15", seats)
    assert read_hold(hold) == Hold("line:5:7", 12, 1)
    assert reservation_in(hold) is None
    assert hold_in_line(hold, seats) == hold


def test_who_waits_for_its_start_keeps_its_ticket():
    assert hold_for_time("reserved:5:7", [Seat(True, 20), Seat(True, 12)]) == "reserved:5:7=12"
    assert reservation_in("reserved:5:7=12") == (5, 7)
    assert hold_for_time("reserved:5:7", []) == "reserved:5:7"


def test_however_many_wait_only_a_few_ask_in_any_second():
    turns = [turn_ms([Seat(False, 0, before)], LEASE) for before in range(100_000)]
    assert turns == sorted(turns)
    assert turns[0] == LEASE * 1000
    assert turns[-1] == LONGEST_TURN * 1000
    assert sum(1000 / turn for turn in turns[:1000]) < 2.5
