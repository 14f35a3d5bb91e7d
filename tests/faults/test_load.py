"""Faults 10 and 16: more work than workers, and a dependency that is down for all of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from resolute import Client
from tests.faults import app
from tests.faults.app import DOWN, QUEUE, Work
from tests.faults.cases import CASES
from tests.faults.conftest import Drill, MakeSystem
from tests.faults.nemesis import Scene
from tests.faults.oracle import Reader
from tests.support.processes import children_of, resident_bytes
from tests.support.system import System, until

IS_LONG = bool(os.environ.get("RESOLUTE_FAULTS_LONG"))
STARTS = 50_000
WARM_UP = STARTS // 10
BATCH = 500
STORM = 5_000 if IS_LONG else 500
MB = 2**20


def resident(pids: Sequence[int]) -> list[int]:
    return [resident_bytes(pid) for pid in pids]


async def length_of(client: Client, queue: str) -> int:
    lengths = [
        await client.store.execute("XLEN", partition.queue(queue))
        for partition in client.store.keys.partitions
    ]
    return sum(lengths)


def test_10_a_backlog_costs_nobody_memory_and_does_not_hold_up_another_queue(
    make_system: MakeSystem,
) -> None:
    """The backlog stays: what is promised is said while it is there."""
    system = make_system(appendfsync="no")
    coordinator = system.coordinator()
    slow = system.worker(
        "--concurrency", "1", "--grace", "0.1", app="tests.faults.app", queue="slow"
    )
    quick = system.worker(app="tests.faults.app", queue=QUEUE)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, app.sequence.name, processes=2)
            workers = [slow.pid, *children_of(slow.pid), quick.pid, *children_of(quick.pid)]
            pids = [coordinator.pid, *workers, os.getpid()]
            await pile_up(client, WARM_UP)
            before = resident(pids)
            await pile_up(client, STARTS - WARM_UP)
            backlog = await length_of(client, "slow")
            assert backlog > STARTS * 0.9
            runs = await client.start_many(
                app.sequence, [Work(number) for number in range(200)], queue=QUEUE
            )
            results = await asyncio.gather(*(one.result() for one in runs))
            assert [made.value for made in results] == [number + 2 for number in range(200)]
            assert await length_of(client, "slow") > STARTS * 0.9
            growth = [(b - a) / MB for a, b in zip(before, resident(pids), strict=True)]
            assert max(growth) < 16, growth
            await system_can_end(system)

    asyncio.run(run())


async def pile_up(client: Client, count: int) -> None:
    """Start so many runs of slow nodes, and wait until each has had its first step dispatched."""
    before = await length_of(client, "slow")
    for _ in range(count // BATCH):
        await client.start_many(app.long, [Work(1)] * BATCH, queue="slow")

    async def dispatched() -> bool:
        return await length_of(client, "slow") >= before + count * 0.95

    await until(dispatched, "their first nodes are in the queue")


async def system_can_end(system: System) -> None:
    """With a backlog, too, a process ends as it is told."""
    for process in system.processes:
        process.terminate()
    codes = [await asyncio.to_thread(process.wait, 30) for process in system.processes]
    assert codes == [0] * len(codes)


def commands(info: bytes) -> tuple[int, int]:
    """How many commands the server ran, and how many of those were calls of a script."""
    calls = {
        line.partition(b":")[0]: int(line.partition(b"calls=")[2].partition(b",")[0])
        for line in info.splitlines()
        if line.startswith(b"cmdstat_")
    }
    return sum(calls.values()), calls.get(b"cmdstat_evalsha", 0)


def test_16_a_dependency_that_is_down_costs_redis_little_and_everybody_recovers(
    drill: Drill,
) -> None:
    async def scenario(scene: Scene) -> None:
        folder = scene.cluster.system.folder
        (folder / DOWN).touch()
        scene.load.start(CASES["depending"], STORM)
        reader = Reader(folder)

        def attempts() -> int:
            return sum(line.what == "stop" and line.node == "dependent" for line in reader.fresh())

        seen = 0

        def have_tried(count: int) -> bool:
            nonlocal seen
            seen += attempts()
            return seen >= count

        await until(lambda: have_tried(2 * STORM), "all have tried, most of them more than once")
        every, scripts = commands(await scene.store.execute("INFO", "commandstats"))
        seen = 0
        await until(lambda: have_tried(3 * STORM), "they go on trying")
        every_after, scripts_after = commands(await scene.store.execute("INFO", "commandstats"))
        # Begin, fail, release: a dozen commands inside scripts; calls are shared by many attempts.
        assert (every_after - every) / seen < 25
        assert (scripts_after - scripts) / seen < 2
        (folder / DOWN).unlink()
        await until(lambda: scene.load.open == 0, "all have completed")

    report = drill(scenario, cases=[CASES["depending"]], open_runs=0)
    assert report.crashes == 0
    assert report.runs >= STORM
