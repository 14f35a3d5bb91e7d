"""Faults 3, 5, 8, 9, 19, 23 and 24: what Redis can do to us."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults import nemesis
from tests.faults.cases import CASES, STEADY
from tests.faults.conftest import Drill
from tests.faults.nemesis import Scene
from tests.support.system import until


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
def test_03_a_killed_redis_loses_nothing_and_costs_no_attempt(
    drill: Drill, appendfsync: str
) -> None:
    async def scenario(scene: Scene) -> None:
        for seconds in (0.0, scene.lease * 0.5, scene.lease * 2.0):
            await scene.is_busy()
            server = scene.cluster.system.server
            await asyncio.to_thread(server.kill)
            await scene.pass_time(seconds, seconds)
            await asyncio.to_thread(server.start)
        await scene.is_busy()

    report = drill(scenario, cases=[*STEADY, CASES["long"]], appendfsync=appendfsync)
    assert report.repeated == []


def test_05_scripts_groups_and_streams_that_are_lost_are_made_anew(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        for lose in (nemesis.flush_scripts, nemesis.destroy_group, nemesis.delete_stream) * 2:
            await scene.is_busy()
            await lose(scene)
        for stream, _ in scene.streams():
            await scene.command("DEL", stream)
        await scene.is_busy()

    report = drill(scenario, cases=[*STEADY, CASES["long"]])
    assert report.crashes == 0


def test_08_a_lost_answer_is_asked_for_again_and_nothing_happens_twice(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        for _ in range(3):
            await scene.is_busy()
            for proxy in scene.cluster.proxies:
                proxy.lose_next(scene.random.choice((b"XREADGROUP", b"EVALSHA")))
        await scene.is_busy()
        await nemesis.lose_answers(scene)
        await scene.is_busy()
        assert sum(proxy.lost for proxy in scene.cluster.proxies) > 5

    report = drill(scenario)
    assert report.crashes == 0


def test_09_doubled_stale_and_reordered_entries_are_absorbed(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        for _ in range(4):
            await scene.is_busy()
            await nemesis.double_entries(scene)

    drill(scenario)


def test_19_in_a_full_memory_starts_are_refused_and_work_drains(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        await scene.command("CONFIG", "SET", "maxmemory", "1mb")

        async def drained() -> bool:
            counts = [
                await scene.store.execute("ZCARD", partition.open)
                for partition in scene.store.keys.partitions
            ]
            return sum(counts) == 0

        await until(drained, "every run that was there has ended")
        await scene.command("CONFIG", "SET", "maxmemory", "0")
        await scene.is_busy()

    report = drill(scenario)
    assert report.crashes == 0


def test_23_a_redis_that_stalls_for_less_than_a_lease_costs_nobody_an_attempt(
    drill: Drill,
) -> None:
    async def scenario(scene: Scene) -> None:
        for part in (0.2, 0.5, 0.8):
            await scene.is_busy()
            server = scene.cluster.system.server
            await asyncio.to_thread(server.pause)
            await scene.pass_time(part * scene.lease, part * scene.lease)
            server.resume()
        await scene.is_busy()

    report = drill(scenario, cases=[*STEADY, CASES["long"]])
    assert report.repeated == []
