from __future__ import annotations

from typing import Any

import pytest

from resolute.client.retrying import TOLD, plan_retry
from resolute.model.flow import Flow
from resolute.model.hooks import FlowHooks
from resolute.model.nodes import Node
from resolute.status import RunStatus
from resolute.store import runs
from resolute.store.keys import Partition
from tests.support.flows import always, builder, chain, chain_of, fan, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NO_UNDO_INPUT, Stage

FLOW = chain("a", "b", "c")


async def failed_at(stage: Stage, count: int) -> None:
    """A run of FLOW whose node after the first `count` failed."""
    await stage.begin_run(FLOW, data=b"\x09")
    for number in range(count):
        await stage.complete("worker", await stage.claim_one("worker"), bytes([number]))
        await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    assert await stage.status() == "failed"


async def retry(
    stage: Stage, source: str = "run", *, target: str = "run/~1", flow: Flow[Any, Any] = FLOW
) -> str:
    """The code of retry_flow, with what the client sends."""
    header = await stage.header(source)
    fields = {name: v for name, v in (await stage.hash(source)).items() if name.startswith(TOLD)}
    found, most = plan_retry(header, flow.plan, fields), flow.plan.deadline_ms
    return await runs.retry(stage.store, header, target, found.drop, found.fields, most)


async def test_a_retried_run_goes_on_before_the_step_that_failed(stage: Stage):
    await failed_at(stage, 2)
    assert await retry(stage) == "OK"
    header = await stage.header("run/~1")
    assert (header.status, header.retry_of) == (RunStatus.RUNNING, "run")
    assert (header.error, header.ended) == (None, None)
    found = await stage.hash("run/~1")
    assert (found["o:a"], found["o:b"], found["input"]) == (b"\x00", b"\x01", b"\x09")
    assert "x:c" not in found
    await stage.coordinate()
    held = await stage.claim_one("worker")
    assert (stage.node(held).name, held.entry.flow, held.entry.attempt) == ("c", "run/~1", 1)
    await stage.complete("worker", held)
    await stage.coordinate()
    assert await stage.status("run/~1") == "completed"


async def test_a_run_that_failed_in_its_first_step_is_retried_from_the_beginning(stage: Stage):
    await failed_at(stage, 0)
    assert await retry(stage) == "OK"
    assert await stage.work() == 3
    assert await stage.status("run/~1") == "completed"


