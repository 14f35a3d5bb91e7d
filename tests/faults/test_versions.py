"""Fault 17: a new version is deployed while runs of the old one are under way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from typing import Any

import pytest

from resolute import Client, FlowFailed, FlowRun
from resolute.cli.show.snapshot import take_snapshot
from resolute.cli.show.waiting import WaitKind
from resolute.status import NodeStatus
from tests.faults.app import QUEUE
from tests.faults.conftest import MakeSystem
from tests.faults.versions import GATE
from tests.support.system import until

APP = "tests.faults.versions"
COUNT = 20


def test_17_runs_of_an_old_version_wait_visibly_for_it_and_finish_with_it(
    make_system: MakeSystem,
) -> None:
    system = make_system()
    system.coordinator()

    def deploy(version: str) -> subprocess.Popen[bytes]:
        return system.worker("--grace", "0.2", app=APP, queue=QUEUE, VERSION=version)

    async def run() -> None:
        async with system.client() as client:
            old = deploy("one")
            await system.offered(client, "plain")
            runs = await started(client, "plain", "held")
            undone = await started(client, "undone", "held")
            new = deploy("two")
            await system.offered(client, "plain", processes=2)
            old.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.wait, 30) == 0
            for one in (*runs, *undone):
                await until(lambda o=one: waits_for_worker(client, o), "it waits for a worker")
            system.release(GATE)
            newer = await client.start_many("plain", [{"number": 1}] * COUNT)
            assert (
                await results(newer) == [said("first", "held", "added", "last", by="two")] * COUNT
            )
            for one in (*runs, *undone):
                assert await waits_for_worker(client, one)
            deploy("one")
            assert await results(runs) == [said("first", "held", "last", by="one")] * COUNT
            await are_undone_by(undone, "one")
            assert new.poll() is None

    asyncio.run(run())


async def started(client: Client, flow: str, node: str) -> list[FlowRun[Any]]:
    """Runs that are in the middle of a node."""
    runs = await client.start_many(flow, [{"number": 1}] * COUNT)

    async def running() -> bool:
        histories = [await one.history() for one in runs]
        return all(
            any(r.name == node and r.status is NodeStatus.RUNNING for r in history)
            for history in histories
        )

    await until(running, f"each runs {node}")
    return runs


async def waits_for_worker(client: Client, run: FlowRun[Any]) -> bool:
    """Whether `resolute show` says that it waits for a worker with its plan."""
    waits = (await take_snapshot(client, run.id)).waits
    plan = (await run.info()).plan
    return [wait.kind for wait in waits] == [WaitKind.WORKER] and plan in waits[0].text


def said(*nodes: str, by: str) -> list[str]:
    return [f"{node} {by}" for node in nodes]


async def results(runs: list[FlowRun[Any]]) -> list[list[str]]:
    return list(await asyncio.gather(*(one.result() for one in runs)))


async def are_undone_by(runs: list[FlowRun[Any]], version: str) -> None:
    """Each failed where its version fails, and was compensated, once."""
    for one in runs:
        with pytest.raises(FlowFailed, match=f"TerminalError: {version}"):
            await one.result()
        history = await one.history()
        assert [(r.name, r.attempts, r.crashes) for r in history] == [
            (name, 1, 0) for name in ("first", "held", "fails", "undo-held", "undo-first")
        ]
