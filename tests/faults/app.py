"""The flows that faults are injected into. Every execution of a node writes to the oracle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import Any, cast

import msgspec

from resolute import (
    ConcurrencyLimit,
    CostEvent,
    DataRef,
    FlowBuilder,
    FlowEvent,
    FlowHooks,
    FlowState,
    NodeEvent,
    Page,
    PageRequest,
    Provider,
    RetryAfter,
    RetryPolicy,
    SharedRateLimit,
    StepEvent,
    TerminalError,
    manual,
    node,
    output,
    output_ref,
    paginate,
    schedule,
    webhook,
)
from resolute.model.nodes import Node
from tests.faults.oracle import FOLDER, Line, execution, write

QUEUE = "faults"
QUICK = RetryPolicy(initial_interval="100ms", maximum_interval="300ms", max_attempts=5)
ONCE = RetryPolicy(max_attempts=1)
ROOM, TABLE = 4, 2  # nodes of `crowded` at one time, and of those with the same key
KEYS = 3  # unique ones of `alone`,
SLOW = 1000  # and the number from which on it takes its time to be undone
RATE, BURST = 40, 10  # starts a second under the limit, and at once
CALLS = "calls"  # the unit of what a flaky node costs: one for each attempt
WIDTH = 600  # nodes of the wide flow: more than one page


class Work(msgspec.Struct):
    """The input of every flow: a number that decides what happens, and how long nodes take."""

    number: int = 0
    ms: int = 5


class Made(msgspec.Struct):
    """The output of every node: a value, and the mark of the execution that made it."""

    value: int
    mark: str


def outputs(found: Any) -> list[Made]:
    """What an input consists of: one output, or those of a parallel step by their keys."""
    match found:
        case Made():
            return [found]
        case {"number": int(number)}:
            return [Made(number, "")]
        case {"value": int(value), "mark": str(mark)}:
            return [Made(value, mark)]
        case dict():
            values = cast("dict[str, Any]", found).values()
            return [made for value in values for made in outputs(value)]
        case list():
            return [made for value in cast("list[Any]", found) for made in outputs(value)]
        case _:
            return []


def marks(found: Any) -> list[str]:
    return [made.mark for made in outputs(found) if made.mark]


def value_of(found: Any) -> int:
    return sum(made.value for made in outputs(found))


async def busy(ms: int) -> None:
    """What a node does: wait for something outside."""
    await asyncio.sleep(ms / 1000)  # in a node


def step(name: str, add: int = 1, **options: Any) -> Node[Any, Made]:
    """A coroutine that adds to what it gets."""

    async def run(found: Any) -> Made:
        with execution(marks(found)) as (_, mark):
            await busy(5)
            return Made(value_of(found) + add, mark)

    return Node(name, run, **options)


def threaded(name: str, add: int = 1, **options: Any) -> Node[Any, Made]:
    """A plain function, which runs in a thread."""

    def run(found: Any) -> Made:
        with execution(marks(found)) as (_, mark):
            time.sleep(0.005)  # in a node
            return Made(value_of(found) + add, mark)

    return Node(name, run, **options)


@node("begin")
async def begin(work: Work) -> Made:
    with execution() as (_, mark):
        await busy(work.ms)
        return Made(work.number, mark)


def flow(name: str) -> FlowBuilder[Work, Any]:
    return FlowBuilder(name, input=Work).triggered_by(manual("faults"))


sequence = flow("sequence").then(begin).then(threaded("second")).then(step("third")).build()

FAN = 8
fan = (
    flow("fan")
    .then(begin)
    .then_parallel(
        "spread", *(threaded(f"f{i}", i) if i % 3 == 0 else step(f"f{i}", i) for i in range(FAN))
    )
    .then(step("gather", 0))
    .build()
)

wide = (
    flow("wide")
    .then(begin)
    .then_parallel("all", *(step(f"w{i}", 1) for i in range(WIDTH)))
    .then(step("gather", 0))
    .build()
)


def _is_large(state: FlowState) -> bool:
    return state[begin].value > 50


def _is_huge(state: FlowState) -> bool:
    return state[begin].value > 75


def _of_begin(state: FlowState) -> Made:
    return state[begin]


branching = (
    flow("branching")
    .then(begin)
    .when(_is_large)
    .when(_is_huge)
    .then_parallel("huge", step("huge-a"), step("huge-b"))
    .otherwise(step("large", 3))
    .else_()
    .then(step("small", 4))
    .end_when()
    .then(step("last", 0))
    .build()
)


class Bulk(msgspec.Struct):
    """A `Made` that is too large for Redis, by this flow's limit."""

    value: int
    mark: str
    padding: bytes


