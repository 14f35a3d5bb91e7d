"""Runs that start runs, with real processes: an example, kills, and retries."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from examples.fulfil_batch.flows import Batch, Order, Report, flow, order_flow
from resolute import FlowFailed, RunStatus
from resolute.testing.server import ServerBinary
from tests.e2e import families
from tests.support.processes import children_of
from tests.support.system import System, until

APP = "examples.fulfil_batch.flows:flow"  # which offers the flow that it starts, too


@pytest.mark.parametrize("partitions", [1, 3])
def test_each_order_of_a_batch_is_a_run_of_its_own(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    system.coordinator()
    system.worker("--processes", "2", app=APP)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, order_flow.name)
            batch = Batch([Order(number) for number in (1, 13, 3)])
            one = await client.start(flow, batch, id="batch")
            lost = "run batch/orders.1 failed: ship: TerminalError: order 13: no courier goes there"
            wanted = Report(["PARCEL-0001", "PARCEL-0003"], {"batch/orders.1": lost})
            assert await one.result() == wanted
            children = await one.children()
            assert [child.id for child in children] == [f"batch/orders.{n}" for n in range(3)]
            assert [child.status for child in children] == [
                RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.COMPLETED,
            ]  # fmt: skip
            undone = [node.name for node in await (await client.get("batch/orders.1")).history()]
            assert undone == ["reserve-stock", "ship", "release-stock"]

    asyncio.run(run())


def test_a_thousand_children_outlive_a_killed_coordinator_and_worker(system: System) -> None:
    worker = system.worker("--processes", "2", app="tests.e2e.families")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, families.square.name)
            one = await client.start(families.squares, 1000, id="many")

            async def some_ended() -> bool:
                ended = await client.list(flow=families.square.name, status="completed", limit=50)
                return len(ended) >= 50

            await until(some_ended, "50 children have ended")
            os.kill(children_of(worker.pid)[0], signal.SIGKILL)
            system.processes[0].kill()
            system.coordinator()
            assert await one.result() == sum(number * number for number in range(1000))

    asyncio.run(run())


def test_a_retry_starts_the_children_of_the_failed_step_again(system: System) -> None:
    system.worker(app="tests.e2e.families")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, families.shaky.name)
            one = await client.start(families.shaky, id="shaky")
            with pytest.raises(FlowFailed, match=r"ChildFailed: run shaky/tries\.1 failed"):
                await one.result()
            (system.folder / "mended").touch()
            again = await client.retry("shaky")
            assert await again.result() == [0, 1, 2]
            children = await again.children("tries")
            assert [child.id for child in children] == [f"shaky/~1/tries.{n}" for n in range(3)]

    asyncio.run(run())
