"""Faults 1, 2, 7 and 18: processes that are killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.faults import nemesis
from tests.faults.cases import CASES
from tests.faults.conftest import Drill
from tests.faults.nemesis import Scene
from tests.support.system import until

# Nodes of a second and a half, so that there is always one to be killed, and others in between.
SLOW = "slow-"
LONG = [CASES["long"], CASES["fan"], CASES["saga"]]
STEADY = [CASES[name] for name in ("sequence", "fan", "branching", "saga")]  # no retries in them


async def is_busy(scene: Scene) -> None:
    """Wait until the load is under way."""
    done = len(scene.load.ended)
    await until(lambda: len(scene.load.ended) > done + 5, "runs come to their ends")


def test_01_nodes_of_a_killed_process_run_again(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        for round_ in range(4):
            await is_busy(scene)
            member = scene.some(scene.cluster.workers)
            await until(lambda m=member: bool(scene.running(m.children(), SLOW)), "it runs a node")
            (child,) = scene.running(member.children(), SLOW)
            if round_ % 2:
                scene.cluster.kill(member)
                scene.cluster.start_again(member)
            else:
                scene.cluster.kill(member, child)

    report = drill(scenario, cases=LONG)
    after_a_child = report.recovery["a worker process"]
    after_a_supervisor = report.recovery["a supervisor"]
    # A supervisor knows at once that its child is dead; its own death is known after its lease.
    assert min(after_a_supervisor) > report.plan.lease / 2
    assert min(after_a_child) < min(after_a_supervisor)
    assert report.crashes > 0


def test_02_runs_go_on_as_soon_as_one_coordinator_lives(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        for _ in range(3):
            await is_busy(scene)
            await nemesis.kill_coordinator(scene)
        await is_busy(scene)
        members = scene.cluster.coordinators
        for member in members:  # three at once, and none for a while
            scene.cluster.kill(member)
        seconds = 30.0 if scene.random.random() < 0.2 else 2 * scene.lease
        scene.standstill = seconds
        await scene.pass_time(seconds, seconds)
        for member in members:
            scene.cluster.start_again(member)
        await is_busy(scene)

    report = drill(scenario, cases=STEADY, coordinators=3)
    assert report.repeated == []


@pytest.mark.parametrize("which", ["supervisor", "child", "both", "coordinator"])
def test_07_a_process_that_slept_beyond_its_lease_cannot_commit(drill: Drill, which: str) -> None:
    async def scenario(scene: Scene) -> None:
        await is_busy(scene)
        kind = scene.cluster.coordinators if which == "coordinator" else scene.cluster.workers
        member = scene.some(kind)
        pids = {"supervisor": slice(0, 1), "child": slice(1, None)}.get(which, slice(None))
        await scene.cluster.freeze(
            member.pids()[pids], scene.lease * scene.random.uniform(1.2, 1.8)
        )
        await is_busy(scene)

    report = drill(scenario, cases=LONG, coordinators=2)
    if which in ("child", "coordinator"):
        assert report.crashes == 0  # its lease went on; nobody else took its nodes


def test_18_a_rolling_restart_uses_up_no_attempt(drill: Drill, seed: int) -> None:
    rounds = 10 if seed > 1 else 4  # of two workers each

    async def scenario(scene: Scene) -> None:
        for _ in range(rounds):
            await is_busy(scene)
            await nemesis.restart_workers(scene)
            for member in scene.cluster.coordinators:
                member.is_down = True
                member.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(member.process.wait)
                scene.cluster.start_again(member)

    report = drill(scenario, cases=[*STEADY, CASES["long"]])
    assert report.repeated == []
