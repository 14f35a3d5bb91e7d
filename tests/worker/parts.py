"""The parts of a worker process inside a test: no supervisor, so the test plays that too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from resolute.model.flow import Flow
from resolute.model.nodes import AsyncNode, Node
from resolute.model.policies import RetryPolicy
from resolute.storage import Storage
from resolute.store import streams
from resolute.store.nodes import Held
from resolute.store.registry import named_stream
from resolute_worker.jobs import Job
from resolute_worker.reader import Reader
from resolute_worker.runner import Runner
from resolute_worker.shared import SharedPage
from resolute_worker.slots import Slots
from tests.support.flows import chain_of
from tests.support.stage import QUEUE, Stage

NAME = "host:1:worker"
PATIENCE = 20.0  # s; what takes longer is a failure


class Parts:
    """Page, slots, runner and reader of one process, on the test's own loop."""

    def __init__(
        self,
        stage: Stage,
        flows: tuple[Flow[Any, Any], ...],
        slots: int,
        nodes: tuple[Node[Any, Any], ...] = (),
        storage: Storage | None = None,
        name: str = NAME,
    ) -> None:
        self.page = SharedPage.create(slots, lease=60.0)
        self.slots = Slots(slots)
        self.runner = Runner(
            stage.store,
            name,
            {flow.name: flow for flow in flows},
            self.slots,
            self.page,
            {node.name: node for node in nodes},
            storage,
        )
        plans = [flow.plan_hash for flow in flows]
        plans += [named_stream(node.name) for node in nodes]
        self.reader = Reader(stage.store, name, QUEUE, plans, self.runner, self.slots)

    async def read(self) -> None:
        """Read once and start what came. There must be something."""
        await self.reader.ensure_groups()
        async with asyncio.timeout(PATIENCE):
            await self.reader._read_once()
            await self.settle()

    async def work(self) -> None:
        """Read once, and let all that came be over and answered."""
        await self.read()
        await self.idle()

    def deliver(self, held: Held) -> None:
        """Give the reader an entry as if it had read it just now."""
        payload = msgspec.msgpack.encode(held.entry)
        self.reader._deliver(held.stream, [streams.Message(held.id, payload)])

    def adopt(self, held: Held) -> Job:
        """The job of an entry, in a slot, not begun yet."""
        bound = self.runner.bound_for(held)
        assert bound is not None
        job = self.runner.adopt(held, bound)
        assert job is not None
        return job

    def job(self) -> Job:
        """The only job."""
        (job,) = self.runner.jobs.values()
        return job

    async def settle(self) -> None:
        """Let everything that the reader began come to its end."""
        while self.reader._tasks:
            await asyncio.wait(self.reader._tasks)

    async def idle(self) -> None:
        """Every job is over and answered."""
        async with asyncio.timeout(PATIENCE):
            await self.settle()
            await self.runner.wait_idle()

    def fence(self) -> None:
        """No beat was acknowledged for longer than the lease."""
        self.page.record_beat(time.monotonic() - 100.0)

    async def close(self) -> None:
        self.runner.close()
        await self.reader._source.close()
        self.page.close()


Make = Callable[..., Parts]
ONCE = RetryPolicy(max_attempts=1)
OTHER = "host:2:worker"
ONE = pytest.mark.parametrize("partitions", [1], indirect=True)


class Gate:
    """A node that is running until it is let go; counts how often it began."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun = asyncio.Event()
        self.began = 0
        self.stopped = 0

    async def __call__(self, value: Any) -> Any:
        self.began += 1
        self.begun.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return value

    async def wait(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.begun.wait()


def held_by(gate: Gate) -> Node[Any, Any]:
    return AsyncNode("held", gate.__call__)


async def begin_held(stage: Stage, gate: Gate) -> Flow[Any, Any]:
    """A run whose only node is ready, and will be held by the gate."""
    flow = chain_of(held_by(gate))
    await stage.begin_run(flow)
    return flow


async def run_held(stage: Stage, make_parts: Make) -> tuple[Parts, Gate]:
    """A process in which the only node of a run is running, until it is let go."""
    gate = Gate()
    parts = make_parts(await begin_held(stage, gate))
    await parts.read()
    await gate.wait()
    return parts, gate


async def run_first(stage: Stage, make_parts: Make, flow: Flow[Any, Any]) -> None:
    """A run whose first node was executed here, and answered."""
    await stage.begin_run(flow)
    await make_parts(flow).work()
