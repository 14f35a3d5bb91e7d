"""Faults 13, 14 and 15: what a node can do to the process that runs it."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.faults.app import ILL_BEHAVED
from tests.faults.cases import CASES
from tests.faults.conftest import Drill
from tests.faults.nemesis import Scene
from tests.faults.oracle import read_all
from tests.faults.test_processes import STEADY, is_busy
from tests.support.system import until

STEADY_OR_LONG = [*STEADY, CASES["long"]]
MB = 2**20


async def have_ended(scene: Scene, count: int) -> None:
    """Wait until so many runs more have ended."""
    wanted = len(scene.load.ended) + count
    await until(lambda: len(scene.load.ended) >= wanted, f"{count} more runs have ended")


async def peak_memory(scene: Scene) -> int:
    """The most that the server ever used, in bytes."""
    info = await scene.store.execute("INFO", "memory")
    (line,) = [one for one in info.splitlines() if one.startswith(b"used_memory_peak:")]
    return int(line.partition(b":")[2])


def test_13_what_a_node_returns_or_raises_never_ends_its_worker(drill: Drill) -> None:
    """Nor does it reach Redis: the peak of its memory says so."""

    async def scenario(scene: Scene) -> None:
        await is_busy(scene)
        before = [member.pids() for member in scene.cluster.workers]
        peak = await peak_memory(scene)
        case = CASES["misbehaving"]
        for _ in range(3):
            scene.load.start(case, len(ILL_BEHAVED))
            await have_ended(scene, len(ILL_BEHAVED))
        await is_busy(scene)
        assert [member.pids() for member in scene.cluster.workers] == before
        assert await peak_memory(scene) - peak < 30 * MB

    report = drill(scenario, cases=STEADY_OR_LONG)
    assert report.repeated == []  # who ran beside it noticed nothing


def test_14_a_node_that_nothing_can_stop_loses_its_slot_and_harms_no_neighbour(
    drill: Drill,
) -> None:
    """That it never ran twice at once is what the checker holds (I3)."""

    async def scenario(scene: Scene) -> None:
        await is_busy(scene)
        before = {pid for member in scene.cluster.workers for pid in member.children()}
        scene.load.start(CASES["overrunning"], 12)
        await have_ended(scene, 40)

        async def replaced() -> bool:
            now = {pid for member in scene.cluster.workers for pid in member.children()}
            return now != before

        await until(replaced, "a process was replaced")
        await is_busy(scene)

    report = drill(scenario, cases=STEADY_OR_LONG)
    assert report.crashes == 0
    assert all(" overrunning 2.0: 2 attempts, 0 crashes" in line for line in report.repeated)
    assert len(report.repeated) == 12


def test_15_a_node_that_kills_its_process_fails_as_poison_and_innocents_complete(
    drill: Drill,
) -> None:
    poisonous = 3

    async def scenario(scene: Scene) -> None:
        await is_busy(scene)
        scene.load.start(CASES["poisonous"], poisonous)
        for case in STEADY:
            scene.load.start(case, 100 // len(STEADY))
        await until(
            lambda: sum(run.is_poisoned for run in scene.load.ended.values()) == poisonous,
            "what kills is known as poison",
        )
        await is_busy(scene)
        folder = scene.cluster.system.folder
        deaths = [
            line for line in read_all(folder) if line.what == "start" and line.node == "killer"
        ]
        assert len(deaths) <= 3 * poisonous
        assert scene.cluster.system.logs().count("ended with code") <= 3 * poisonous

    report = drill(scenario, cases=STEADY)
    # Innocents may have crashes, since they run beside it, but none dies of them.
    assert report.poisoned == poisonous


def test_15_a_node_that_wants_more_memory_than_there_is_fails_alone(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        await is_busy(scene)
        children = [pid for member in scene.cluster.workers for pid in member.children()]
        for pid in children:
            now = address_space(pid)
            resource.prlimit(pid, resource.RLIMIT_AS, (now + 200 * MB, resource.RLIM_INFINITY))
        scene.load.start(CASES["hungry"], 6)
        await have_ended(scene, 30)
        assert children == [pid for member in scene.cluster.workers for pid in member.children()]

    report = drill(scenario, cases=STEADY)
    assert report.crashes == 0


def address_space(pid: int) -> int:
    """The size of its address space in bytes (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()