def swelling(name: str, **options: Any) -> Node[Any, Bulk]:
    async def run(found: Any) -> Bulk:
        with execution(marks(found)) as (_, mark):
            await busy(5)
            return Bulk(value_of(found), mark, bytes(1000))

    return Node(name, run, **options)


swell = swelling("swell")


def _is_swollen(state: FlowState) -> bool:
    return len(state[swell].padding) == 1000


@node("fetched", retry=QUICK)
async def fetched(ref: DataRef[Made]) -> Made:
    """By reference, what is small enough to be in Redis."""
    found = await ref.load()
    with execution([found.mark]) as (_, mark):
        return Made(found.value, mark)


storing = (
    flow("storing")
    .with_max_payload(300)
    .then(begin)
    .then(fetched.with_input(output_ref("begin")))
    .then(swell)
    .when(_is_swollen)
    .then_parallel("bulks", swelling("left").with_input(_of_begin), step("right", 0))
    .end_when()
    .then(step("last", 0))
    .build()
)


@node("flaky", retry=QUICK)
async def flaky(found: Made) -> Made:
    """Fails in as many attempts as the number says, up to three."""
    with execution([found.mark]) as (here, mark):
        await busy(5)
        here.add_cost(1, CALLS)
        if here.attempt <= found.value % 4:
            raise ConnectionError(f"attempt {here.attempt}")
        return Made(found.value, mark)


def bad_hook(event: NodeEvent | CostEvent) -> None:
    """Hooks must harm nothing, whatever they do."""
    if event.seq == 3:
        raise SystemExit("a hook ends the process")
    raise RuntimeError("a hook fails")


retrying = (
    flow("retrying")
    .with_hooks(FlowHooks(bad_hook, bad_hook, bad_hook))
    .then(begin.with_cursor("last", "value"))
    .then(flaky)
    .then(step("last", 0))
    .build()
)

limit = SharedRateLimit("faults", RATE, "1s", burst=BURST)


@node("limited", rate_limit=limit)
async def limited(found: Made) -> Made:
    with execution([found.mark]) as (_, mark):
        return Made(found.value, mark)


throttled = flow("throttled").then(begin).then(limited).build()


def table_of(found: Made) -> str:
    return f"table-{found.value % 3}"


SEATS = (ConcurrencyLimit("table", TABLE, key=table_of), ConcurrencyLimit("room", ROOM))


def seated(name: str) -> Node[Made, Made]:
    @node(f"seated-{name}", retry=QUICK, concurrency=SEATS)
    async def sit(found: Made) -> Made:
        with execution([found.mark], table_of(found)) as (_, mark):
            await busy(20)
            return Made(found.value, mark)

    return sit


@node("seated-threaded", retry=QUICK, concurrency=SEATS)
def seated_in_a_thread(found: Made) -> Made:
    """Fails at its first attempt now and then."""
    with execution([found.mark], table_of(found)) as (here, mark):
        time.sleep(0.02)  # in a node
        if here.attempt == 1 and found.value % 5 == 0:
            raise ConnectionError("not yet")
        return Made(found.value, mark)


crowded = (
    flow("crowded")
    .then(begin)
    .then_parallel("seats", seated("a"), seated("b"), seated_in_a_thread)
    .then(step("gather", 0))
    .build()
)


