"""Fault 4: the power goes, and with it all that no fsync has covered, under processes that live."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from resolute.durability import Durability
from resolute.testing.server import ServerBinary
from tests.faults.losses import Loss, Trial, assert_only_lost, trial
from tests.support.disk import Disk
from tests.support.durable import is_honest
from tests.support.system import until

FAST, FSYNC = Durability.FAST, Durability.FSYNC


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
async def test_04_starts_and_ends_acknowledged_with_fsync_outlive_the_power(
    tmp_path: Path, seed: int, server_binary: ServerBinary, appendfsync: str
) -> None:
    disk = Disk(tmp_path / "disk", binary=server_binary, appendfsync=appendfsync)
    if appendfsync == "everysec" and not is_honest(disk.server):
        pytest.skip("this server's WAITAOF is not believed under everysec")
    with disk:
        async with trial(disk.server, tmp_path, seed, levels=(FSYNC, FAST)) as on:
            for _ in range(3):
                await on.is_busy()
                since = time.monotonic()
                await asyncio.to_thread(disk.lose_power)
                await come_back(on, disk, since)
            await on.is_busy()
        assert_only_lost(on, [FSYNC])
        if appendfsync == "always":  # an answer comes after its fsync, whoever asked for it
            assert not on.gone()
        assert all(one.told for one in on.load.tracked.values() if one.level is FSYNC)


async def test_04_without_fsync_a_run_outlives_the_power_whole_or_not_at_all(
    tmp_path: Path, seed: int, binary: ServerBinary
) -> None:
    with Disk(tmp_path / "disk", binary=binary) as disk:
        async with trial(disk.server, tmp_path, seed) as on:
            for _ in range(2):
                await on.is_busy()
                since = await synced(disk)
                with disk.held():
                    await on.acknowledged(on.random.randrange(5, 30))
                    await asyncio.to_thread(disk.lose_power)
                await come_back(on, disk, since)
            await on.is_busy()
        assert_only_lost(on)
        assert on.gone()


async def synced(disk: Disk) -> float:
    """A moment before which everything is on the disk."""
    moment, syncs = time.monotonic(), disk.syncs()
    await until(lambda: disk.syncs() >= syncs + 2, "an fsync began after that, and has ended")
    return moment


async def come_back(on: Trial, disk: Disk, since: float) -> None:
    """The power is back; what is gone was acknowledged after `since`."""
    await asyncio.to_thread(disk.start)
    on.losses.append(Loss(since, time.monotonic()))
