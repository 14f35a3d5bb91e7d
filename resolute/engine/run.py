"""What `advance` answers: a transition to commit, nothing to do, or more to be read."""

from __future__ import annotations

import msgspec

from resolute.status import RunStatus

# What one commit does at most, so that its script holds the server for some 5 ms.
PAGE = 500  # nodes dispatched
PAGE_OF_SKIPS = 150  # nodes skipped: each has a record to be read and written
PAGE_OF_RUNS = 100  # runs started, or told to stop


class Dispatch(msgspec.Struct, frozen=True):
    """Hand out the nodes `start` to `stop` of the step at `pc`, or one compensation.

    `until` is when a `sleep` is over: Unix time in ms, or ``+`` and the ms from now. `turn` says of
    the head of a loop that it is come by again, and not for the first time. `repeats` says that it
    was come by before, in the run that this one is a retry of.
    """

    pc: int
    start: int
    stop: int
    width: int
    undo: int = 0
    until: str = ""
    turn: bool = False
    limit: int = -1  # so many are dispatched by pages, the rest as others settle; -1: all
    repeats: bool = False

    @property
    def is_first(self) -> bool:
        return self.undo > 0 or self.start == 0

    @property
    def has_more(self) -> bool:
        return self.undo == 0 and self.stop < (self.width if self.limit < 0 else self.limit)


class Transition(msgspec.Struct, frozen=True):
    """One change of a run, to be committed if its `rev` is still what it was.

    `previous` is the step whose outputs are the default input of the next, where that changed.
    `skip` marks the nodes in that range skipped that nobody has claimed, and cancels the runs that
    those of `children` wait for, or terminates them where the run `is_terminating`. `empty` are the
    wide instructions that had no items, whose output is an empty list.
    """

    status: RunStatus
    seq: int
    dispatch: Dispatch | None = None
    previous: int | None = None
    skip: tuple[int, int] | None = None
    skip_more: bool = False
    empty: tuple[int, ...] = ()
    is_terminating: bool = False


class Stale(msgspec.Struct, frozen=True):
    """The event asks for nothing that is still to be done."""


class NeedsRun(msgspec.Struct, frozen=True):
    """The event alone does not say enough: load the run and ask again."""


Decision = Transition | Stale | NeedsRun
