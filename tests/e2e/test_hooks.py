"""Hooks and costs in real processes, which are killed at the worst moment."""

from __future__ import annotations

import asyncio
import os
import signal
from decimal import Decimal

import pytest

from resolute import FlowCancelled, RunStatus
from tests.e2e import app
from tests.e2e.app import Word
from tests.support.system import System, until


def test_a_process_killed_after_the_hook_and_before_the_commit_is_made_up_for(
    system: System,
) -> None:
    """The hook is called again with the attempt that replaces the lost one, whose costs count."""

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hooked", processes=2)
            one = await client.start(app.hooked, Word("w"), id="h")
            system.release("w")
            await until(lambda: bool(system.lines("after-node", "spends")), "the hook is called")
            assert await one.costs() == {}
            os.kill(int(system.lines("after-node", "spends")[-1][-2]), signal.SIGKILL)
            await until(lambda: len(system.lines("after-node", "spends")) == 2, "and again")
            system.release("h.after1")
            assert await one.result() == "w"
            assert await one.costs() == {"usd": Decimal("0.5")}
            (record,) = await one.history()
            assert (record.attempts, record.crashes) == (1, 1)
        assert [line[3] for line in system.lines("before-node", "spends")] == ["0", "1"]
        told = [tuple(line[1:5]) for line in system.lines("cost", "h")]
        assert told == [("h", "0", "0.5", "usd"), ("h", "1", "0.5", "usd")]

    asyncio.run(run())


def test_a_process_killed_while_the_node_runs_calls_the_hooks_of_the_next_one(
    system: System,
) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hooked", processes=2)
            one = await client.start(app.hooked, Word("k"), id="k1")
            await until(lambda: bool(system.lines("spends", "k")), "the node runs")
            os.kill(int(system.lines("spends", "k")[-1][-2]), signal.SIGKILL)
            await until(lambda: len(system.lines("spends", "k")) == 2, "it runs again")
            system.release("k")
            system.release("k1.after1")
            assert await one.result() == "k"
            assert await one.status() is RunStatus.COMPLETED
            assert await one.costs() == {"usd": Decimal("0.5")}
        assert len(system.lines("before-node", "spends")) == 2
        assert [line[3] for line in system.lines("after-node", "spends")] == ["1"]

    asyncio.run(run())


def test_a_process_killed_while_the_hooks_hear_of_the_end_is_made_up_for(
    system: System,
) -> None:
    """A run has not ended before they were told: however it ends, and by as many as it takes."""

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "told", processes=2)
            done = await client.start(app.told, Word("done"), id="done")
            stopped = await client.start(app.told, Word("stopped"), id="stopped")
            system.release("done")
            await until(lambda: bool(system.lines("spends", "stopped")), "both nodes run")
            await stopped.cancel()
            await until(lambda: bool(system.lines("after-flow", "done")), "one end is told")
            await until(lambda: bool(system.lines("after-flow", "stopped")), "and the other")
            assert await done.status() is RunStatus.RUNNING
            assert await stopped.status() is RunStatus.COMPENSATING
            for pid in {int(line[-2]) for line in system.lines("after-flow")}:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: len(system.lines("after-flow", "done")) == 2, "it is told again")
            await until(lambda: len(system.lines("after-flow", "stopped")) == 2, "and the other")
            system.release("done.told")
            system.release("stopped.told")
            assert await done.result() == "done"
            with pytest.raises(FlowCancelled):
                await stopped.result()
        told = {tuple(line[1:4]) for line in system.lines("after-flow")}
        assert told == {("done", "completed", "-"), ("stopped", "cancelled", "Cancelled")}

    asyncio.run(run())
