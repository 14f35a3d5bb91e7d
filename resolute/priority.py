"""Priorities, and the lanes of a queue: in which stream of it the nodes of each one wait.

A lane has the queue's name and, unless it is that of normal nodes, the priority: ``orders``,
``orders^high``, ``orders^low``. That name is what a run has as its queue, and what records, timers
and events carry; so whatever hands a node out again keeps its priority without knowing of any.

Behind an @ follows for whom alone a stream is: ``orders@<plan>``. Such a stream has nodes of every
priority, so there the priority is only in the name that a node goes by (``orders^high@<plan>``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class Priority(StrEnum):
    """Which of the nodes that wait in a queue a worker takes first; in that order."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


PriorityName = Priority | Literal["high", "normal", "low"]

MARK = "^"  # no queue has it in its name


def check_priority(value: object) -> Priority:
    """Raises ValueError for what is no priority."""
    try:
        return Priority(value)  # pyright: ignore[reportArgumentType] - that is what is checked
    except ValueError:
        known = ", ".join(f'"{one}"' for one in Priority)
        raise ValueError(f"priority: expected one of {known}, got {value!r}") from None


def lane_of(queue: str, priority: str) -> str:
    """The lane for nodes of that priority; '' stands for normal."""
    return f"{queue}{MARK}{priority}" if priority and priority != Priority.NORMAL else queue


def lanes_of(queue: str) -> list[str]:
    """All lanes of a queue, that of high nodes first."""
    return [lane_of(queue, priority) for priority in Priority]


def home_of(name: str) -> str:
    """The lane that a node belongs to, wherever it waits: the name without what is behind an @."""
    return name.partition("@")[0]


def queue_of(name: str) -> str:
    """The queue of a lane, or of any stream of it."""
    return home_of(name).partition(MARK)[0]


def priority_of(name: str) -> Priority:
    """The priority of the nodes of a lane; of a damaged name it is normal."""
    priority = home_of(name).partition(MARK)[2]
    return Priority(priority) if priority in tuple(Priority) else Priority.NORMAL


def lane_within(run_lane: str, queue: str, priority: str) -> str:
    """The lane of a node with this `queue` and `priority`; what is '' is that of its run."""
    if not queue and not priority:
        return run_lane
    its_queue, _, its_priority = run_lane.partition(MARK)
    return lane_of(queue or its_queue, priority or its_priority)


def without_priority(name: str) -> str:
    """The name of normal nodes in the same queue, or for the same workers of it."""
    lane, at, special = name.partition("@")
    return lane.partition(MARK)[0] + at + special


def stream_of(name: str) -> str:
    """The stream that a name stands for: one that is for some alone has nodes of every priority."""
    return without_priority(name) if "@" in name else name


def name_in(stream: str, priority: str) -> str:
    """The name by which a node of that priority goes in a stream, the other way round."""
    queue, at, special = stream.partition("@")
    return f"{lane_of(queue, priority)}@{special}" if at and priority else stream
