"""Nodes that say that they live, and how far they have come."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from resolute import FlowState, RetryPolicy, current
from resolute.engine.progress import TOLD
from resolute.model.flow import Flow
from resolute.model.nodes import AsyncNode, Node
from resolute.status import NodeStatus
from resolute.store.store import Store
from resolute_worker.aftermath import settle_killed
from resolute_worker.jobs import Stop
from tests.support.flows import chain_of
from tests.support.stage import QUEUE, Stage
from tests.support.system import until
from tests.worker.parts import NAME, ONCE, ONE, PATIENCE, Gate, Make, Parts

OFTEN = "50ms"
TWICE = RetryPolicy(max_attempts=2, initial_interval="1ms")


async def begun(stage: Stage, make_parts: Make, node: Node[Any, Any]) -> Parts:
    """A process that runs the first node of a run."""
    flow = chain_of(node)
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.read()
    return parts


async def again(stage: Stage, parts: Parts) -> None:
    """Let the retry of the node run to its end."""
    partition = stage.of("run")
    await stage.make_due(partition)
    assert await stage.release(partition) == ["OK"]
    await parts.work()


async def kept(stage: Stage) -> Any:
    data = (await stage.hash()).get("p:1.0")
    return None if data is None else msgspec.msgpack.decode(data.removeprefix(TOLD))


@ONE
async def test_a_silent_node_is_stopped_and_tried_again(stage: Stage, make_parts: Make):
    gate = Gate()

    async def silent(_: Any) -> str:
        if current().attempt == 1:
            await gate.open.wait()
        return "alive"

    parts = await begun(stage, make_parts, AsyncNode("a", silent, heartbeat=OFTEN, retry=TWICE))
    await parts.idle()
    assert b"HeartbeatTimeout" in (await stage.hash())["x:a"]
    await again(stage, parts)
    assert msgspec.msgpack.decode((await stage.hash())["o:a"]) == "alive"


@ONE
async def test_one_that_gives_signs_goes_on_for_many_times_as_long(stage: Stage, make_parts: Make):
    async def lively(_: Any) -> str:
        for _ in range(12):
            await asyncio.sleep(0.02)  # in a node
            current().heartbeat()
        return "alive"

    parts = await begun(stage, make_parts, AsyncNode("a", lively, heartbeat="80ms", retry=ONCE))
    await parts.idle()
    assert msgspec.msgpack.decode((await stage.hash())["o:a"]) == "alive"


@ONE
@pytest.mark.parametrize("threaded", [False, True])
async def test_what_a_failed_attempt_told_last_is_known_to_the_next_one(
    stage: Stage, make_parts: Make, threaded: bool
):
    found: list[int | None] = []

    def work(_: Any) -> str:
        found.append(current().progress(int))
        for number in range(3):
            current().heartbeat(len(found) * 10 + number)
        if len(found) == 1:
            raise ConnectionError("half-way")
        return "done"

    async def waiting(value: Any) -> str:
        return work(value)

    node = Node[Any, str]("a", work if threaded else waiting, retry=TWICE)
    parts = await begun(stage, make_parts, node)
    await parts.idle()
    assert await kept(stage) == 12
    await again(stage, parts)
    assert found == [None, 12]
    assert await kept(stage) is None
    assert "o:a" in await stage.hash()


@ONE
async def test_what_is_handed_back_takes_its_progress_along(stage: Stage, make_parts: Make):
    gate = Gate()

    async def held(value: Any) -> Any:
        current().heartbeat("first")  # is written at once, the second one not
        current().heartbeat({"at": 2})
        await gate(value)

    parts = await begun(stage, make_parts, AsyncNode("a", held))
    await gate.wait()
    parts.runner.stop_all(Stop.HAND_BACK)
    await parts.idle()
    assert await kept(stage) == {"at": 2}


@ONE
async def test_progress_is_not_written_each_time_that_it_is_told(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    written: list[bytes] = []
    call = Store.call

    async def counted(self: Store, name: str, *args: Any) -> Any:
        if name == "keep_progress":
            written.append(args[2][1])
        return await call(self, name, *args)

    async def eager(_: Any) -> None:
        for number in range(500):
            current().heartbeat(number)
            await asyncio.sleep(0)
        raise ConnectionError("at the end")

    monkeypatch.setattr(Store, "call", counted)
    parts = await begun(stage, make_parts, AsyncNode("a", eager, heartbeat="1h", retry=ONCE))
    await parts.idle()
    assert len(written) == 2  # the first, and what was left at the end
    assert await kept(stage) == 499


@ONE
async def test_a_node_that_is_another_s_by_now_is_stopped_by_its_heartbeat(
    stage: Stage, make_parts: Make
):
    told, stopped = asyncio.Event(), asyncio.Event()

    async def late(_: Any) -> None:
        await told.wait()
        current().heartbeat(1)
        try:
            await asyncio.sleep(PATIENCE)  # in a node
        finally:
            stopped.set()

    parts = await begun(stage, make_parts, AsyncNode("a", late))
    assert await stage.reclaim(parts.job().held, NAME) == "OK"
    told.set()
    await parts.idle()
    assert stopped.is_set()
    assert await kept(stage) is None


@ONE
@pytest.mark.parametrize("silent", [False, True])
async def test_of_a_thread_the_supervisor_is_told_when_its_next_sign_is_due(
    stage: Stage, make_parts: Make, silent: bool
):
    """It cannot be stopped: its process is killed, and then its attempt fails for that reason."""
    let_go = threading.Event()

    def stuck(_: Any) -> None:
        let_go.wait(PATIENCE)

    heartbeat = OFTEN if silent else None
    timeout = "1h" if silent else OFTEN
    node = Node[Any, None]("a", stuck, heartbeat=heartbeat, timeout=timeout, retry=ONCE)
    parts = await begun(stage, make_parts, node)
    held = parts.job().held
    await until(lambda: bool(parts.page.overdue(0)), "it is overdue")
    (overdue,) = parts.page.overdue(0)
    assert (overdue.entry, overdue.is_silent) == (held.id, silent)
    await settle_killed(stage.store, NAME, QUEUE, [overdue])
    record = await stage.record(held)
    assert record is not None and record.status is NodeStatus.FAILED
    assert (b"HeartbeatTimeout" in (await stage.hash())["x:a"]) is silent
    let_go.set()
    await parts.idle()


@ONE
async def test_a_compensation_may_tell_its_progress_too(stage: Stage, make_parts: Make):
    found: list[Any] = []

    async def undo(_: Any) -> None:
        found.append(current().progress())
        current().heartbeat("undone by half")
        if len(found) == 1:
            raise ConnectionError("half-way")

    async def done(_: Any) -> int:
        return 1

    async def fails(_: Any) -> None:
        raise ValueError("no")

    undoing = AsyncNode[Any, Any]("undo", undo, retry=TWICE)
    flow = chain_of(
        AsyncNode[Any, Any]("a", done).on_error(undoing),
        AsyncNode[Any, Any]("b", fails, retry=ONCE),
    )
    await stage.begin_run(flow)
    parts = make_parts(flow)
    for _ in range(3):
        await parts.work()
        await stage.coordinate()
    await again(stage, parts)
    await stage.coordinate()
    assert found == [None, "undone by half"]
    assert (await stage.header()).status.value == "failed"


@ONE
async def test_progress_leaves_the_input_as_it_is(stage: Stage, make_parts: Make):
    """Of every kind: the fields of both are read with the claim."""
    found: list[Any] = []

    async def twice(value: Any) -> Any:
        found.append(value)
        current().heartbeat("x")
        if current().attempt == 1:
            raise ConnectionError("half-way")
        return value

    def of_first(state: FlowState) -> int:
        return state.get("a", int)

    again_ = AsyncNode[Any, Any]("b", twice, retry=TWICE)
    flow: Flow[Any, Any] = chain_of(
        AsyncNode("a", twice, retry=TWICE), again_, again_.as_("c").with_input(of_first)
    )
    await stage.begin_run(flow, data=b"\x07")
    parts = make_parts(flow)
    for _ in range(3):
        await parts.work()
        await again(stage, parts)
        await stage.coordinate()
    assert found == [7] * 6
