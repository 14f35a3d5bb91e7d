from __future__ import annotations

import asyncio

import pytest

from resolute.coordinator.retention import Retention
from resolute.status import TERMINAL, RunStatus
from tests.support.flows import chain, fan
from tests.support.keyspace import all_keys
from tests.support.stage import Stage

FLOW = chain("a")
PAST_MS = -60_000
LONG_MS = 3_600_000


async def end_in_every_way(stage: Stage, prefix: str = "run") -> list[str]:
    """A run for each terminal status."""
    flow = fan(2)
    await stage.offer(flow)
    ids = [f"{prefix}-{status}" for status in TERMINAL]
    for run_id in ids:
        await stage.start(flow, run_id)
    await stage.coordinate()
    claimed = await stage.claim("worker")
    for held in claimed:
        match held.entry.flow.removeprefix(f"{prefix}-"):
            case RunStatus.FAILED:
                await stage.fail("worker", held)
            case RunStatus.CANCELLED:
                await stage.stop(held.entry.flow)
                await stage.fail("worker", held)
            case RunStatus.TERMINATED:
                await stage.stop(held.entry.flow, terminate=True)
            case _:
                await stage.complete("worker", held)
    await stage.work()
    assert [await stage.status(run_id) for run_id in ids] == list(TERMINAL)
    return ids


async def test_ended_runs_of_every_kind_are_deleted_after_their_retention(stage: Stage):
    await end_in_every_way(stage)
    assert await Retention(stage.store, stage.catalog, PAST_MS).run_once() == len(TERMINAL)
    assert [key for key in await all_keys(stage.store) if ":f:" in key or ":x:" in key] == []


async def test_ended_runs_of_every_kind_are_kept_until_then(stage: Stage):
    ids = await end_in_every_way(stage)
    assert await Retention(stage.store, stage.catalog, LONG_MS).run_once() == 0
    for run_id in ids:
        assert (await stage.status(run_id)).is_terminal


async def test_open_runs_are_never_deleted(stage: Stage):
    await stage.begin_run(FLOW)
    assert await Retention(stage.store, stage.catalog, PAST_MS).run_once() == 0
    assert await stage.status() == "running"


async def test_two_coordinators_delete_what_is_past_and_nothing_else(stage: Stage):
    await end_in_every_way(stage)
    await stage.begin_run(FLOW, "open")
    passes = [Retention(stage.store, stage.catalog, PAST_MS).run_once() for _ in range(3)]
    await asyncio.gather(*passes)
    assert await stage.status("open") == "running"
    keys = [key for key in await all_keys(stage.store) if ":f:" in key]
    assert keys == [stage.of("open").flow("open")]


@pytest.mark.parametrize(("retention_ms", "period"), [(86_400_000, 30.0), (60_000, 6.0), (0, 0.5)])
def test_a_pass_comes_ten_times_in_a_retention_within_bounds(
    stage: Stage, retention_ms: int, period: float
):
    assert Retention(stage.store, stage.catalog, retention_ms).period == period