@node("ranked-flaky", retry=QUICK, priority="high")
async def ranked_flaky(found: Made) -> Made:
    """Fails at its first attempt now and then."""
    with execution([found.mark]) as (here, mark):
        await busy(5)
        if here.attempt == 1 and found.value % 3 == 0:
            raise ConnectionError("not yet")
        return Made(found.value, mark)


ranked = (
    flow("ranked")
    .then(begin)
    .then_parallel(
        "ranks", ranked_flaky, step("ranked-low", 0, priority="low"), threaded("ranked-plain", 0)
    )
    .then_each("ranked-all", step("ranked-one", 0, priority="high"), max_concurrency=2,
               items=lambda state: [state[begin]] * 3)
    .then(step("ranked-last", 0, priority="normal"))
    .build()
)  # fmt: skip


def key_of(number: int) -> str:
    """The unique key of a run of `alone` with this number; a slow one's is all its own."""
    return str(number % KEYS if number < SLOW else number)


@node("alone")
async def alone_with_key(found: Made) -> Made:
    """Runs of one key are never here at one time."""
    with execution([found.mark], f"key {key_of(found.value)}") as (_, mark):
        await busy(20 if found.value < SLOW else 1000)
        return Made(found.value, mark)


@node("undo-alone")
async def undo_alone(found: Made) -> Made:
    """Who replaces a slow one has to wait for that for longer than a lease."""
    with execution([found.mark]) as (_, mark):
        await busy(5 if found.value < SLOW else 8000)
        return Made(found.value, mark)


alone = (
    flow("alone")
    .then(begin.on_error(undo_alone))
    .then(alone_with_key)
    .then(step("left", 0))
    .build()
)
hushed = flow("hushed").then(begin).then(step("second")).build()


@node("optional", retry=ONCE)
async def optional(found: Made) -> Made:
    with execution([found.mark]):
        raise ConnectionError("the optional source is down")


def _sure(state: FlowState) -> dict[str, Any]:
    """Reads every kind of thing that a state has."""
    error = state.error(optional)
    assert error is not None, "the optional source failed"
    assert state.input(Work).number == state[begin].value
    found = set(state.keys())
    return {key: state.get(key, Made) for key in found & {"sure"}}


best_effort = (
    flow("best-effort")
    .then(begin)
    .then_parallel("sources", step("sure"), optional.best_effort())
    .then(step("gather", 0).with_input(_sure))
    .build()
)


@node("pushed-back", rate_limit="1000/1s", retry=QUICK)
async def pushed_back(found: Made) -> Made:
    """The API asks for a pause, once by an error, and now and then by an answer."""
    with execution([found.mark]) as (here, mark):
        if here.attempt == 1:
            raise RetryAfter(0.2)
        if found.value % 3 == 0:
            here.pause_limits(0.05)
        return Made(found.value, mark)


pausing = flow("pausing").then(begin).then(pushed_back).build()


def undoable(name: str) -> Node[Any, Made]:
    return step(name).on_error(step(f"undo-{name}"))


@node("charge", retry=ONCE)
async def charge(found: dict[str, Any]) -> Made:
    """Declines every third number."""
    with execution(marks(found)) as (_, mark):
        value = value_of(found)
        if value % 3 == 0:
            raise TerminalError("declined")
        return Made(value, mark)


def tell(event: FlowEvent | StepEvent) -> None:
    """The oracle is told, too; and what a hook raises then harms nothing."""
    step = event.step if isinstance(event, StepEvent) else ""
    write(Line("told", event.run_id, step, note=event.status))
    raise RuntimeError("a hook fails")


TOLD = FlowHooks(before_flow=tell, after_flow=tell, after_step=tell)

saga = (
    flow("saga")
    .with_hooks(TOLD)
    .then(begin.on_error(step("undo-begin")))
    .then(undoable("flight"))
    .then_parallel("rest", undoable("hotel"), undoable("car"))
    .then(charge)
    .then(step("mail", 0))
    .build()
)


