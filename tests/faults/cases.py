"""What each flow must come to: the rules that the checker holds it to.

The list grows with the language: a feature joins it with its flow, its numbers and what they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Any

from resolute import Flow, GateResult, RunStatus
from tests.faults import app
from tests.faults.app import Work

COMPLETED, FAILED = RunStatus.COMPLETED, RunStatus.FAILED
OTHER_ENDS = {RunStatus.CANCELLED, RunStatus.TERMINATED}
POISON = "Poison"  # the error of a node that three processes died with
CHILD_FAILED = "ChildFailed"
YES = GateResult(approved=True)


@dataclass(frozen=True)
class Expected:
    """How a run must end if nobody cancels it; `value` is that of its result, None: not looked at.

    `error` is the type of the error it fails with.
    """

    status: RunStatus
    value: int | None = None
    error: str = ""


class Sharing(Enum):
    """Whether the starts of a case share a key, and what comes of that."""

    NONE = "none"
    UNIQUE = "unique"  # one open run of a key: others get it, or replace it
    DEBOUNCED = "debounced"  # one run of many starts, with the last input


@dataclass(frozen=True)
class Case:
    """A flow of the load, how often it comes, and what becomes of a run of it."""

    flow: Flow[Any, Any]
    weight: float
    expect: Callable[[int], Expected]
    is_stopped: bool = False  # some runs of it are cancelled or terminated
    signal: str = ""  # sent to each run, early or late
    sharing: Sharing = Sharing.NONE
    payload: Any = None  # of its signal

    def work(self, random: Random) -> Work:
        return Work(random.randrange(100), random.choice((0, 1, 5, 20)))


def _done(add: int) -> Callable[[int], Expected]:
    return lambda number: Expected(COMPLETED, number + add)


def _branching(number: int) -> Expected:
    if number > 75:
        return Expected(COMPLETED, 2 * (number + 1))
    return Expected(COMPLETED, number + (3 if number > 50 else 4))


def _saga(number: int) -> Expected:
    charged = 2 * (number + 2)
    if charged % 3 == 0:
        return Expected(FAILED, error="TerminalError")
    return Expected(COMPLETED, charged)


def _misbehaving(number: int) -> Expected:
    return Expected(FAILED, error=app.ILL_BEHAVED[number % len(app.ILL_BEHAVED)])


def _gated(number: int) -> Expected:
    if number >= app.LATE:
        return Expected(FAILED, error="GateTimeout")
    return Expected(COMPLETED, number + 1)


def _listing(number: int) -> Expected:
    first = number  # what `begin` makes of it
    return Expected(COMPLETED, sum(range(first, first + app.ITEMS)))


def _kid(number: int) -> Expected:
    if number % app.UNLUCKY == 0:
        return Expected(FAILED, error="TerminalError")
    return Expected(COMPLETED, number)


def _family(number: int) -> Expected:
    kids = [_kid(number + each) for each in range(app.KIDS)]
    if any(kid.status is FAILED for kid in kids):
        return Expected(FAILED, error=CHILD_FAILED)
    return Expected(COMPLETED, sum(kid.value or 0 for kid in kids))


SUM = sum(range(app.FAN))
PAGES = sum(4**page for page in range(app.PAGES))
USUAL = (
    Case(app.sequence, 10, _done(2)),
    Case(app.fan, 10, lambda number: Expected(COMPLETED, app.FAN * number + SUM)),
    Case(app.branching, 10, _branching),
    Case(app.retrying, 8, _done(0)),
    Case(app.throttled, 8, _done(0)),
    Case(app.crowded, 6, lambda number: Expected(COMPLETED, 3 * number), is_stopped=True),
    Case(app.ranked, 6, lambda number: Expected(COMPLETED, 3 * number), is_stopped=True),
    Case(app.best_effort, 6, _done(1)),
    Case(app.pausing, 2, _done(0)),
    Case(app.saga, 10, _saga),
    Case(app.long, 6, lambda number: Expected(COMPLETED, 2 * (number + 1)), is_stopped=True),
    Case(app.gated, 6, _gated, signal=app.APPROVAL, payload=YES, is_stopped=True),
    Case(app.listing, 6, _listing, is_stopped=True),
    Case(
        app.looping,
        6,
        lambda number: Expected(COMPLETED, number % 7),
        is_stopped=True,
        signal=app.NUDGE,
    ),
    Case(app.naming, 6, lambda number: Expected(COMPLETED, 3 * number + 1), is_stopped=True),
    Case(app.paged, 6, lambda number: Expected(COMPLETED, number + PAGES), is_stopped=True),
    Case(app.lively, 6, _done(0), is_stopped=True),
    Case(app.family, 6, _family, is_stopped=True),
    Case(app.storing, 6, lambda number: Expected(COMPLETED, 2 * number), is_stopped=True),
    Case(app.alone, 6, _done(0), sharing=Sharing.UNIQUE),
    Case(app.hushed, 6, _done(1), sharing=Sharing.DEBOUNCED),
    Case(app.returning, 1, lambda number: Expected(COMPLETED, app.MANY * number)),
    Case(app.wide, 0.2, lambda number: Expected(COMPLETED, app.WIDTH * (number + 1))),
)
HARSH = (
    Case(app.overrunning, 1, _done(0)),
    Case(app.poisonous, 0.5, lambda _: Expected(FAILED, error=POISON)),
    Case(app.misbehaving, 1, _misbehaving),
    Case(app.depending, 3, _done(0)),
)
SPECIAL = (
    Case(app.hungry, 1, lambda _: Expected(FAILED, error="MemoryError")),
    Case(app.kid, 1, _kid),  # nobody starts these but their parents
    Case(app.lister, 1, lambda number: Expected(COMPLETED, app.MANY * number)),
)
CASES = {case.flow.name: case for case in (*USUAL, *HARSH, *SPECIAL)}
# Nodes of a second and a half, so that there is always one to be killed, and others in between.
LONG = [replace(CASES["long"], is_stopped=False), CASES["fan"], CASES["saga"]]
STEADY = [CASES[name] for name in ("sequence", "fan", "branching", "saga")]  # no retries in them
