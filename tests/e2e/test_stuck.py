"""Nodes that nothing can stop: they end with their process, which costs nobody a crash."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from resolute import Client, FlowRun
from resolute.store import registry
from resolute.testing.server import ServerBinary
from tests.e2e import app
from tests.e2e.app import Word
from tests.e2e.held import holder, start_held
from tests.support.processes import children_of, is_alive
from tests.support.system import System, until

STUCK = pytest.mark.parametrize(
    "flow", [app.sleeping, app.numbed], ids=["thread", "blocks-the-loop"]
)


async def start_stuck(system: System, client: Client, flow: Any) -> tuple[FlowRun[Any], int]:
    """A run whose only node runs and cannot be stopped, and the process that has it."""
    run = await client.start(flow, Word("u"))
    await until(lambda: bool(system.lines("stuck", "u")), "the node runs")
    return run, int(system.lines("stuck", "u")[-1][-2])


async def ends_elsewhere(system: System, run: FlowRun[Any]) -> None:
    """It runs a second time, is let go, and has cost neither attempt nor crash."""
    await until(lambda: len(system.lines("stuck", "u")) == 2, "it runs again")
    system.release("u")
    await run.result()
    (record,) = await run.history()
    assert (record.attempts, record.crashes) == (1, 0)


@STUCK
def test_what_cannot_be_stopped_in_an_outage_ends_with_its_process(
    system: System, flow: Any
) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            one, pid = await start_stuck(system, client, flow)
            system.server.kill()
            await until(lambda: not is_alive(pid), "its process has ended")
            system.server.restart()
            await ends_elsewhere(system, one)

    asyncio.run(run())


@STUCK
def test_what_cannot_be_stopped_at_a_shutdown_runs_elsewhere(
    make_system: Callable[..., System], one_binary: ServerBinary, flow: Any
) -> None:
    system = make_system(one_binary)
    system.coordinator()
    leaving = system.worker("--grace", "0.2")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold")
            one, pid = await start_stuck(system, client, flow)
            leaving.send_signal(signal.SIGTERM)
            assert leaving.wait(40) == 0
            assert not is_alive(pid)
            system.worker()
            await ends_elsewhere(system, one)

    asyncio.run(run())


@STUCK
def test_a_process_dies_with_its_supervisor_however_busy_it_is(system: System, flow: Any) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            _, pid = await start_stuck(system, client, flow)
            system.processes[1].kill()
            await until(lambda: not is_alive(pid), "its process is dead as well")

    asyncio.run(run())


def test_a_process_that_lost_its_lease_is_replaced(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            one = await start_held(system, client, "l")
            old = holder(system, "l")
            await registry.end_lease(client.store, (await one.history())[1].process)
            await until(lambda: not is_alive(old), "it is ended")
            await until(lambda: len(system.lines("held", "l")) == 2, "the node runs elsewhere")
            await until(lambda: len(children_of(system.processes[1].pid)) == 2, "it is replaced")
            system.release("l")
            assert await one.result() == "l!"

    asyncio.run(run())