def slow(name: str) -> Node[Any, Made]:
    async def run(found: Made) -> Made:
        with execution([found.mark]) as (_, mark):
            await busy(1500)
            return Made(found.value, mark)

    return Node(name, run)


long = (
    flow("long")
    .then(undoable("first").with_input(lambda s: s.input(Work)))
    .then_parallel("wait", *(slow(f"slow-{i}").on_error(step(f"undo-slow-{i}")) for i in range(2)))
    .then(step("last", 0))
    .build()
)


CATASTROPHE = re.compile(r"(x+x+)+y")  # on many x it tries every way to part them


@node("hangs", timeout="400ms", retry=QUICK)
async def hangs(found: Made) -> Made:
    """Overruns in its first attempt: politely, with the loop blocked, with the GIL, or stubbornly.

    An odd number takes its process with it.
    """
    with execution([found.mark]) as (here, mark):
        if here.attempt == 1:
            match found.value % 6:
                case 1:
                    time.sleep(60)  # noqa: ASYNC251 - in a node
                case 3:
                    CATASTROPHE.match("x" * 64)
                case 5:
                    while True:
                        with contextlib.suppress(asyncio.CancelledError):
                            await asyncio.sleep(60)  # in a node
                case _:
                    await asyncio.sleep(60)  # in a node
        return Made(found.value, mark)


overrunning = flow("overrunning").then(begin).then(hangs).build()


@node("killer")
async def killer(found: Made) -> Made:
    """Takes its process with it, each time: as the kernel does for want of memory, or by itself."""
    with execution([found.mark]):
        match found.value % 3:
            case 0:
                os.kill(os.getpid(), signal.SIGKILL)
            case 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            case _:
                os._exit(0)
        raise AssertionError("still alive")


poisonous = flow("poisonous").then(begin).then(killer).build()


