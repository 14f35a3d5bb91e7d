"""Faults 1, 2, 7 and 18: processes that are killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import nemesis
from tests.faults.cases import CASES, LONG, STEADY
from tests.faults.conftest import Drill
from tests.faults.nemesis import Scene
from tests.faults.oracle import Line, read_all
from tests.support.processes import is_alive
from tests.support.system import until

SLOW = "slow-"  # what the names of long nodes begin with


def test_01_nodes_of_a_killed_process_run_again(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        for round_ in range(4):
            await scene.is_busy()
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
    assert min(after_a_supervisor).seconds > report.plan.lease / 2
    assert min(after_a_child) < min(after_a_supervisor)
    assert report.crashes > 0


def test_02_runs_go_on_as_soon_as_one_coordinator_lives(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        for _ in range(3):
            await scene.is_busy()
            await nemesis.kill_coordinator(scene)
        await scene.is_busy()
        members = scene.cluster.coordinators
        for member in members:  # three at once, and none for a while
            scene.cluster.kill(member)
        seconds = 30.0 if scene.random.random() < 0.2 else 2 * scene.lease
        scene.standstill = seconds
        await scene.pass_time(seconds, seconds)
        for member in members:
            scene.cluster.start_again(member)
        await scene.is_busy()

    report = drill(scenario, cases=STEADY, coordinators=3)
    assert report.repeated == []


@pytest.mark.parametrize("which", ["supervisor", "child", "both", "coordinator"])
def test_07_a_process_that_slept_beyond_its_lease_cannot_commit(drill: Drill, which: str) -> None:
    asleep: list[Line] = []  # the nodes that ran in what was frozen
    late: list[Line] = []  # those of them that returned after another process had begun them
    ended: list[int] = []

    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        folder = scene.cluster.system.folder
        kind = scene.cluster.coordinators if which == "coordinator" else scene.cluster.workers
        member = scene.some(kind)
        pids = {"supervisor": slice(0, 1), "child": slice(1, None)}.get(which, slice(None))
        frozen = member.pids()[pids]
        least = 1.2
        if which == "both":
            least = 1.6  # so that somebody else has taken its nodes
            await until(lambda: bool(just_begun(folder, frozen)), "it has begun a slow node")
        since = time.monotonic()
        await scene.cluster.freeze(frozen, scene.lease * scene.random.uniform(least, 1.8))
        await scene.is_busy()
        ended.extend(pid for pid in frozen if not is_alive(pid))
        lines = [line for line in read_all(folder) if line.what in ("start", "end", "stop")]
        thawed = since + scene.lease  # before it nothing can have been written
        before = {line.mark for line in lines if line.what != "start" and line.at < thawed}
        asleep.extend(
            line
            for line in lines
            if line.pid in frozen and line.at < since and line.mark not in before
        )
        marks = {line.mark for line in asleep}
        again = {
            (line.run, line.seq, line.index): line.at
            for line in lines
            if line.what == "start" and line.at > since and line.mark not in marks
        }
        late.extend(
            line
            for line in lines
            if line.what == "end"
            and line.mark in marks
            and again.get((line.run, line.seq, line.index), line.at) < line.at
        )

    report = drill(scenario, cases=LONG, coordinators=2)
    if which in ("child", "coordinator"):
        assert report.crashes == 0  # its lease went on; nobody else took its nodes
    if which == "both":
        assert asleep
        # Else they were stopped, or their process was ended, before they could commit.
        assert report.stale >= 1 or not late or ended


def just_begun(folder: Path, pids: Sequence[int]) -> list[Line]:
    """The slow nodes that these processes have in hand, and will have for a second more."""
    return [
        line
        for line in read_all(folder)
        if line.what == "start"
        and line.pid in pids
        and line.node.startswith("slow-")
        and line.at > time.monotonic() - 0.5
    ]


def test_18_a_rolling_restart_uses_up_no_attempt(drill: Drill, seed: int) -> None:
    rounds = 10 if seed > 1 else 4  # of two workers each

    async def scenario(scene: Scene) -> None:
        for _ in range(rounds):
            await scene.is_busy()
            await nemesis.restart_workers(scene)
            for member in scene.cluster.coordinators:
                member.is_down = True
                member.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(member.process.wait)
                scene.cluster.start_again(member)

    report = drill(scenario, cases=[*STEADY, CASES["long"]])
    assert report.repeated == []
