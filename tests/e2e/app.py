"""The flows that the end-to-end tests run. Every node writes down what it did, outside Redis."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec

from resolute import (
    CostEvent,
    FlowBuilder,
    FlowEvent,
    FlowHooks,
    FlowState,
    NodeEvent,
    RetryPolicy,
    SharedRateLimit,
    TerminalError,
    current,
    manual,
    node,
    schedule,
)
from resolute.model.nodes import Node

QUICK = RetryPolicy(initial_interval="50ms", max_attempts=3)
ONCE = RetryPolicy(max_attempts=1)


class Word(msgspec.Struct):
    """The input of most flows here: a name for files, and a number."""

    text: str
    number: int = 0


def folder() -> Path:
    return Path(os.environ["RESOLUTE_TEST_FOLDER"])


def note(what: str, *details: object) -> None:
    """Append a line to this process's file; a line this short is written whole."""
    line = " ".join(map(str, (what, *details, os.getpid(), time.monotonic())))
    descriptor = os.open(folder() / f"{os.getpid()}.log", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, line.encode() + b"\n")
    os.fsync(descriptor)
    os.close(descriptor)


async def opened(gate: str) -> None:
    """Wait inside a node until a test opens the gate."""
    while not (folder() / gate).exists():
        await asyncio.sleep(0.01)  # in a node


@node("first")
async def first(word: Word) -> Word:
    note("first", word.text)
    return word


@node("second")
def second(word: Word) -> Word:
    note("second", word.text)
    return Word(word.text, word.number + 1)


@node("held", timeout="1m")
async def held(word: Word) -> Word:
    """Runs until the test lets it go."""
    note("held", word.text)
    try:
        await opened(word.text)
    except asyncio.CancelledError:
        note("stopped", word.text)
        raise
    note("let-go", word.text)
    return word


@node("after")
async def after(word: Word) -> str:
    note("after", word.text)
    return f"{word.text}!"


hold = (
    FlowBuilder("hold", input=Word)
    .triggered_by(manual("test"))
    .then(first)
    .then(held)
    .then(after)
    .build()
)


@node("spends", timeout="1m")
async def spends(word: Word) -> str:
    """Spends in each execution, and runs on until the test lets it go."""
    current().add_cost("0.5", label=word.text)
    note("spends", word.text)
    await opened(word.text)
    return word.text


def before_node(event: NodeEvent) -> None:
    note("before-node", event.node, event.run_id, event.crashes)


async def after_node(event: NodeEvent) -> None:
    """Says so, and then waits for the test, so that it can kill this process before the commit."""
    note("after-node", event.node, event.run_id, event.crashes, event.status)
    await opened(f"{event.run_id}.after{event.crashes}")


def on_cost(event: CostEvent) -> None:
    note("cost", event.run_id, event.crashes, event.amount, event.unit)
    raise SystemExit("a hook harms nobody")


hooked = (
    FlowBuilder("hooked", input=Word)
    .triggered_by(manual("test"))
    .with_hooks(FlowHooks(before_node, after_node, on_cost))
    .then(spends)
    .build()
)


async def after_flow(event: FlowEvent) -> None:
    """Says so, and then waits for the test, so that it can kill this process."""
    error = event.error.type if event.error else "-"
    note("after-flow", event.run_id, event.status, error)
    await opened(f"{event.run_id}.told")


told = (
    FlowBuilder("told", input=Word)
    .triggered_by(manual("test"))
    .with_hooks(FlowHooks(after_flow=after_flow))
    .then(spends)
    .build()
)


def _slow(name: str) -> Node[Word, float]:
    async def sleep_three_seconds(word: Word) -> float:
        note("slow", name, word.text)
        await asyncio.sleep(3)  # in a node
        note("slow-end", name, word.text)
        return time.time()

    return Node(name, sleep_three_seconds)


three_seconds = (
    FlowBuilder("three-seconds", input=Word)
    .triggered_by(manual("test"))
    .then_parallel("all", _slow("a"), _slow("b"), _slow("c"))
    .build()
)