class Unspeakable(Exception):
    """An exception that cannot even be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


def _broken_input(state: FlowState) -> Made:
    """An input function that ends the program, for some numbers."""
    found = state[begin]
    if found.value % len(ILL_BEHAVED) == 7:
        raise SystemExit(4)
    return found


# What becomes of a node that does what a worker must live through, by number.
ILL_BEHAVED = (
    "SystemExit", "KeyboardInterrupt", "NotEncodable", "PayloadTooLarge", "Unspeakable",
    "ValueError", "NotEncodable", "SystemExit",
)  # fmt: skip


@node("ill-behaved", retry=ONCE)
async def ill_behaved(found: Made) -> Any:
    """What a worker must live through, by number."""
    with execution([found.mark]):
        match found.value % len(ILL_BEHAVED):
            case 0:
                raise SystemExit(3)
            case 1:
                raise KeyboardInterrupt
            case 2:
                return {"inner": [1, object()]}
            case 3:
                return b"x" * 100_000_000
            case 4:
                raise Unspeakable
            case 5:
                raise ValueError("x" * 100_000_000)
            case _:
                looped: list[Any] = []
                looped.append(looped)
                return looped


misbehaving = flow("misbehaving").then(begin).then(ill_behaved.with_input(_broken_input)).build()


@node("greedy", retry=ONCE)
async def greedy(found: Made) -> Made:
    """Takes all the memory that its process may have."""
    with execution([found.mark]) as (_, mark):
        taken: list[bytearray] = []
        while len(taken) < GREED:
            taken.append(bytearray(2**20))
        return Made(found.value, mark)


GREED = 1_000  # MB
hungry = flow("hungry").then(begin).then(greedy).build()

DOWN = "down"  # a file in the oracle's folder while the dependency is down


def is_down() -> bool:
    return (Path(os.environ[FOLDER]) / DOWN).exists()


@node("dependent", retry=RetryPolicy(initial_interval="100ms", maximum_interval="1s",
                                     max_attempts=1000))  # fmt: skip
async def dependent(found: Made) -> Made:
    """Calls something that may be down."""
    with execution([found.mark]) as (_, mark):
        if is_down():
            raise ConnectionError("the dependency is down")
        return Made(found.value, mark)


depending = flow("depending").then(begin).then(dependent).build()


@node("ticked")
async def ticked(work: Work) -> Made:
    with execution() as (_, mark):
        return Made(work.number, mark)


every_second = (
    FlowBuilder("every-second", input=Work)
    .triggered_by(schedule("* * * * * *", input=Work(7)))
    .on_queue(QUEUE)
    .then(ticked)
    .build()
)

APPROVAL = "approval"  # the signal that passes the gate of `gated`
LATE = 80  # from this number on, nobody decides

gated = (
    flow("gated")
    .with_hooks(FlowHooks(after_flow=tell, before_step=tell))
    .then(begin.on_error(step("undo-begin")))
    .then_sleep_until(lambda state: state[begin].value / 200)
    .when(lambda state: state.input(Work).number < LATE)
    .then_gate("decide", signal=APPROVAL)
    .else_()
    .then_gate("nobody", timeout="300ms")
    .end_when()
    .then_sleep("200ms")
    .then(step("done").with_input(lambda state: state[begin]))
    .with_query("known", lambda state: state.keys())
    .with_deadline("1h")
    .build()
)

ITEMS = 9
REPEATED = (
    "item",
    "undo-item",
    "turned",
    "going-round",
    "ranked-one",
    "every-one",
)  # nodes that run more than once in a run, each time at another place


@node("item", retry=QUICK)
async def item(number: int) -> Made:
    """Fails at its first attempt now and then."""
    with execution() as (here, mark):
        if here.attempt == 1 and number % 5 == 0:
            raise ConnectionError("not yet")
        await busy(5)
        return Made(number, mark)


listing = (
    flow("listing")
    .then(begin)
    .then_each(
        "items",
        item.on_error(step("undo-item")),
        items=lambda state: range(state[begin].value, state[begin].value + ITEMS),
        max_concurrency=4,
    )
    .then(step("gathered", 0))
    .build()
)


class Turns(msgspec.Struct):
    """A loop's state."""

    left: int
    done: int = 0
    nudges: int = 0


NUDGE = "nudge"  # a signal that a turn of `looping` takes, if it comes in time; once


def _turned(state: FlowState, turns: Turns) -> Turns:
    nudges = turns.nudges + len(state.signals(NUDGE, type(None)))
    return Turns(turns.left - 1, state[turned].value, nudges)


def _looped(state: FlowState) -> Made:
    turns = state.get("loop", Turns)
    assert turns.nudges + len(state.signals(NUDGE, type(None))) <= 1, "a signal was seen twice"
    return Made(turns.done, "")


@node("turned")
async def turned(turns: Turns) -> Made:
    with execution() as (_, mark):
        await busy(5)
        return Made(turns.done + 1, mark)


@node("going-round")
async def going_round(number: int) -> Made:
    with execution() as (_, mark):
        return Made(number, mark)


def _round(state: FlowState) -> range:
    return range(ITEMS if state.get("loop", Turns).left % 3 == 1 else 0)


looping = (
    flow("looping")
    .then_loop(
        "loop",
        # More than a transition forgets by itself of a list.
        body=lambda turn: turn.then(turned).then_each("round", going_round, items=_round),
        state=Turns,
        initial=lambda state: Turns(state.input(Work).number % 7),
        while_=lambda turns: turns.left > 0,
        after=_turned,
    )
    .then(step("looped", 0).with_input(_looped))
    .with_signal(NUDGE, type(None))
    .build()
)

PAGES = 4


async def fetch(found: Made, page: PageRequest) -> Page[Made]:
    """A page of one item. Their sum says whether each came once: each is worth four times more."""
    with execution([found.mark]) as (here, mark):
        if here.attempt == 1 and (found.value + page.number) % 4 == 1:
            raise ConnectionError("not yet")
        await busy(5)
        value = 4**page.number + (found.value if page.number == 0 else 0)
        return Page([Made(value, mark)], str(page.number) if page.number + 1 < PAGES else None)


