"""The closed sets: what a run, a node and a script's answer can be. Lua gets these as a prelude."""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """The states of a run; it leaves a terminal one never."""

    RUNNING = "running"
    FAILING = "failing"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


OPEN = (RunStatus.RUNNING, RunStatus.FAILING, RunStatus.COMPENSATING)
TERMINAL = (
    RunStatus.COMPLETED,
    RunStatus.FAILED,
    RunStatus.CANCELLED,
    RunStatus.TERMINATED,
)


class NodeStatus(StrEnum):
    """The states of a node instance. No record at all means `ready` with the step's first token."""

    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


SETTLED = (NodeStatus.COMPLETED, NodeStatus.FAILED, NodeStatus.SKIPPED)


class Code(StrEnum):
    """How a script answers for one item."""

    OK = "OK"  # done, now or by the same call before
    EXISTS = "EXISTS"  # the run is there already, with the same flow and input
    CONFLICT = "CONFLICT"  # compare-and-set lost; or the id belongs to another run
    GONE = "GONE"  # no such run
    STALE = (
        "STALE"  # the fence refused: an old token, another process, an ended run; too old a look
    )
    SKIP = "SKIP"  # the run no longer wants this node
    FULL = "FULL"  # there are so many already that no more are taken
    TAKEN = "TAKEN"  # another run has the unique key
    OLD = "OLD"  # a tick older than the retention
    LONG = "LONG"  # a list too long for one script: the caller puts it together
    ERROR = "ERROR"  # this item could not be read or done; a dead letter holds it


class EventKind(StrEnum):
    """What an inbox event tells a coordinator."""

    START = "start"
    PAGE = "page"
    SETTLED = "settled"
    LOOK = "look"
    WAKE = "wake"
    SWEEP = "sweep"


class TimerKind(StrEnum):
    """What a timer is for; the first part of its member."""

    NODE = "node"  # a node that is retried, or whose limit lets it run later
    GATE = "gate"  # the timeout of a gate
    SLEEP = "sleep"
    START = "start"  # a run that begins later
    DEADLINE = "deadline"  # of a whole run


WOKEN = "woken"  # the `hold` of a node for which a place became free while it was put to wait
CHILD = "child"  # the `hold` of a node that waits for the end of a run which its run has started
