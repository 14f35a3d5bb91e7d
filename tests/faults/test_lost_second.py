"""Fault 3b: a server that comes back as it was a second ago, under processes that live on."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.faults.losses import Loss, Trial, assert_only_lost, trial


@pytest.mark.parametrize("partitions", [1, 3], ids=lambda count: f"P{count}")
async def test_03b_after_a_lost_second_no_old_reply_matches_the_new_timeline(
    tmp_path: Path, seed: int, binary: ServerBinary, partitions: int
) -> None:
    # Under everysec a write may come to the file after its answer, while an fsync takes long.
    with EmbeddedServer(tmp_path / "server", binary=binary, appendfsync="no") as server:
        async with trial(server, tmp_path, seed, partitions=partitions) as on:
            for _ in range(2):
                await on.is_busy()
                await lose_a_second(on, server, tmp_path / "copy")
            await on.is_busy()
        assert_only_lost(on)


async def lose_a_second(on: Trial, server: EmbeddedServer, copy: Path) -> None:
    """Start the server again on its file of a while ago; everybody sends again what was open."""
    file = server.directory / "appendonlydir"
    since = time.monotonic()
    shutil.copytree(file, copy)
    await on.acknowledged(on.random.randrange(5, 30))
    await on.is_busy(1)
    await asyncio.to_thread(server.kill)
    shutil.rmtree(file)
    shutil.move(copy, file)
    await asyncio.to_thread(server.start)
    on.losses.append(Loss(since, time.monotonic()))
