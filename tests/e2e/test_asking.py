"""Queries, and flows that a signal starts, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable

import msgspec
import pytest

from resolute import (
    Client,
    GateResult,
    InvalidInput,
    QueryFailed,
    QueryTimeout,
    UnknownQuery,
    UnknownRun,
    UnknownTrigger,
)
from resolute.cli.exits import Exit
from resolute.status import NodeStatus
from resolute.testing.server import ServerBinary
from tests.e2e import asking
from tests.e2e.asking import Order, asked
from tests.support.cli import resolute
from tests.support.keyspace import all_keys
from tests.support.system import System, until

APP = "tests.e2e.asking"


async def is_priced(client: Client, run_id: str) -> bool:
    history = await (await client.get(run_id)).history()
    return any(node.status is NodeStatus.COMPLETED for node in history)


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_run_is_asked_while_it_waits_and_when_it_has_ended(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    system.coordinator()
    system.worker("--processes", "2", app=APP)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, asked.name)
            one = await client.start(asked, Order("lamp"), id="one")
            await until(lambda: is_priced(client, "one"), "it is priced")
            await one.signal("vote", 3)
            told = {"item": "lamp", "known": ["price"], "votes": [3]}
            assert await one.query("where") == told
            with pytest.raises(QueryFailed, match="ZeroDivisionError"):
                await one.query("broken")
            with pytest.raises(UnknownQuery, match="it has broken, where"):
                await one.query("what")
            with pytest.raises(msgspec.ValidationError):
                await one.query("where", int)
            with pytest.raises(UnknownRun):
                await client.query("two", "where")
            await one.signal("go", GateResult(True))
            await one.result()
            answers = await asyncio.gather(*(one.query("where") for _ in range(50)))
            assert all(answer == {**told, "known": ["go", "price"]} for answer in answers)
            left = [key for key in await all_keys(client.store) if ":a:" in key]
            assert left == []

    asyncio.run(run())


def test_without_a_worker_a_query_is_given_up_and_leaves_nothing(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary)
    system.coordinator()
    worker = system.worker(app=APP)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, asked.name)
            one = await client.start(asked, Order("lamp"), id="one")
            await until(lambda: is_priced(client, "one"), "it is priced")
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
            with pytest.raises(QueryTimeout, match=r"no worker with its plan answered in 0\.5 s"):
                await one.query("where", timeout=0.5)
            stream = client.store.keys.of("one").queue("e2e", asked.plan_hash)
            assert await client.store.execute("XLEN", stream) == 0
            done = resolute(system, "query", "one", "where", "--timeout", "0.2")
            assert done.returncode == Exit.TIMEOUT
            system.worker(app=APP)
            asked_at_once = resolute(system, "query", "one", "where", "--timeout", "40")
            assert json.loads(asked_at_once.stdout)["item"] == "lamp"

    asyncio.run(run())


def test_a_signal_starts_every_flow_that_waits_for_it_once(
    make_system: Callable[..., System], binary: ServerBinary
) -> None:
    system = make_system(binary, partitions=3)
    system.coordinator()
    system.worker(app=APP)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, asking.second.name)
            for _ in range(2):
                runs = await client.trigger("new-order", Order("lamp"), id="order 1")
                assert [await one.result() for one in runs] == [4, 4]
            flows = {(info.flow, info.id) for info in await client.list()}
            assert sorted(flow for flow, _ in flows) == ["first", "second"]
            assert len(await client.trigger("new-order", Order("sofa"))) == 2
            with pytest.raises(UnknownTrigger, match="signals that start one: new-order"):
                await client.trigger("old-order")
            with pytest.raises(InvalidInput):
                await client.trigger("new-order", 7)
            done = resolute(system, "trigger", "new-order", "--payload", '{"item": "x"}')
            assert len(done.stdout.split()) == 2
            assert resolute(system, "trigger", "none").returncode == Exit.UNKNOWN

    asyncio.run(run())
