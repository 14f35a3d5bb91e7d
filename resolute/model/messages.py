"""What travels and what is loaded: queue entries, inbox events, the state of a run."""

from __future__ import annotations

from typing import Literal

import msgspec

from resolute.errors import ErrorInfo
from resolute.priority import Priority
from resolute.status import EventKind, NodeStatus, RunStatus

QUERY = -1  # the `pc` of an entry that asks a query: `index` is its number, `token` whose it is


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A step-ready event in a queue stream: node `index` of step `seq` may be run.

    `attempt` counts from 1 what the retry policy counts, `crashes` what poison counts; `undo` is
    the number of the compensation (0: none). `priority` is told where the stream does not tell it.
    """

    flow: str
    plan: str
    pc: int
    seq: int
    index: int
    token: str
    attempt: int = 1
    crashes: int = 0
    undo: int = 0
    priority: Literal["", "high", "low"] = ""

    @property
    def is_query(self) -> bool:
        """Whether it is no hand-out of a node, but a question: who asked asks again."""
        return self.pc == QUERY


class Event(msgspec.Struct, frozen=True, array_like=True):
    """An inbox entry. `wake` and `sweep` name no flow.

    `arg` is the flow's name for `start`, ``"<next index> <step token> <width>"`` for `page`; for
    `settled` the answer of a branch (``"1"`` or ``"0"``) or a moment (see `Dispatch.until`).
    """

    kind: EventKind
    flow: str = ""
    plan: str = ""
    pc: int = 0
    seq: int = 0
    rev: str = ""
    queue: str = ""
    arg: str = ""


class RunState(msgspec.Struct, frozen=True):
    """What the hash of a run says of where it is.

    `pending` counts the nodes of the step that are not settled; `page` and `skip` are the next
    index to dispatch and to skip; `width` is that of an `each`; `undos` counts what can be
    compensated, `undoing` is the one that the current step undoes (0: none), the node with
    `undoing_index` in the step that it was of; `undo_at` is the one that comes next; `answer` is
    what a settled question said. `repeats`: a retry goes on with the head of a loop, at `pc`.
    """

    flow: str
    plan: str
    pc: int
    seq: int
    rev: str
    pending: int
    status: RunStatus
    queue: str
    token: str = ""
    page: int = 0
    skip: int = 0
    undos: int = 0
    undoing: int = 0
    undoing_index: int = 0
    undo_at: tuple[int, int] = (0, 0)
    cancelled: bool = False
    terminated: bool = False
    answer: str = ""
    width: int = 0
    repeats: bool = False


class NodeRecord(msgspec.Struct, frozen=True):
    """One node instance as `resolute show` and `history()` give it.

    Times are seconds of Unix time by Redis's clock; `due` is when a waiting node goes on. `queue`
    and `priority` are those by which it was handed out last.
    """

    seq: int
    index: int
    name: str
    step: str
    status: NodeStatus
    attempts: int
    crashes: int = 0
    process: str = ""
    queue: str = ""
    begun: float | None = None
    ended: float | None = None
    due: float | None = None
    dispatched: float | None = None
    error: ErrorInfo | None = None
    compensates: str = ""
    priority: Priority = Priority.NORMAL
