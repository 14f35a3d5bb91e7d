"""What a worker process may not, cannot or need not begin."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from resolute.model.nodes import AsyncNode
from resolute.status import RunStatus
from resolute.store import streams
from resolute.store.connection import ServerReply
from resolute_worker.shared import SharedPage
from tests.support.flows import chain_of, step
from tests.support.stage import QUEUE, Stage
from tests.worker.parts import NAME, ONE, OTHER, PATIENCE, Gate, Make, begin_held, held_by, run_held

# What may not be begun.


@ONE
async def test_a_fenced_process_begins_nothing_and_hands_it_back_unused(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    parts = make_parts(await begin_held(stage, gate))
    held = await stage.take_one(NAME)
    parts.fence()
    parts.deliver(held)
    await parts.idle()
    assert gate.began == 0
    back = await stage.take_one(OTHER)
    assert (back.entry.attempt, back.entry.crashes) == (1, 0)


@ONE
async def test_what_is_more_than_there_are_slots_is_handed_back(stage: Stage, make_parts: Make):
    gate = Gate()
    flow = chain_of(held_by(gate))
    for run_id in ("one", "two"):
        await stage.begin_run(flow, run_id)
    parts = make_parts(flow, slots=1)
    for held in await stage.take(NAME):
        parts.deliver(held)
    await gate.wait()
    await parts.settle()
    surplus = await stage.take_one(OTHER)
    assert (surplus.entry.attempt, surplus.entry.crashes, gate.began) == (1, 0, 1)
    gate.open.set()
    await parts.idle()


@ONE
async def test_the_same_entry_delivered_twice_runs_once_and_is_let_go(
    stage: Stage, make_parts: Make
):
    parts, gate = await run_held(stage, make_parts)
    ((_, entry),) = await stage.entries()
    stream = stage.of("run").queue(QUEUE)
    await stage.store.execute("XADD", stream, "*", "e", msgspec.msgpack.encode(entry))
    await parts.read()
    assert len(await stage.entries()) == 1
    gate.open.set()
    await parts.idle()
    assert gate.began == 1


@ONE
async def test_a_node_with_two_crashes_behind_it_runs_alone(stage: Stage, make_parts: Make):
    gate, killer = Gate(), Gate()
    quiet = chain_of(held_by(gate), flow="quiet")
    deadly = chain_of(AsyncNode("killer", killer.__call__), flow="deadly")
    await stage.begin_run(deadly, "deadly")
    for number in range(2):
        await stage.reclaim(await stage.claim_one(f"dead:{number}"), f"dead:{number}")
    await stage.begin_run(quiet, "quiet")
    parts = make_parts(quiet, deadly)
    await parts.read()
    await gate.wait()
    alone = asyncio.create_task(parts.reader._read_once())
    for _ in range(5):  # were it begun at once, that would be answered before these
        await stage.store.execute("PING")
    assert killer.began == 0
    gate.open.set()
    await killer.wait()
    assert (parts.slots.size - parts.slots.free, alone.done()) == (1, False)
    await stage.begin_run(quiet, "later")
    assert (await stage.take_one(OTHER)).entry.flow == "later"  # nothing is read beside it
    killer.open.set()
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    await parts.idle()


@ONE
async def test_of_several_that_run_alone_all_but_one_are_handed_back(
    stage: Stage, make_parts: Make
):
    killer = Gate()
    deadly = chain_of(AsyncNode("killer", killer.__call__), flow="deadly")
    runs = ["one", "two", "three"]
    for run_id in runs:
        await stage.begin_run(deadly, run_id)
    for number in range(2):
        for held in await stage.claim(f"dead:{number}"):
            await stage.reclaim(held, f"dead:{number}")
    parts = make_parts(deadly)
    await parts.read()
    alone = asyncio.create_task(parts.reader._read_once())
    await killer.wait()
    await parts.settle()
    others = await stage.take(OTHER)
    assert [(held.entry.attempt, held.entry.crashes) for held in others] == [(1, 2)] * 2
    (first,) = set(runs) - {held.entry.flow for held in others}
    assert [job.held.entry.flow for job in parts.runner.jobs.values()] == [first]
    killer.open.set()
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    await parts.idle()
    await stage.coordinate()
    assert await stage.status(first) is RunStatus.COMPLETED


@ONE
async def test_what_a_fenced_process_cannot_run_it_does_not_read(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    flow = chain_of(step("a"))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.reader.ensure_groups()
    ((entry_id, _),) = await stage.entries()
    looks: asyncio.Queue[None] = asyncio.Queue()

    def look(_: SharedPage) -> bool:
        looks.put_nowait(None)
        return True

    monkeypatch.setattr(SharedPage, "is_fenced", property(look))
    reading = asyncio.create_task(parts.reader._read_once())
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            await looks.get()
    assert (await stage.take_one(OTHER)).id == entry_id
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@ONE
async def test_a_queue_that_was_deleted_is_made_anew(stage: Stage, make_parts: Make):
    flow = chain_of(step("a"))
    await stage.offer(flow)
    parts = make_parts(flow)
    await parts.reader.ensure_groups()
    stream = stage.store.keys.partitions[0].queue(QUEUE)
    await stage.store.execute("DEL", stream)
    with pytest.raises(ServerReply, match="NOGROUP"):
        await parts.reader._read_or_repair()
    await stage.begin_run(flow)
    await parts.reader._read_once()
    await parts.idle()
    await stage.coordinate()
    assert await stage.status() is RunStatus.COMPLETED


@pytest.mark.parametrize("partitions", [3], indirect=True)
async def test_with_fewer_slots_than_partitions_no_more_is_read_than_there_are_slots(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    flow = chain_of(held_by(gate))
    ids: set[str] = set()
    for number in range(3):
        (run_id,) = stage.ids(1, number)
        await stage.begin_run(flow, run_id)
        ((entry_id, _),) = await stage.entries(run_id)
        ids.add(entry_id)
    parts = make_parts(flow, slots=1)
    await parts.read()
    await gate.wait()
    left = {held.id for held in await stage.take(OTHER)}
    assert len(left) == 2
    assert left < ids  # none of them was read and handed back
    gate.open.set()
    await parts.idle()


# What cannot be begun.


async def replace_entry(stage: Stage, raw: bytes) -> None:
    """Let the only entry of the queue be another one."""
    stream = stage.of("run").queue(QUEUE)
    ((entry_id, _),) = await stage.entries()
    await stage.store.execute("XDEL", stream, entry_id)
    await stage.store.execute("XADD", stream, "*", "e", raw)


@ONE
@pytest.mark.parametrize(
    "raw",
    [b"", b"\xc1", b"\x90", b"\x96\xa3r\xecn\xa1p\x00\x01\x00\xa1t"],
    ids=["empty", "nonsense", "no entry", "no UTF-8"],
)
async def test_what_is_no_entry_is_a_dead_letter(stage: Stage, make_parts: Make, raw: bytes):
    flow = chain_of(step("a"))
    parts = make_parts(flow)
    partition = stage.store.keys.partitions[0]
    await parts.reader.ensure_groups()
    await stage.store.execute("XADD", partition.queue(QUEUE), "*", "e", raw)
    await parts.read()
    assert int(await stage.store.execute("XLEN", partition.dead)) == 1
    assert int(await stage.store.execute("XLEN", partition.queue(QUEUE))) == 0


@ONE
async def test_a_node_that_its_plan_does_not_have_is_a_dead_letter(stage: Stage, make_parts: Make):
    flow = chain_of(step("a"))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    ((_, entry),) = await stage.entries()
    strange = msgspec.structs.replace(entry, index=7)
    await replace_entry(stage, msgspec.msgpack.encode(strange))
    await parts.read()
    assert int(await stage.store.execute("XLEN", stage.of("run").dead)) == 1
    assert await stage.entries() == []


@ONE
async def test_a_node_whose_record_is_damaged_is_a_dead_letter_and_holds_no_slot(
    stage: Stage, make_parts: Make
):
    flow = chain_of(step("a"))
    await stage.begin_run(flow)
    await stage.store.execute("HSET", stage.of("run").flow("run"), "n:1.0", "nonsense")
    ((_, entry),) = await stage.entries()
    raw = msgspec.msgpack.encode([*msgspec.structs.astuple(entry), "of a later version"])
    await replace_entry(stage, raw)
    parts = make_parts(flow)
    await parts.work()
    while parts.runner._side_tasks:
        await asyncio.wait(parts.runner._side_tasks)
    (letter,) = await stage.store.execute("XRANGE", stage.of("run").dead, "-", "+")
    assert raw in letter[1]
    assert parts.slots.free == parts.slots.size
    assert await stage.entries() == []


@ONE
async def test_an_entry_that_was_deleted_while_it_was_pending_is_acknowledged(
    stage: Stage, make_parts: Make
):
    flow = chain_of(step("a"))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    held = await stage.take_one(NAME)
    await stage.store.execute("XDEL", held.stream, held.id)
    await parts.reader.read_pending()
    await parts.settle()
    assert await streams.pending_of(stage.store, held.stream, "workers", NAME) == []
