"""Bars on the time axis."""

from __future__ import annotations

from resolute.cli.show.timeline import WAITED, Axis
from resolute.model.messages import NodeRecord
from resolute.status import NodeStatus

AXIS = Axis(start=100.0, end=110.0, width=10)  # half a second to half a character


def bar(dispatched: float, begun: float | None, ended: float | None, now: float = 110.0) -> str:
    status = NodeStatus.COMPLETED if ended else NodeStatus.RUNNING
    record = NodeRecord(1, 0, "n", "n", status, 1, begun=begun, ended=ended, dispatched=dispatched)
    return AXIS.bar(record, now).plain


def test_a_bar_is_as_long_as_the_node_ran_and_waiting_is_dotted():
    assert bar(100, 102, 105) == f"{WAITED * 2}███     "


def test_half_characters_show_halves():
    assert bar(100.5, 100.5, 102) == "▐█        "
    assert bar(100, 100, 101.5) == "█▌        "


def test_the_shortest_node_is_seen():
    assert bar(109.99, 109.99, 110).strip() == "▐"


def test_a_running_node_reaches_to_now():
    assert bar(100, 105, None, now=108) == f"{WAITED * 5}███  "


def test_a_node_that_nobody_began_only_waits():
    assert bar(102, None, None, now=105) == f"  {WAITED * 3}     "


def test_a_step_from_before_a_retry_has_no_bar():
    assert bar(20, 30, 40) == "kept"


def test_the_header_names_both_ends():
    assert AXIS.header().plain == "0   10.0 s"
    assert len(AXIS.header().plain) == AXIS.width
