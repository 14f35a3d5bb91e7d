"""Waiting for the end of a run: what is lost on the way is noticed, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from resolute.client import Client, watcher
from resolute.status import NodeStatus
from resolute.store.connection import Connection
from resolute.store.store import Store
from tests.support.flows import builder, chain_of, step
from tests.support.stage import Stage

SOON = 10.0  # s; far below the 30 s after which a run is read again in any case
FLOW = chain_of(step("a"))


@pytest.fixture
def client(store: Store, runner: asyncio.Runner) -> Iterator[Client]:
    made = Client(store)
    yield made
    runner.run(made.watcher.close())


async def waiting(stage: Stage, client: Client) -> asyncio.Task[Any]:
    """A task that waits for the result of a run whose only node is ready."""
    await stage.begin_run(FLOW)
    run = await client.get("run")
    task = asyncio.create_task(run.result(timeout=SOON))
    channel = stage.of("run").channel("run")
    while not await subscribers(client.store, channel):
        await asyncio.sleep(0.01)
    return task


async def also_waiting(stage: Stage, client: Client) -> asyncio.Task[Any]:
    """A second task that waits for it."""
    task = asyncio.create_task((await client.get("run")).result(timeout=SOON))
    while len(client.watcher._signals[stage.of("run").channel("run")]) < 2:
        await asyncio.sleep(0.01)
    return task


def listening(client: Client) -> Connection:
    """The connection on which a client that waits is subscribed."""
    connection = client.watcher._connection
    assert connection is not None
    return connection


async def break_and_recover(client: Client, channel: str) -> None:
    """The connection of who is subscribed breaks, and another one is subscribed in its place."""
    before = listening(client)
    before.close()
    async with asyncio.timeout(SOON):
        while client.watcher._connection in (None, before):
            await asyncio.sleep(0.01)
        while not await subscribers(client.store, channel):
            await asyncio.sleep(0.01)


async def subscribers(store: Store, channel: str) -> int:
    return int((await store.execute("PUBSUB", "NUMSUB", channel))[1])


async def test_who_waits_hears_of_the_end_also_after_the_connection_broke(
    stage: Stage, client: Client
):
    task = await waiting(stage, client)
    listening(client).close()
    await stage.work()
    assert await task is None


async def test_after_a_break_everybody_is_subscribed_again(stage: Stage, client: Client):
    task = await waiting(stage, client)
    await break_and_recover(client, stage.of("run").channel("run"))
    await stage.work()
    assert await task is None


async def test_where_calls_had_to_connect_anew_the_subscription_is_made_anew(
    stage: Stage, store: Store, client: Client
):
    """The server was demoted: as a replica out of step it would publish nothing."""
    task = await waiting(stage, client)
    before = listening(client)
    (await store.link.connection()).close()
    await store.execute("PING")
    event = await client.watcher.watch("another-channel")
    assert before.closed.done()
    client.watcher.forget("another-channel", event)
    await stage.work()
    assert await task is None


async def test_also_two_who_wait_for_the_same_run_hear_of_it_after_a_break(
    stage: Stage, client: Client
):
    task = await waiting(stage, client)
    other = await also_waiting(stage, client)
    await break_and_recover(client, stage.of("run").channel("run"))
    await stage.work()
    assert await asyncio.gather(task, other) == [None, None]


async def test_also_two_who_wait_for_the_same_run_hear_of_an_end_that_came_in_the_break(
    stage: Stage, client: Client, monkeypatch: pytest.MonkeyPatch
):
    """Nobody published it to them: both must read the run again."""
    task = await waiting(stage, client)
    other = await also_waiting(stage, client)
    is_back = asyncio.Event()
    connect = client.watcher._link.connection

    async def away() -> Connection:
        await is_back.wait()
        return await connect()

    monkeypatch.setattr(client.watcher._link, "connection", away)
    listening(client).close()
    await stage.work()
    is_back.set()
    assert await asyncio.gather(task, other) == [None, None]


async def test_nobody_stays_subscribed_to_a_run_that_nobody_waits_for(
    stage: Stage, store: Store, client: Client
):
    task = await waiting(stage, client)
    await stage.work()
    await task
    async with asyncio.timeout(SOON):
        while await subscribers(store, stage.of("run").channel("run")):
            await asyncio.sleep(0.01)


async def test_who_stops_waiting_is_forgotten(stage: Stage, client: Client):
    task = await waiting(stage, client)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (client.watcher._signals, client.watcher._confirmed) == ({}, {})


def swallowed(self: Connection, command: Any) -> None:
    """Instead of `Connection.post`."""
    del self, command


async def test_a_connection_that_never_confirms_a_subscription_is_dropped(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    watched = watcher.Watcher(store)
    connection = await watched._live()
    with monkeypatch.context() as lost:
        lost.setattr(watcher, "CONFIRM_TIMEOUT", 0.05)
        lost.setattr(Connection, "post", swallowed)
        async with asyncio.timeout(SOON):
            event = await watched.watch("channel")
        watched.forget("channel", event)
    assert event.is_set()  # read the run, and subscribe again
    assert connection.closed.done()
    await watched.watch("channel")
    assert await subscribers(store, "channel") == 1
    await watched.close()


async def test_who_gives_up_before_the_subscription_is_there_is_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    watched = watcher.Watcher(store)
    await watched._live()
    monkeypatch.setattr(Connection, "post", swallowed)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await watched.watch("channel")
    assert (watched._signals, watched._confirmed) == ({}, {})
    await watched.close()


async def test_the_result_of_a_very_wide_step_is_whole(stage: Stage, client: Client):
    wide = builder("wide").then_parallel("all", *(step(f"n{i}") for i in range(1203))).build()
    await stage.begin_run(wide)
    await stage.work()
    found = await (await client.get("run")).result()
    assert len(found) == 1203
    history = await (await client.get("run")).history()
    assert [record.status for record in history] == [NodeStatus.COMPLETED] * 1203
