"""No more than n at one time, over all processes; places of the killed are free after a lease."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from resolute import Client, FlowRun, RunStatus
from resolute.cli.show.snapshot import take_snapshot
from resolute.cli.show.waiting import WaitKind
from resolute.testing.server import ServerBinary
from tests.e2e import seats
from tests.e2e.app import Word
from tests.support.system import System, until

APP = "tests.e2e.seats"


def most_at_once(system: System, *whose: str) -> int:
    """How many executions overlapped, by what nodes wrote down when they began and ended."""
    found = [
        (float(line[-1]), 1 if line[0] == "sit" else -1)
        for what in ("sit", "rise")
        for line in system.lines(what, *whose)
    ]
    running = most = 0
    for _, change in sorted(found):
        running += change
        most = max(most, running)
    return most


async def in_line(client: Client, limit: str) -> int:
    line = client.store.keys.meta.places(limit)[1]
    return int(await client.store.execute("ZCARD", line))


@pytest.mark.parametrize("partitions", [1, 3])
def test_no_more_run_at_once_than_the_limit_over_two_workers(
    make_system: Callable[..., System], one_binary: ServerBinary, partitions: int
) -> None:
    system = make_system(one_binary, partitions=partitions)
    system.coordinator()
    system.worker("--processes", "2", app=APP)
    system.worker("--processes", "2", app=APP)
    count = 300

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "seated", processes=4)
            words = [Word(f"w{number}", number) for number in range(count)]
            runs = await client.start_many(seats.seated, words)
            runs += await client.start_many(seats.sharing, words[:100])
            await asyncio.gather(*(one.result() for one in runs))

    asyncio.run(run())
    assert most_at_once(system) == seats.SEATS
    for number in range(4):
        assert most_at_once(system, f"tenant-{number}") == seats.OF_A_TENANT
    assert len(system.lines("sit", "all")) == count
    assert len({line[-2] for line in system.lines("sit", "all")}) == 4


def test_places_of_a_killed_process_are_free_after_its_lease(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary)
    system.coordinator()
    system.worker(app=APP)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "staying")
            first = await client.start_many(seats.staying, [Word("a"), Word("b")])
            await until(lambda: len(system.lines("sit", "stays")) == seats.STAYS, "all are taken")
            later = await client.start_many(seats.staying, [Word("c"), Word("d")])
            await until(lambda: waits(client, 2), "the others are in line")
            snapshot = await take_snapshot(client, later[0].id)
            assert snapshot.waits[0].kind is WaitKind.CONCURRENCY
            assert "concurrency limit stays" in snapshot.waits[0].text
            os.kill(system.processes[1].pid, signal.SIGKILL)
            for one in first:  # nobody else will ask for a place in their stead
                await one.cancel()
            system.worker(app=APP)
            await until(lambda: {"c", "d"} <= sitting(system), "they have the places of the dead")
            for name in "cd":
                system.release(name)
            await asyncio.gather(*(one.result() for one in later))
            for one in first:
                await until(lambda one=one: is_over(one), "it is cancelled")
                assert await one.status() is RunStatus.CANCELLED

    async def waits(client: Client, count: int) -> bool:
        return await in_line(client, "stays") == count

    async def is_over(one: FlowRun[Any]) -> bool:
        return (await one.status()).is_terminal

    asyncio.run(run())


def sitting(system: System) -> set[str]:
    return {line[2] for line in system.lines("sit", "stays")}


def test_who_waits_costs_little_and_a_cancelled_one_delays_nobody(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary)
    system.coordinator()
    system.worker(app=APP)
    count = 300

    async def calls(client: Client) -> int:
        stats = str(await client.store.execute("INFO", "commandstats"), "utf-8")
        line = next(line for line in stats.splitlines() if line.startswith("cmdstat_evalsha:"))
        return int(line.partition("calls=")[2].partition(",")[0])

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "staying")
            names = [f"w{number}" for number in range(count)]
            runs = await client.start_many(seats.staying, [Word(name) for name in names])

            async def all_wait() -> bool:
                return await in_line(client, "stays") == count - seats.STAYS

            await until(all_wait, "they are in line")
            sat = sitting(system)
            waiting = [one for one, name in zip(runs, names, strict=True) if name not in sat]
            for one in waiting[:-1]:
                assert await one.cancel()
            before = await calls(client)
            for name in names:
                system.release(name)
            await waiting[-1].result()
            # Each of those that are gone costs a look at its run, and one at the line, at most.
            assert await calls(client) - before < 4 * count
            assert len(system.lines("sit", "stays")) == seats.STAYS + 1

    asyncio.run(run())