async def test_what_was_compensated_is_run_again(stage: Stage):
    flow = chain_of(step("a"), undoable("b"), step("c"))
    await stage.begin_run(flow)
    await stage.complete("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    assert await stage.work() == 1
    assert await retry(stage, flow=flow) == "OK"
    found = await stage.hash("run/~1")
    assert "o:a" in found
    assert not {name for name in found if name in ("o:b", "u:1", "ui:1", "uo:1", "undoing")}
    assert await stage.work() == 2
    assert await stage.status("run/~1") == "completed"


def ignore(_: object) -> None: ...


async def test_that_the_hooks_were_told_of_the_end_repeats_nothing(stage: Stage):
    """It is the compensation of their having been told of the beginning; it will be told again."""
    hooked = builder("hooked").with_hooks(FlowHooks(after_flow=ignore))
    flow = hooked.then(step("a")).then(step("b")).build()
    await stage.begin_run(flow)
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    assert await stage.work() == 1
    assert await stage.status() == "failed"
    assert await retry(stage, flow=flow) == "OK"
    found = await stage.hash("run/~1")
    assert {"o:a", "u:1", "ui:1"} <= found.keys()
    assert not found.keys() & {"uo:1", "undoing", "x:b"}
    await stage.coordinate()
    held = await stage.claim_one("worker")
    assert (stage.node(held).name, held.entry.flow) == ("b", "run/~1")
    await stage.fail("worker", held)
    assert await stage.work() == 1
    assert await stage.status("run/~1") == "failed"
    assert "uo:1" in await stage.hash("run/~1")


async def test_what_can_be_compensated_before_the_failed_step_still_can_be(stage: Stage):
    """A run terminated before its compensations is retried, and then fails and is compensated."""
    flow = chain_of(undoable("a"), step("b"))
    await stage.begin_run(flow)
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    assert await retry(stage, flow=flow) == "OK"
    await stage.coordinate()
    (held,) = [h for h in await stage.take("worker") if h.entry.flow == "run/~1"]
    await stage.begin("worker", held)
    await stage.fail("worker", held)
    await stage.coordinate()
    undo = await stage.claim_one("worker")
    assert (stage.node(undo).name, undo.entry.undo) == ("undo-a", 1)
    begun = await stage.begin("worker", undo, ["ui:1"])
    assert begun.values == [NO_UNDO_INPUT]


async def test_retrying_twice_under_one_number_is_retrying_once(stage: Stage):
    await failed_at(stage, 1)
    assert await retry(stage) == "OK"
    before = await snapshot(stage.store)
    assert await retry(stage) == "EXISTS"
    assert await snapshot(stage.store) == before
    assert await retry(stage, target="run/~2") == "OK"


async def test_the_run_that_is_retried_stays_as_it_ended(stage: Stage):
    await failed_at(stage, 1)
    before = await stage.hash()
    await retry(stage)
    await stage.work()
    assert await stage.hash() == before


async def test_a_run_that_has_not_ended_is_not_retried(stage: Stage):
    await stage.begin_run(FLOW)
    header = await stage.header()
    before = await snapshot(stage.store)
    assert await runs.retry(stage.store, header, "run/~1", [], ["seq", 0]) == "CONFLICT"
    assert await snapshot(stage.store) == before


async def test_a_run_that_is_gone_is_not_retried(stage: Stage):
    await failed_at(stage, 1)
    header = await stage.header()
    await stage.store.execute("DEL", stage.of("run").flow("run"))
    assert await runs.retry(stage.store, header, "run/~1", [], ["seq", 0]) == "GONE"
    assert await stage.hash("run/~1") == {}


async def test_a_retried_run_is_open_has_no_end_and_lives_in_the_same_partition(stage: Stage):
    await failed_at(stage, 1)
    await retry(stage)
    partition: Partition = stage.of("run/~1")
    assert partition is stage.of("run")
    assert await stage.store.execute("PTTL", partition.flow("run/~1")) == -1
    for index in (partition.open, partition.open_of("chain")):
        assert await stage.store.execute("ZSCORE", index, "run/~1") is not None


async def test_a_wide_run_is_retried_without_thousands_of_its_outputs(stage: Stage):
    """More hash fields to drop than one command takes."""
    flow = fan(1200)
    await stage.offer(flow)
    await stage.start(flow)
    await stage.coordinate()
    claimed = await stage.claim("worker")
    claimed += await stage.claim("worker")
    assert len(claimed) == 1200
    for held in claimed[1:]:
        await stage.complete("worker", held)
    await stage.fail("worker", claimed[0])
    await stage.coordinate()
    assert await retry(stage, flow=flow) == "OK"
    kept = await stage.hash("run/~1")
    assert not {name for name in kept if name[:2] in ("o:", "n:", "x:", "s:")}


async def test_a_run_that_is_there_is_not_written_over(stage: Stage):
    """However it came there: only a retry gives out such an id, but it may be of another time."""
    await failed_at(stage, 1)
    target = stage.of("run").flow("run/~1")
    await stage.store.execute("HSET", target, "status", "running")
    before = await snapshot(stage.store)
    assert await retry(stage) == "EXISTS"
    assert await snapshot(stage.store) == before
    await stage.store.execute("DEL", target)


async def test_a_retried_run_has_its_deadline_anew(stage: Stage):
    flow = builder("limited").with_deadline("1h").then(step("a")).build()
    await stage.begin_run(flow)
    await stage.make_due(stage.of("run"))
    assert await stage.release(stage.of("run")) == ["OK"]
    assert await stage.work() == 0
    assert await stage.status() == "failed"
    assert await retry(stage, flow=flow) == "OK"
    header = await stage.header("run/~1")
    assert header.deadline is not None
    assert header.deadline == header.started + 3600
    assert not header.overran
    await stage.coordinate()
    await stage.make_due(stage.of("run"))
    assert await stage.release(stage.of("run")) == ["OK"]
    assert await stage.work() == 0
    again = await stage.header("run/~1")
    assert (again.status, again.error and again.error.type) == ("failed", "DeadlineExceeded")


def looping(body: Node[Any, Any]) -> Flow[Any, Any]:
    made = (
        builder("looping")
        .then(step("before"))
        .then_loop(
            "turns",
            body=body,
            state=int,
            initial=0,
            while_=lambda _: True,
            after=lambda _, turn: turn + 1,
        )
    )
    return made.build()


async def let(stage: Stage, *names: str, undo: bytes | None = None) -> None:
    """Let these nodes complete, one after the other; each output is how many did before it."""
    for number, name in enumerate(names):
        held = await stage.claim_one("worker")
        node = stage.node(held)
        assert node.name == name
        output = b"\xc3" if name.endswith(".while") else bytes([number])
        snapshot_input = undo if node.compensation else None
        assert await stage.complete("worker", held, output, undo=snapshot_input, arg="1") == "OK"
        await stage.coordinate()


TURN = ("turns.while", "body", "turns.after")


async def test_a_turn_that_failed_is_retried_with_the_state_of_the_turn_before(stage: Stage):
    flow = looping(step("body"))
    await stage.begin_run(flow)
    await let(stage, "before", "turns.begin", *TURN, "turns.while", "body")
    await stage.fail("worker", await stage.claim_one("worker"))  # turns.after
    await stage.coordinate()
    assert await retry(stage, flow=flow) == "OK"
    await stage.coordinate()
    found = await stage.hash("run/~1")
    assert found["o:turns"] == b"\x04"  # of the turn before, which is what it reads
    await let(stage, "turns.after", "turns.while")


async def test_a_turn_that_was_over_when_its_run_was_stopped_is_not_repeated(stage: Stage):
    """The state it read is gone: what it made of it is in its place."""
    flow = looping(step("body"))
    await stage.begin_run(flow)
    await let(stage, "before", "turns.begin", "turns.while", "body")
    held = await stage.claim_one("worker")
    assert await stage.complete("worker", held, b"\x07") == "OK"  # turns.after
    await stage.stop("run")
    await stage.coordinate()
    assert await stage.status() == "cancelled"
    assert await retry(stage, flow=flow) == "OK"
    await stage.coordinate()
    assert (await stage.hash("run/~1"))["o:turns"] == b"\x07"
    await let(stage, "turns.while", "body")


async def test_a_step_is_repeated_unless_each_of_its_nodes_is_done(stage: Stage):
    """Those of an `each`, whose number only the run knows; best effort is done when it failed."""
    flow = (
        builder("listing")
        .then_each("each", step("one"), items=lambda _: [1, 2], on_item_error="continue")
        .then(step("last"))
        .build()
    )
    for run, done in (("half", False), ("whole", True)):
        await stage.begin_run(flow, run)
        held = await stage.claim_one("worker")
        assert await stage.store_items("worker", held, [b"\x01", b"\x02"]) == "OK"
        assert await stage.complete("worker", held, b"\x02", arg="2") == "OK"
        await stage.coordinate()
        one, two = await stage.take("worker")
        assert (await stage.begin("worker", two)).code == "OK"
        assert await stage.fail("worker", two, best_effort=True) == "OK"
        if done:
            assert (await stage.begin("worker", one)).code == "OK"
            assert await stage.complete("worker", one, b"\x01") == "OK"
        await stage.stop(run)
        await stage.coordinate()
        assert await stage.status(run) == "cancelled"
        assert await retry(stage, run, target=f"{run}/~1", flow=flow) == "OK"
        await stage.coordinate()
        again = await stage.claim("worker")
        assert [stage.node(held).name for held in again] == (["last"] if done else ["one", "one"])


async def test_a_loop_in_which_a_turn_was_compensated_begins_anew(stage: Stage):
    flow = looping(undoable("body"))
    await stage.begin_run(flow)
    await let(stage, "before", "turns.begin", *TURN, *TURN, "turns.while", undo=NO_UNDO_INPUT)
    await stage.fail("worker", await stage.claim_one("worker"))  # body
    assert await stage.work() == 2
    assert await stage.status() == "failed"
    assert await retry(stage, flow=flow) == "OK"
    await stage.coordinate()
    found = await stage.hash("run/~1")
    assert "o:before" in found
    assert not {"o:turns", "o:body"} & found.keys()
    await let(stage, "turns.begin", *TURN, undo=NO_UNDO_INPUT)
    assert (await stage.hash("run/~1"))["t:2"] == b"2"


@pytest.mark.parametrize("is_undone", [False, True], ids=["failed", "compensated"])
async def test_an_empty_list_stays_the_default_input_of_what_comes_after_it(
    stage: Stage, is_undone: bool
):
    """It is passed over, so that no step says that it was there."""
    flow = (
        builder("emptied")
        .then(step("a"))
        .then_each("each", step("one"), items=lambda _: [])
        .when(always)
        .then(undoable("b") if is_undone else step("b"))
        .then(step("c").with_input(1))
        .end_when()
        .build()
    )
    await stage.begin_run(flow)
    for name, arg in (("a", ""), ("each.items", "0"), ("when.1", "1")):
        held = await stage.claim_one("worker")
        assert stage.node(held).name == name
        assert await stage.complete("worker", held, b"\xc3", arg=arg) == "OK"
        await stage.coordinate()
    held = await stage.claim_one("worker")  # b
    if is_undone:
        assert await stage.complete("worker", held, undo=NO_UNDO_INPUT) == "OK"
        await stage.coordinate()
        held = await stage.claim_one("worker")  # c
    await stage.fail("worker", held)
    assert await stage.work() == int(is_undone)
    assert await stage.status() == "failed"
    assert await retry(stage, flow=flow) == "OK"
    await stage.coordinate()
    assert stage.node(await stage.claim_one("worker")).name == "b"
    previous = (await stage.header("run/~1")).previous
    assert previous is not None
    assert flow.plan.step(previous).step == "each"


@pytest.mark.parametrize("turns", [0, 2])
async def test_a_head_of_a_loop_that_failed_is_asked_again_for_the_same_turn(
    stage: Stage, turns: int
):
    flow = looping(step("body"))
    await stage.begin_run(flow)
    await let(stage, "before", "turns.begin", *TURN * turns)
    held = await stage.claim_one("worker")  # turns.while
    await stage.fail("worker", held)
    await stage.coordinate()
    before = await stage.hash()
    assert await retry(stage, flow=flow) == "OK"
    await stage.coordinate()
    again = await stage.hash("run/~1")
    told = ("t:2", "l:2", "o:turns", "prev", f"s:{held.entry.seq - 1}")
    assert [again.get(name) for name in told] == [before.get(name) for name in told]
    assert int(again["t:2"]) == turns + 1
    asked = await stage.claim_one("worker")
    assert (asked.entry.seq, asked.entry.pc) == (held.entry.seq, held.entry.pc)
    assert await stage.complete("worker", asked, b"\xc3", arg="1") == "OK"
    await stage.coordinate()
    await let(stage, "body", "turns.after", "turns.while")
    assert int((await stage.hash("run/~1"))["t:2"]) == turns + 2


async def test_a_retry_that_was_stopped_before_it_asked_the_head_is_retried_as_the_first(
    stage: Stage,
):
    flow = looping(step("body"))
    await stage.begin_run(flow)
    await let(stage, "before", "turns.begin", *TURN * 2)
    held = await stage.claim_one("worker")  # turns.while
    await stage.fail("worker", held)
    await stage.coordinate()
    assert await retry(stage, flow=flow) == "OK"
    await stage.stop("run/~1")
    await stage.coordinate()
    assert await stage.status("run/~1") == "cancelled"
    assert await retry(stage, "run/~1", target="run/~2", flow=flow) == "OK"
    await stage.coordinate()
    asked = await stage.claim_one("worker")
    assert (stage.node(asked).name, asked.entry.seq) == ("turns.while", held.entry.seq)
    assert (await stage.hash("run/~2"))["t:2"] == b"3"


def noticing(body: Node[Any, Any]) -> Flow[Any, Any]:
    made = builder("noticing").with_signal("number", int).then(step("before"))
    return made.then_loop(
        "turns",
        body=body,
        state=int,
        initial=0,
        while_=lambda _: True,
        after=lambda _, turn: turn + 1,
    ).build()


@pytest.mark.parametrize("is_undone", [False, True], ids=["failed", "compensated"])
async def test_the_signals_of_a_turn_are_those_of_its_retry(stage: Stage, is_undone: bool):
    """They were taken, and acknowledged to who sent them: nobody sends them again."""
    flow = noticing(undoable("body"))
    await stage.begin_run(flow)
    for number in range(2):
        await stage.signal("number", bytes([number]), sender=str(number))
    await let(stage, "before", "turns.begin")
    if is_undone:
        await let(stage, "turns.while", "body", undo=NO_UNDO_INPUT)
    await stage.fail("worker", await stage.claim_one("worker"))
    assert await stage.work() == int(is_undone)
    assert await stage.status() == "failed"
    assert await retry(stage, flow=flow) == "OK"
    await stage.signal("number", b"\x02", sender="2", run_id="run/~1")
    await stage.coordinate()
    if is_undone:
        await let(stage, "turns.begin")
    found = await stage.hash("run/~1")
    assert found["d:2:number"] == (b"0|3" if is_undone else b"0|2")
    assert [found[f"sg:number:{number}"] for number in range(3)] == [b"\x00", b"\x01", b"\x02"]


async def test_the_window_of_a_list_is_not_that_of_what_a_retry_does_in_its_place(stage: Stage):
    """The number of the step is used again, by another arm: its nodes let none follow them."""
    flow = (
        builder("armed")
        .then(undoable("a"))
        .when(always)
        .then_each("each", step("one"), items=lambda _: range(9), max_concurrency=2)
        .else_()
        .then(step("b"))
        .then_parallel("fan", step("p0"), step("p1"), step("p2"))
        .end_when()
        .build()
    )
    await stage.begin_run(flow)
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"), b"\xc3", arg="1")
    await stage.coordinate()
    items = await stage.claim_one("worker")
    await stage.store_items("worker", items, [b"\x01"] * 9)
    await stage.complete("worker", items, arg="9")
    await stage.coordinate()
    one, two = await stage.claim("worker")
    await stage.fail("worker", one)
    await stage.complete("worker", two)
    assert await stage.work() == 1
    assert await stage.status() == "failed"
    assert await retry(stage, flow=flow) == "OK"
    assert not {"window", "width"} & (await stage.hash("run/~1")).keys()
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"), b"\xc2", arg="0")
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"))  # b
    await stage.coordinate()
    fan_out = await stage.claim("worker")
    assert [held.entry.seq for held in fan_out] == [one.entry.seq] * 3
    for held in fan_out:
        await stage.complete("worker", held)
        assert await stage.take("worker") == []
    await stage.coordinate()
    assert await stage.status("run/~1") == "completed"