@node("limited", rate_limit=SharedRateLimit("e2e", 100, "1s", burst=20))
async def limited(word: Word) -> None:
    note("limited", word.text)


@node("unlimited")
async def unlimited(word: Word) -> None:
    note("unlimited", word.text)


throttled = FlowBuilder("throttled", input=Word).triggered_by(manual("test")).then(limited).build()
unthrottled = (
    FlowBuilder("unthrottled", input=Word).triggered_by(manual("test")).then(unlimited).build()
)


@node("flaky", retry=QUICK)
async def flaky(word: Word) -> int:
    """Fails until a file per attempt says that it was tried often enough."""
    tries = len(list(folder().glob(f"{word.text}.try*")))
    (folder() / f"{word.text}.try{tries}").touch()
    if tries < word.number:
        raise ConnectionError(f"try {tries}")
    return tries


retrying = FlowBuilder("retrying", input=Word).triggered_by(manual("test")).then(flaky).build()


@node("hang", timeout="300ms", retry=ONCE)
async def hang(word: Word) -> None:
    note("hang", word.text)
    await asyncio.sleep(3600)  # in a node


@node("stubborn", timeout="300ms", retry=ONCE)
async def stubborn(word: Word) -> None:
    """Ignores its cancellation."""
    note("stubborn", word.text)
    while True:
        try:
            await asyncio.sleep(3600)  # in a node
        except asyncio.CancelledError:
            note("ignored", word.text)


@node("blocking", timeout="300ms", retry=ONCE)
async def blocking(word: Word) -> None:
    """Blocks the loop of its process."""
    note("blocking", word.text)
    time.sleep(3600)  # noqa: ASYNC251 - in a node


@node("greedy", timeout="500ms", retry=ONCE)
async def greedy(word: Word) -> bool:
    """Holds the GIL: a regular expression that never ends."""
    note("greedy", word.text)
    return re.match(r"(a|aa)+$", "a" * 80 + "b") is not None


@node("thread", timeout="300ms", retry=ONCE)
def thread(word: Word) -> None:
    note("thread", word.text)
    time.sleep(3600)  # in a node


@node("killer")
async def killer(word: Word) -> None:
    """Takes its process with it, each time."""
    note("killer", word.text)
    os.kill(os.getpid(), signal.SIGKILL)


def _alone(name: str, only: Node[Word, Any]) -> Any:
    return FlowBuilder(name, input=Word).triggered_by(manual("test")).then(only).build()


hanging = _alone("hanging", hang)
ignoring = _alone("ignoring", stubborn)
blocked = _alone("blocked", blocking)
greedy_flow = _alone("greedy", greedy)
threaded = _alone("threaded", thread)
poisonous = _alone("poisonous", killer)


@node("exits", retry=ONCE)
async def exits(word: Word) -> None:
    raise SystemExit(3)


@node("interrupts", retry=ONCE)
def interrupts(word: Word) -> None:
    raise KeyboardInterrupt


@node("stops", retry=ONCE)
def stops(word: Word) -> int:
    return next(iter([]))


