from __future__ import annotations

import pytest

from resolute.status import EventKind, RunStatus
from resolute.store import runs
from resolute.store.connection import ServerReply
from resolute.store.registry import server_ms
from resolute.store.runs import Start
from tests.support.flows import chain
from tests.support.keyspace import snapshot
from tests.support.memory_limit import full_memory
from tests.support.stage import NIL, RETENTION_MS, Stage

FLOW = chain("a")


async def test_a_started_run_is_running_without_a_plan_and_its_event_waits(stage: Stage):
    assert await stage.start(FLOW, data=b"\x01") == "OK"
    header = await stage.header()
    assert (header.status, header.plan, header.seq) == (RunStatus.RUNNING, "", 0)
    assert (header.flow, header.queue, header.pending) == ("chain", "q", 0)
    assert (await stage.hash())["input"] == b"\x01"
    (event,) = await stage.events()
    assert (event.kind, event.arg, event.queue) == (EventKind.START, "chain", "q")
    assert event.rev == header.rev


async def test_a_started_run_is_in_the_indexes_of_open_runs_by_its_start(stage: Stage):
    await stage.start(FLOW)
    header = await stage.header()
    partition = stage.of("run")
    for index in (partition.open, partition.open_of("chain")):
        score = await stage.store.execute("ZSCORE", index, "run")
        assert float(score) == header.started * 1000


async def test_the_same_id_flow_and_input_is_the_same_run(stage: Stage):
    assert await stage.start(FLOW) == "OK"
    before = await snapshot(stage.store)
    assert await stage.start(FLOW) == "EXISTS"
    assert await snapshot(stage.store) == before


@pytest.mark.parametrize(("flow", "data"), [("chain", b"\x01"), ("another", NIL)])
async def test_the_same_id_with_another_flow_or_input_is_a_conflict(
    stage: Stage, flow: str, data: bytes
):
    await stage.start("chain", data=NIL)
    before = await snapshot(stage.store)
    assert await stage.start(flow, data=data) == "CONFLICT"
    assert await snapshot(stage.store) == before


async def test_an_id_is_taken_as_long_as_its_ended_run_is_kept(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.work()
    assert await stage.start(FLOW) == "EXISTS"
    assert await stage.status() == "completed"


async def test_in_a_batch_each_run_has_its_own_answer(stage: Stage):
    one, two, three = stage.ids(3)
    await stage.start(FLOW, two, b"\x01")
    partition = stage.of(one)
    starts = [
        Start(one, "chain", "q", NIL),
        Start(two, "chain", "q", b"\x02"),
        Start(one, "chain", "q", NIL),
        Start(two, "chain", "q", b"\x01"),
        Start(three, "chain", "q", NIL),
    ]
    codes = await runs.start(stage.store, partition, starts, RETENTION_MS)
    assert codes == ["OK", "CONFLICT", "EXISTS", "EXISTS", "OK"]
    assert len(await stage.events(one)) == len(await stage.events(three)) == 1


async def test_a_tick_older_than_the_retention_is_refused_by_the_time_of_redis(stage: Stage):
    now = await server_ms(stage.store)
    before = await snapshot(stage.store)
    assert await stage.start(FLOW, tick=now - 10_000, retention_ms=9_000) == "OLD"
    assert await snapshot(stage.store) == before
    assert await stage.start(FLOW, tick=now - 10_000, retention_ms=60_000) == "OK"


async def test_a_tick_that_is_running_already_is_the_same_run_however_old(stage: Stage):
    now = await server_ms(stage.store)
    assert await stage.start(FLOW, tick=now) == "OK"
    assert await stage.start(FLOW, tick=now - 10_000, retention_ms=9_000) == "EXISTS"


async def test_a_run_that_is_started_anew_after_its_retention_has_another_rev(stage: Stage):
    """A commit that was in flight for the old run must not fit the new one."""
    await stage.start(FLOW)
    first = (await stage.header()).rev
    await stage.store.execute("DEL", stage.of("run").flow("run"))
    await stage.start(FLOW)
    assert (await stage.header()).rev != first


async def test_in_a_full_memory_a_start_is_refused_and_writes_nothing(stage: Stage):
    await stage.offer(FLOW)
    before = await snapshot(stage.store)
    async with full_memory(stage.store):
        with pytest.raises(ServerReply) as caught:
            await stage.start(FLOW)
    assert caught.value.code == "OOM"
    assert await snapshot(stage.store) == before


async def test_in_a_full_memory_what_was_started_runs_to_its_end(stage: Stage):
    await stage.offer(FLOW)
    await stage.start(FLOW)
    async with full_memory(stage.store):
        await stage.coordinate()
        held = await stage.claim_one("worker")
        assert await stage.fail("worker", held, 0) == "OK"
        assert await stage.release(held.partition) == ["OK"]
        assert await stage.work() == 1
        assert await stage.status() == "completed"


@pytest.mark.parametrize(
    ("age", "code"), [(31_000, "STALE"), (-60_000, "STALE"), (20_000, "OK"), (-20_000, "OK")]
)
async def test_a_tick_is_started_only_by_who_looked_at_the_cursors_just_now(
    stage: Stage, age: int, code: str
):
    """Its run may be over and deleted; clocks of two nodes differ a little, not by more."""
    now = await server_ms(stage.store)
    start = Start("run", "chain", "q", NIL, now, now - age)
    found = await runs.start(stage.store, stage.of("run"), [start], RETENTION_MS)
    assert found == [code]


async def test_a_tick_that_is_running_already_is_the_same_run_whoever_looked_when(stage: Stage):
    now = await server_ms(stage.store)
    assert await stage.start(FLOW, tick=now) == "OK"
    start = Start("run", "chain", "q", NIL, now, 0)
    assert await runs.start(stage.store, stage.of("run"), [start], RETENTION_MS) == ["EXISTS"]
