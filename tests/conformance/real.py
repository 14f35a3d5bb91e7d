"""The real thing inside a test: a coordinator, a worker's reader and runner, a client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from resolute import Client, FlowRun, NodeStatus
from resolute.coordinator.coordinator import Coordinator
from resolute.errors import FlowFailed
from resolute.storage import Storage
from resolute.store import registry
from resolute.store.store import Store
from resolute.testing.tester import RUN_ID
from resolute_worker.runner import Runner
from tests.conformance.case import Case, Outcome, lines_of
from tests.support.stage import Stage
from tests.support.system import until
from tests.worker.parts import NAME, Parts

BEAT = 0.05  # s
DEADLINE = 60.0  # s
UNDER_WAY = (NodeStatus.RUNNING, NodeStatus.WAITING)  # what waits for a child is under way too


async def run_for_real(store: Store, case: Case) -> Outcome:
    """Run a case against Redis."""
    async with _system(store, case) as client:
        run = await client.start(case.flow, case.input, id=RUN_ID, priority=case.priority)
        for number, (name, payload) in enumerate(case.signals):
            await run.signal(name, payload, sender=str(number))
        if case.cancel_while:
            await until(lambda: _is_running(run, case.cancel_while), f"{case.cancel_while} runs")
            assert await (run.terminate() if case.is_terminated else run.cancel())
        output = error = None
        try:
            output = await run.result(timeout=DEADLINE)
        except FlowFailed as failed:
            error = failed.error.type if failed.error else None
        history = lines_of(await run.history())
        fields = await Stage(store).hash(run.id)
        return Outcome(await run.status(), output, error, history, await run.costs(), fields)


async def _is_running(run: FlowRun[Any], name: str) -> bool:
    history = await run.history()
    return any(one.name == name and one.status in UNDER_WAY for one in history)


@contextlib.asynccontextmanager
async def _system(store: Store, case: Case) -> AsyncGenerator[Client]:
    storage = Storage("memory://") if case.has_storage else None
    stage = Stage(store)
    flows = case.flow.family()
    await stage.offer(*flows, process=NAME, nodes=case.served)
    parts = Parts(stage, tuple(flows), slots=50, nodes=case.served, storage=storage)
    await parts.reader.ensure_groups()
    working = [
        asyncio.create_task(work)
        for work in (
            Coordinator(store, storage=storage).run(),
            parts.reader.run(),
            _supervise(store, parts.runner),
        )
    ]
    client = Client(store, storage=storage)
    try:
        yield client
        await parts.runner.wait_idle()
    finally:
        await client.watcher.close()
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await parts.close()


async def _supervise(store: Store, runner: Runner) -> None:
    """What a supervisor does: beats, and passes on which nodes are to be cancelled."""
    told: list[str] = []
    while True:
        (answer,) = await registry.beat(store, [NAME], {NAME: told})
        told = answer or []
        runner.cancel_nodes(told)
        await asyncio.sleep(BEAT)  # of the system under test; nothing waits for it
