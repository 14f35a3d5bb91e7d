"""All loops of a coordinator together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from resolute.coordinator import coordinator as coordinator_module
from resolute.coordinator.coordinator import Coordinator
from resolute.errors import ConfigurationError
from resolute.model.messages import Entry
from resolute.store import registry, streams
from resolute.store.connection import Link
from resolute.store.nodes import Held
from resolute.store.script import GROUP_WORKERS
from tests.coordinator.test_dispatcher import make_idle
from tests.support.flows import chain
from tests.support.links import read_group
from tests.support.stage import QUEUE, Stage

FLOW = chain("a", "b")


@contextlib.asynccontextmanager
async def running(stage: Stage) -> AsyncGenerator[Coordinator]:
    """A coordinator at work; stopped as a signal would stop it."""
    coordinator = Coordinator(stage.store)
    working = asyncio.create_task(coordinator.run())
    try:
        yield coordinator
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


class Hands:
    """A worker that waits for its entries on a connection of its own."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name
        self.link = Link(stage.store.link.address)

    async def take(self) -> Held:
        """The next entry of the run's partition, waited for."""
        partition = self.stage.of("run")
        stream = partition.queue(QUEUE)
        await streams.ensure_group(self.stage.store, partition, stream, GROUP_WORKERS)
        found = await read_group(self.link, GROUP_WORKERS, self.name, [stream], 1, 30_000)
        (message,) = found[stream]
        entry = msgspec.msgpack.decode(message.payload or b"", type=Entry)
        held = Held(partition, QUEUE, message.id, entry)
        assert (await self.stage.begin(self.name, held)).code == "OK"
        return held


async def ended(stage: Stage) -> tuple[Link, asyncio.Queue[list[Any]]]:
    """A link that hears of the end of the run."""
    heard: asyncio.Queue[list[Any]] = asyncio.Queue()
    link = Link(stage.store.link.address, on_push=heard.put_nowait)
    (await link.connection()).post(("SUBSCRIBE", stage.of("run").channel("run")))
    assert (await heard.get())[0] == b"subscribe"
    return link, heard


async def test_a_coordinator_brings_a_run_with_a_retry_to_its_end(stage: Stage):
    await stage.offer(FLOW)
    link, heard = await ended(stage)
    hands = Hands(stage, "stage:0:offers")
    async with running(stage):
        await stage.start(FLOW)
        assert await stage.fail(hands.name, await hands.take(), 20) == "OK"
        again = await hands.take()
        assert again.entry.attempt == 2
        assert await stage.complete(hands.name, again) == "OK"
        assert await stage.complete(hands.name, await hands.take()) == "OK"
        assert (await heard.get())[2] == b"completed"
    await hands.link.close()
    await link.close()


async def test_a_coordinator_takes_back_what_a_process_had_whose_lease_was_ended(stage: Stage):
    await stage.offer(FLOW)
    dead, alive = Hands(stage, "stage:0:offers"), Hands(stage, "stage:1:alive")
    async with running(stage):
        await stage.start(FLOW)
        await dead.take()
        await registry.end_lease(stage.store, dead.name)
        assert (await alive.take()).entry.crashes == 1
    await dead.link.close()
    await alive.link.close()


async def test_a_coordinator_starts_with_what_was_lost_before_it_came(stage: Stage):
    """Everything but the hash; it sweeps when it starts, and again a lease later."""
    await stage.begin_run(FLOW)
    partition = stage.of("run")
    await stage.store.execute("DEL", partition.inbox, partition.queue(QUEUE))
    await stage.store.execute("HSET", partition.flow("run"), "moved", 1)
    hands = Hands(stage, "worker")
    async with running(stage):
        await hands.take()
    await hands.link.close()


async def test_a_coordinator_that_is_stopped_lets_go_of_its_lease_at_once(stage: Stage):
    async with running(stage) as coordinator:
        link = Link(stage.store.link.address)
        stream = stage.of("run").inbox
        # It has registered when it wakes the inbox, and made the groups when that is read.
        await link.execute("XREAD", "BLOCK", 30_000, "STREAMS", stream, "0")
        await link.close()
    beats = await registry.beats(stage.store)
    assert beats == {coordinator.name: -1}


@pytest.mark.leaves_keys("the number of partitions is changed under it")
async def test_a_coordinator_ends_where_the_namespace_was_given_another_number_of_partitions(
    stage: Stage,
):
    """Everything was flushed, and somebody else was faster: all that it knows is wrong."""
    coordinator = Coordinator(stage.store, lease=0.3)
    working = asyncio.create_task(coordinator.run())
    link = Link(stage.store.link.address)
    await link.execute("XREAD", "BLOCK", 30_000, "STREAMS", stage.of("run").inbox, "0")
    await link.close()
    await stage.store.execute("SET", stage.store.keys.meta.partitions, 7)
    await stage.store.execute("DEL", stage.store.keys.meta.processes)
    with pytest.raises(ConfigurationError, match=r"has 7 partition\(s\)"):
        await working


async def test_a_coordinator_makes_the_group_of_a_deleted_inbox_anew(stage: Stage):
    await stage.offer(FLOW)
    hands = Hands(stage, "stage:0:offers")
    async with running(stage):
        await stage.start(FLOW)
        held = await hands.take()
        await stage.store.execute("DEL", stage.of("run").inbox)
        assert await stage.complete(hands.name, held) == "OK"
        assert (await hands.take()).entry.pc == 1
    await hands.link.close()


async def test_a_coordinator_whose_registration_was_lost_registers_again(stage: Stage):
    coordinator = Coordinator(stage.store)
    beating = asyncio.create_task(coordinator._beat())
    link = Link(stage.store.link.address)
    # Who registers wakes the inbox.
    await link.execute("XREAD", "BLOCK", 5_000, "STREAMS", stage.of("run").inbox, "0")
    await link.close()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    assert set(await registry.processes(stage.store)) == {coordinator.name}


async def test_a_coordinator_sweeps_when_the_server_is_another_than_before(stage: Stage):
    coordinator = Coordinator(stage.store)
    sweeps = coordinator.reconciler._sweeps
    for _ in range(2):
        await coordinator._notice_servers()
    assert coordinator.reconciler._sweeps == sweeps
    coordinator._run_ids = {"another"}
    await coordinator._notice_servers()
    assert coordinator.reconciler._sweeps == sweeps + 1
    await coordinator._notice_servers()
    assert coordinator.reconciler._sweeps == sweeps + 1


async def test_a_wake_reaches_the_timers_and_the_leases(stage: Stage):
    coordinator = Coordinator(stage.store)
    coordinator._wake()
    assert coordinator.timers._woken.is_set()
    assert coordinator.leases._woken.is_set()


async def test_a_coordinator_takes_over_what_another_one_read_and_did_not_finish(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    for period in ("TAKE_OVER_PERIOD", "IDLE_TAKE_OVER_PERIOD"):
        monkeypatch.setattr(coordinator_module, period, 0.01)
    await stage.offer(FLOW)
    await stage.start(FLOW)
    await Stage(stage.store, name="stage:1:dies").read_inbox(stage.of("run"))
    await make_idle(stage)
    hands = Hands(stage, "stage:0:offers")
    async with running(stage), asyncio.timeout(10):  # a lease later the reconciler repairs it
        assert (await hands.take()).entry.pc == 0
    await hands.link.close()
