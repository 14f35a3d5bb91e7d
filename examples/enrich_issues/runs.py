"""Starting the demo's runs, waiting for them, and adding up what their histories say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from examples.enrich_issues.report import FlowReport
from resolute import FlowFailed, FlowRun, UnknownFlow

T = TypeVar("T")

AT_ONCE = 200
"""So many results are awaited, or histories read, at the same time."""

StartRuns = Callable[[], Awaitable[Sequence[FlowRun[Any]]]]


class Effort(msgspec.Struct, frozen=True):
    """What one run took: nodes, attempts after the first, and seconds inside nodes."""

    nodes: int
    retries: int
    seconds: float


async def run_all(flow: str, start: StartRuns, one_is_done: Callable[[], None]) -> FlowReport:
    """Start the runs, wait until the last has ended, and report on them."""
    runs, started_at = await _start_when_offered(start)

    async def failure(run: FlowRun[Any]) -> str | None:
        try:
            await run.result()
        except FlowFailed as error:
            return f"{run.id}: {error}"
        finally:
            one_is_done()
        return None

    failures = await _for_each(runs, failure)
    wall_time = time.perf_counter() - started_at
    efforts = await _for_each(runs, effort)
    return FlowReport(
        flow=flow,
        runs=len(runs),
        nodes=sum(effort.nodes for effort in efforts),
        retries=sum(effort.retries for effort in efforts),
        wall_time=wall_time,
        node_time=sum(effort.seconds for effort in efforts),
        problems=tuple(failure for failure in failures if failure is not None),
    )


async def effort(run: FlowRun[Any]) -> Effort:
    """What a run took, from its history."""
    records = await run.history()
    return Effort(
        nodes=len(records),
        retries=sum(max(0, record.attempts - 1) for record in records),
        seconds=sum(r.ended - r.begun for r in records if r.begun and r.ended),
    )


async def _start_when_offered(start: StartRuns) -> tuple[Sequence[FlowRun[Any]], float]:
    """The runs, and when they were started. On a new server a flow is unknown until the worker
    has come up and offers it."""
    while True:
        started_at = time.perf_counter()
        try:
            return await start(), started_at
        except UnknownFlow:
            await asyncio.sleep(0.05)


async def _for_each(
    runs: Sequence[FlowRun[Any]], do: Callable[[FlowRun[Any]], Awaitable[T]]
) -> list[T]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def in_turn(run: FlowRun[Any]) -> T:
        async with turn:
            return await do(run)

    return await asyncio.gather(*(in_turn(run) for run in runs))
