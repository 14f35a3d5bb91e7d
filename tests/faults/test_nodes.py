"""Faults 13, 14 and 15: what a node can do to the process that runs it."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.faults.app import ILL_BEHAVED, Work
from tests.faults.cases import CASES, STEADY, Case
from tests.faults.conftest import Drill
from tests.faults.nemesis import Scene
from tests.faults.oracle import read_all
from tests.support.system import until


@dataclass(frozen=True)
class Given(Case):
    """A case with its number said."""

    number: int = 0

    def work(self, random: Random) -> Work:
        return Work(self.number)


def given(flow: str, number: int) -> Given:
    case = CASES[flow]
    return Given(case.flow, case.weight, case.expect, number=number)


STEADY_OR_LONG = [*STEADY, CASES["long"]]
MB = 2**20


def ended_of(scene: Scene, flow: str) -> int:
    """How many runs of a flow have ended."""
    return sum(run.flow == flow for run in scene.load.ended.values())


async def peak_memory(scene: Scene) -> int:
    """The most that the server ever used, in bytes."""
    info = await scene.store.execute("INFO", "memory")
    (line,) = [one for one in info.splitlines() if one.startswith(b"used_memory_peak:")]
    return int(line.partition(b":")[2])


def test_13_what_a_node_returns_or_raises_never_ends_its_worker(drill: Drill) -> None:
    """Nor does it reach Redis: the peak of its memory says so."""

    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        before = [member.pids() for member in scene.cluster.workers]
        peak = await peak_memory(scene)
        numbers = [*range(len(ILL_BEHAVED))] * 2
        scene.random.shuffle(numbers)
        for number in numbers:
            scene.load.start(given("misbehaving", number))
        await until(lambda: ended_of(scene, "misbehaving") == len(numbers), "all have failed")
        await scene.is_busy()
        assert [member.pids() for member in scene.cluster.workers] == before
        assert await peak_memory(scene) - peak < 30 * MB

    report = drill(scenario, cases=STEADY_OR_LONG)
    assert report.repeated == []  # who ran beside it noticed nothing


def test_14_a_node_that_nothing_can_stop_loses_its_slot_and_harms_no_neighbour(
    drill: Drill,
) -> None:
    """That it never ran twice at once is what the checker holds (I3)."""

    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        before = {pid for member in scene.cluster.workers for pid in member.children()}
        numbers = [0, 1, 3, 5]
        scene.random.shuffle(numbers)
        # One at a time: what waits behind a blocked loop may itself overrun so short a timeout.
        for done, number in enumerate(numbers):
            scene.load.start(given("overrunning", number))
            await until(lambda n=done: ended_of(scene, "overrunning") > n, "it has ended")
        after = {pid for member in scene.cluster.workers for pid in member.children()}
        assert after != before
        await scene.is_busy()

    report = drill(scenario, cases=STEADY_OR_LONG)
    assert report.crashes == 0
    strange = [line for line in report.repeated if " overrunning 2.0: 2 attempts" not in line]
    assert strange == []
    assert len(report.repeated) == 4


def test_15_a_node_that_kills_its_process_fails_as_poison_and_innocents_complete(
    drill: Drill,
) -> None:
    poisonous = 3

    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        for number in range(poisonous):
            scene.load.start(given("poisonous", number))
        for case in STEADY:
            scene.load.start(case, 100 // len(STEADY))
        await until(
            lambda: ended_of(scene, "poisonous") == poisonous, "what kills is known as poison"
        )
        await scene.is_busy()
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
        await scene.is_busy()
        children = [pid for member in scene.cluster.workers for pid in member.children()]
        for pid in children:
            now = address_space(pid)
            resource.prlimit(pid, resource.RLIMIT_AS, (now + 200 * MB, resource.RLIM_INFINITY))
        scene.load.start(CASES["hungry"], 6)
        await until(lambda: ended_of(scene, "hungry") == 6, "all have ended")
        assert children == [pid for member in scene.cluster.workers for pid in member.children()]

    report = drill(scenario, cases=STEADY)
    assert report.crashes == 0


def address_space(pid: int) -> int:
    """The size of its address space in bytes (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()