paged = (
    flow("paged")
    .then(begin.on_error(step("undo-begin")))
    .then(paginate("pages", fetch, retry=QUICK))
    .then(step("collected", 0))
    .build()
)

TOLD_STEPS = 6


@node("beating", heartbeat="2s", retry=QUICK)
async def beating(found: Made) -> Made:
    """Goes on from where the attempt before it had come; the first one fails or hangs half-way."""
    with execution([found.mark]) as (here, mark):
        done = here.progress(int)
        assert done is None or 0 < done <= TOLD_STEPS, "progress that nobody told"
        for number in range(done or 0, TOLD_STEPS):
            here.heartbeat(number + 1)
            await busy(10)
            if here.attempt == 1 and number == found.value % TOLD_STEPS:
                if found.value % 5 == 0:
                    await busy(60_000)
                raise ConnectionError("half-way")
        return Made(found.value, mark)


lively = flow("lively").then(begin.on_error(step("undo-begin"))).then(beating).build()

UNLUCKY = 5  # a number that it divides is that of a child that fails
KIDS = 3


@node("luck", retry=ONCE)
async def luck(found: Made) -> Made:
    with execution([found.mark]) as (_, mark):
        await busy(20)
        if found.value % UNLUCKY == 0:
            raise TerminalError("unlucky")
        return Made(found.value, mark)


LAZY = 9  # a number that it divides is that of a child that takes longer than a lease

kid = (
    flow("kid")
    .then(begin.on_error(step("undo-begin")))
    .when(lambda state: state[begin].value % LAZY == 0)
    .then_sleep("4s")
    .end_when()
    .then(luck)
    .build()
)


def _kids(state: FlowState) -> list[Work]:
    first = state[begin].value
    return [Work(first + number, 5) for number in range(KIDS)]


family = (
    flow("family")
    .then(begin.on_error(step("undo-begin")))
    .then_children("kids", flow=kid, inputs=_kids, max_concurrency=2)
    .then(step("gathered", 0))
    .build()
)


MANY = 101  # so many items that no script puts them together

lister = (
    flow("lister")
    .then(begin)
    .then_each("every", step("every-one", 0), items=lambda state: [state[begin]] * MANY)
    .build()
)
returning = (
    flow("returning")
    .then(begin)
    .then_children("lists", flow=lister, inputs=lambda state: [Work(state[begin].value, 1)])
    .then(step("added", 0))
    .build()
)


@node("flaky")
async def flaky_sum(found: list[Made]) -> Made:
    """Of another team, and run by name; fails at its first attempt now and then."""
    with execution(marks(found)) as (here, mark):
        if here.attempt == 1 and value_of(found) % 5 == 0:
            raise ConnectionError("not yet")
        await busy(5)
        return Made(value_of(found), mark)


def always_ill() -> None:
    """A health check of which each process has something to tell, and that tries to end it."""
    raise SystemExit("ill on purpose")


provider = Provider(
    "sums", "1", [flaky_sum, threaded("plain"), step("undo", 0)], timeout="10s", health=always_ill
)


def named(name: str) -> Node[Any, Made]:
    return Node.named(f"sums.{name}", returns=Made).with_retry(QUICK)


naming = (
    flow("naming")
    .then(begin.on_error(named("undo")))
    .then_parallel(
        "sums",
        named("flaky").with_input([output("begin"), output("begin")]).on_error(step("undo-flaky")),
        named("plain"),
    )
    .then(step("last", 0).with_input([output("sums.flaky"), output("sums.plain")]))
    .build()
)

delivered = (
    FlowBuilder("delivered", input=Work)
    .triggered_by(webhook("/faults", secret="env:HOOK_SECRET"))
    .then(begin)
    .build()
)
