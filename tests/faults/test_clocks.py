"""Fault 11: the clock on somebody's wall jumps an hour, forward and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from resolute.store import registry
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.faults import oracle
from tests.faults.app import ticked
from tests.faults.losses import Trial, trial
from tests.support.clock import WallClock
from tests.support.system import until

HOUR = 3600  # s


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path / "clock")


def ticks(on: Trial) -> list[oracle.Line]:
    """What the schedule of every second has started, in order of time."""
    lines = oracle.read_all(on.cluster.system.folder)
    return [line for line in lines if line.what == "start" and line.node == ticked.name]


async def has_ticked(on: Trial, count: int) -> None:
    """Wait until the schedule has started so many more."""
    done = len(ticks(on))
    await until(lambda: len(ticks(on)) >= done + count, f"{count} more ticks")


def assert_ticked_in_step(on: Trial, jumps: int = 0) -> None:
    """I9: each tick once, and never more of them than seconds: what was missed is one.

    The first may be late on a busy machine, so it is counted from before there was a schedule.
    """
    found = ticks(on)
    assert not {run: n for run, n in Counter(line.run for line in found).items() if n > 1}
    seconds = found[-1].at - on.began
    assert len(found) <= seconds + 1 + jumps


def crashes(on: Trial) -> int:
    """How many the nodes of all runs have to their account."""
    return sum(ended.crashes for ended in on.load.ended.values())


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["forward", "back"])
@pytest.mark.parametrize("whose", ["worker", "coordinator"])
async def test_11_nothing_depends_on_the_clocks_of_workers_and_coordinators(
    clock: WallClock, tmp_path: Path, seed: int, binary: ServerBinary, whose: str, offset: int
) -> None:
    with EmbeddedServer(tmp_path / "server", binary=binary) as server:
        async with trial(
            server, tmp_path, seed,
            of_workers=clock.variables if whose == "worker" else None,
            of_coordinators=clock.variables if whose == "coordinator" else None,
        ) as on:  # fmt: skip
            await on.is_busy()
            for at in (offset, 0):
                clock.set(at)
                await on.is_busy(10)
                await has_ticked(on, 2)
        assert_ticked_in_step(on)
        if whose == "worker":  # it did jump: between two of its lines
            lines = oracle.read_all(on.cluster.system.folder)
            apart = [line.wall - line.at for line in lines if line.what == "end"]
            assert max(apart) - min(apart) > HOUR / 2
        assert crashes(on) == 0


@asynccontextmanager
async def ticking(
    clock: WallClock, folder: Path, seed: int, binary: ServerBinary
) -> AsyncGenerator[Trial]:
    """A system that is busy, on a server with this clock, which costs nobody a crash."""
    with EmbeddedServer(folder / "server", binary=binary, environment=clock.variables) as server:
        async with trial(server, folder, seed) as on:
            await on.is_busy()
            await has_ticked(on, 1)
            yield on
        assert_ticked_in_step(on, on.forward_jumps)
        assert crashes(on) == 0


async def _is_past(on: Trial, time: int) -> bool:
    return await registry.server_ms(on.store) >= time


async def test_11_a_clock_of_redis_that_jumps_forward_ends_no_lease_and_makes_up_for_one_tick(
    clock: WallClock, tmp_path: Path, seed: int, binary: ServerBinary
) -> None:
    async with ticking(clock, tmp_path, seed, binary) as on:
        before = await registry.server_ms(on.store)
        clock.set(HOUR)
        # Not at once: a server asks for the time once for what it reads together.
        await until(lambda: _is_past(on, before + HOUR * 1000), "the clock has jumped")
        on.forward_jumps = 1
        await on.is_busy(20)
        await has_ticked(on, 3)


async def test_11_while_a_clock_of_redis_is_behind_runs_go_on_and_no_tick_comes_twice(
    clock: WallClock, tmp_path: Path, seed: int, binary: ServerBinary
) -> None:
    """What waits for a time that it had passed, timers and ticks, waits until it is there again."""
    async with ticking(clock, tmp_path, seed, binary) as on:
        clock.set(-HOUR)
        await on.is_busy(30)
        clock.set(0)
        on.forward_jumps = 1
        await on.is_busy(10)
        await has_ticked(on, 3)
