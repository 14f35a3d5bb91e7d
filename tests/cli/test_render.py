"""How a run is drawn where it has more than fits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rich.console import Console

from resolute.cli.show.render import MAX_ALIKE, MAX_NODES, render
from resolute.cli.show.snapshot import Snapshot
from resolute.cli.show.waiting import Wait, WaitKind
from resolute.client import RunInfo
from resolute.errors import ErrorInfo
from resolute.model.messages import NodeRecord
from resolute.status import NodeStatus, RunStatus

NOW = 1_000_000.0
RUN = RunInfo("r-1", "wide", RunStatus.RUNNING, NOW - 10, None, "default", "abc")
TRACEBACK = "Traceback (most recent call last):\n  somewhere\n"


def record(index: int, status: NodeStatus, **changes: Any) -> NodeRecord:
    made = NodeRecord(
        1, index, f"n{index}", "fan", status, 1, begun=NOW - 8, ended=NOW - 2, dispatched=NOW - 9
    )
    return msgspec.structs.replace(made, **changes)


def drawn(snapshot: Snapshot, columns: int = 100, *, show_all: bool = False) -> list[str]:
    console = Console(width=columns)
    with console.capture() as captured:
        console.print(render(snapshot, console, show_all=show_all))
    return [line.rstrip() for line in captured.get().splitlines()]


def wide(count: int) -> list[NodeRecord]:
    nodes = [record(index, NodeStatus.COMPLETED) for index in range(count)]
    nodes[-1] = record(count - 1, NodeStatus.FAILED, error=ErrorInfo("Oops", "it broke"))
    return nodes


def test_a_wide_step_shows_what_matters_and_counts_the_rest():
    lines = drawn(Snapshot(RUN, NOW, wide(1000), []))
    rows = [line for line in lines if line.startswith("  n")]
    assert len(rows) == MAX_NODES
    assert rows[-1].startswith("  n999") and "✗ failed" in rows[-1]
    assert any(line.split() == ["…", "988", "more", "✓", "completed"] for line in lines)


def test_all_of_it_on_request():
    lines = drawn(Snapshot(RUN, NOW, wide(1000), []), show_all=True)
    assert len([line for line in lines if line.startswith("  n")]) == 1000


def test_many_waits_are_told_by_kind_and_urgency():
    running = [Wait(WaitKind.NODE, f"n{i} runs") for i in range(100)]
    waits = [*running, Wait(WaitKind.COORDINATOR, "no coordinator lives")]
    lines = drawn(Snapshot(RUN, NOW, [], waits))
    at = lines.index("waits for")
    assert lines[at + 1 :] == [
        "  no coordinator lives", "  n0 runs", "  n1 runs",
        f"  … {100 - MAX_ALIKE} more like this",
    ]  # fmt: skip


def test_the_error_that_failed_the_run_comes_first_and_has_the_traceback():
    first = ErrorInfo("First", "one", TRACEBACK, "n1")
    other = ErrorInfo("Other", "two", TRACEBACK, "n0")
    failed = msgspec.structs.replace(RUN, status=RunStatus.FAILED, error=first, ended=NOW)
    nodes = [
        record(0, NodeStatus.FAILED, error=other),
        record(1, NodeStatus.FAILED, error=first),
    ]
    lines = drawn(Snapshot(failed, NOW, nodes, []))
    assert lines.index("n1: First: one") < lines.index("n0: Other: two")
    assert sum("somewhere" in line for line in lines) == 1
    every = drawn(Snapshot(failed, NOW, nodes, []), show_all=True)
    assert sum("somewhere" in line for line in every) == 2


def test_what_a_node_survived_is_no_error():
    survived = record(0, NodeStatus.COMPLETED, error=ErrorInfo("Late", "once"), attempts=2)
    assert not any("Late" in line for line in drawn(Snapshot(RUN, NOW, [survived], [])))


def test_crashes_are_told_beside_attempts():
    crashed = record(0, NodeStatus.COMPLETED, attempts=1, crashes=2)
    assert any("1 +2 crashed" in line for line in drawn(Snapshot(RUN, NOW, [crashed], [])))


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_line_is_longer_than_the_terminal(columns: int):
    nodes = [record(0, NodeStatus.RUNNING, name="a-very-long-name-" * 5, ended=None)]
    waits = [Wait(WaitKind.NODE, "somebody runs on something for a while " * 4)]
    assert max(map(len, drawn(Snapshot(RUN, NOW, nodes, waits), columns))) <= columns


def test_what_a_terminated_run_left_running_is_counted_until_its_end():
    run = msgspec.structs.replace(RUN, status=RunStatus.TERMINATED, ended=RUN.started + 5)
    node = record(0, NodeStatus.RUNNING, begun=RUN.started + 2, ended=None)
    first, later = (drawn(Snapshot(run, RUN.started + passed, [node], [])) for passed in (10, 500))
    assert first == later
    assert any("3.0 s" in line for line in first)
