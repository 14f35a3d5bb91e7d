"""All loops of a coordinator together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from resolute.coordinator.coordinator import Coordinator
from resolute.model.messages import Entry
from resolute.store import registry, streams
from resolute.store.connection import Link
from resolute.store.nodes import Held
from resolute.store.script import GROUP_WORKERS
from tests.support.flows import chain
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
        found = await streams.read_group(self.link, GROUP_WORKERS, self.name, [stream], 1, 30_000)
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