class Rude(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


@node("rude", retry=ONCE)
async def rude(word: Word) -> None:
    raise Rude


@node("opaque")
async def opaque(word: Word) -> dict[str, Any]:
    return {"fine": 1, "inner": [1, object()]}


@node("huge")
async def huge(word: Word) -> bytes:
    return b"x" * 100_000_000


@node("wrong-type")
async def wrong_type(word: Word) -> Annotated[int, msgspec.Meta(ge=0)]:
    return -1


@node("picky")
async def picky(number: Annotated[int, msgspec.Meta(ge=10)]) -> int:
    return number


def _raises(state: FlowState) -> bool:
    raise LookupError("the predicate cannot say")


def _bad_input(state: FlowState) -> Word:
    raise LookupError("the input cannot be made")


bad = {
    flow.name: flow
    for flow in (
        _alone("bad-exit", exits),
        _alone("bad-interrupt", interrupts),
        _alone("bad-error", rude),
        _alone("bad-stop", stops),
        _alone("bad-encode", opaque),
        _alone("bad-huge", huge),
        _alone("bad-output", wrong_type),
        _alone("bad-input-value", picky.with_input(lambda s: s.input(Word).number)),
        _alone("bad-input-function", first.with_retry(ONCE).with_input(_bad_input)),
        FlowBuilder("bad-predicate", input=Word)
        .triggered_by(manual("test"))
        .when(_raises)
        .then(first)
        .end_when()
        .build(),
    )
}
bad_exit, bad_interrupt, bad_error = bad["bad-exit"], bad["bad-interrupt"], bad["bad-error"]
bad_stop = bad["bad-stop"]
bad_encode, bad_huge, bad_output = bad["bad-encode"], bad["bad-huge"], bad["bad-output"]
bad_input_value = bad["bad-input-value"]
bad_input_function, bad_predicate = bad["bad-input-function"], bad["bad-predicate"]


@node("decline", retry=ONCE)
async def decline(word: Word) -> None:
    raise TerminalError("declined")


@node("undo-first")
async def undo_first(word: Word) -> None:
    note("undo-first", word.text)


@node("undo-held")
async def undo_held(word: Word) -> None:
    note("undo-held", word.text)


saga = (
    FlowBuilder("saga", input=Word)
    .triggered_by(manual("test"))
    .then(first.on_error(undo_first))
    .then(held.on_error(undo_held))
    .then(after)
    .build()
)


@node("optional", retry=ONCE)
async def optional(word: Word) -> int:
    raise ConnectionError("the optional source is down")


@node("gather")
async def gather(found: dict[str, Any]) -> list[str]:
    return sorted(found)


best_effort = (
    FlowBuilder("best-effort", input=Word)
    .triggered_by(manual("test"))
    .then_parallel("sources", first, optional.best_effort())
    .then(gather)
    .build()
)


@node("rush")
async def rush(word: Word) -> str:
    return "rush"


@node("normal")
async def normal(word: Word) -> str:
    return "normal"


@node("late")
async def late(word: Word) -> str:
    return "late"


branching = (
    FlowBuilder("branching", input=Word)
    .triggered_by(manual("test"))
    .then(first)
    .when(lambda s: s[first].number > 10)
    .then_parallel("rushing", rush, late)
    .else_()
    .when(lambda s: s[first].number > 5)
    .then(rush)
    .otherwise(normal)
    .end_when()
    .build()
)


@node("fails-once")
async def fails_until_mended(word: Word) -> str:
    note("attempted", word.text)
    if not (folder() / f"{word.text}.mended").exists():
        raise TerminalError("not yet")
    return "mended"


recoverable = (
    FlowBuilder("recoverable", input=Word)
    .triggered_by(manual("test"))
    .then(first.on_error(undo_first))
    .then(second)
    .then(fails_until_mended)
    .build()
)


@node("ticked")
async def ticked(word: Word) -> str:
    note("ticked", word.text)
    return word.text


every_second = (
    FlowBuilder("every-second", input=Word)
    .triggered_by(schedule("* * * * * *", timezone="Europe/Oslo", input=Word("tick")))
    .on_queue("e2e")
    .then(ticked)
    .build()
)

elsewhere = (
    FlowBuilder("elsewhere", input=Word)
    .triggered_by(manual("test"))
    .on_queue("e2e")
    .then(first)
    .then(after.on_queue("other"))
    .build()
)

wide = (
    FlowBuilder("wide", input=Word)
    .triggered_by(manual("test"))
    .then_parallel("wide", *(first.as_(f"w-{i}") for i in range(1200)))
    .then(gather)
    .build()
)


@node("asleep", timeout="1m")
def asleep(word: Word) -> None:
    """In a thread, which nothing can stop, until the test lets it go."""
    note("stuck", word.text)
    while not (folder() / word.text).exists():
        time.sleep(0.01)  # in a node


@node("numb", timeout="1m")
async def numb(word: Word) -> None:
    """Blocks the loop of its process until the test lets it go."""
    note("stuck", word.text)
    while not (folder() / word.text).exists():
        time.sleep(0.01)  # noqa: ASYNC251 - in a node


sleeping = _alone("sleeping", asleep)
numbed = _alone("numbed", numb)
