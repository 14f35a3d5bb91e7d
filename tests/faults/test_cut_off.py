"""Faults 5 (everything is gone) and 6: processes without Redis, and Redis without anything."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

import pytest

from resolute import Client, UnknownRun
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.faults import app
from tests.faults.app import Work
from tests.faults.cases import LONG
from tests.faults.checker.lines import CutOff
from tests.faults.cluster import Cluster
from tests.faults.conftest import Drill
from tests.faults.nemesis import Scene
from tests.faults.oracle import read_all
from tests.support.processes import is_alive
from tests.support.system import System, first_use, until

LEASE = 3.0  # s


@pytest.mark.parametrize("hard", [False, True], ids=["swallowed", "refused"])
def test_06_a_worker_that_is_cut_off_stops_its_nodes_before_its_lease_ends(
    drill: Drill, hard: bool
) -> None:
    spans: list[CutOff] = []

    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        member = scene.some(scene.cluster.workers)
        pids = member.pids()
        await until(lambda: bool(scene.running(pids)), "it runs a node")
        since = time.monotonic()
        await scene.cluster.isolate(member, 2 * scene.lease, hard=hard)
        spans.extend(CutOff(pid, since, since + 2 * scene.lease) for pid in pids)
        # Nothing excuses an overlap here: who is only cut off is to stop by itself.
        scene.cluster.cut_off.clear()
        await scene.is_busy()
        (span, *_) = [span for span in spans if span.pid in pids[1:]]
        lines = read_all(scene.cluster.system.folder)
        ended = [line.at for line in lines if line.pid == span.pid and line.what in ("end", "stop")]
        late = [at for at in ended if span.since + scene.lease < at < span.until]
        assert late == [], "a node went on beyond the lease"

    drill(scenario, cases=LONG)


def test_05_after_flushall_nobody_crashes_or_spins_and_new_runs_go_through(
    tmp_path: Path, seed: int, binary: ServerBinary
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "oracle").mkdir()
    partitions = (1, 3)[seed % 2]

    async def run(cluster: Cluster) -> None:
        system = cluster.system
        cluster.add_coordinator()
        cluster.add_worker()
        async with system.client() as client:
            await system.offered(client, app.sequence.name)
            await (await client.start(app.sequence, Work(1))).result(timeout=30)
            lost = await client.start(app.long, Work(2))
            before = [pid for member in cluster.members for pid in member.pids()]
            await cluster.admin.execute("FLUSHALL")
            await until(lambda: _goes_through(client), "a new run goes through")
            with pytest.raises(UnknownRun):
                await lost.result(timeout=30)
            # The processes that forgot who they are have been replaced: to start one costs a
            # command for each stream that it reads, which is no spinning.
            await system.offered(client, app.sequence.name)
            commands = await _commands(cluster)
            for _ in range(5):
                await (await client.start(app.sequence, Work(3))).result(timeout=30)
            assert await _commands(cluster) - commands < 2000, "somebody spins"
            # Who is told that it is not registered any more may end a process, never a program.
            assert all(is_alive(member.process.pid) for member in cluster.members)
            assert {member.process.pid for member in cluster.members} <= set(before)
        async with system.client() as client:  # who comes anew finds what it needs, too
            await (await client.start(app.fan, Work(4))).result(timeout=30)
            assert client.store.keys.count == partitions

    async def play() -> None:
        with EmbeddedServer(tmp_path / "server", binary=binary) as server:
            await first_use(server.url, partitions)
            cluster = Cluster(System(server, tmp_path / "oracle"), Random(seed), LEASE)
            try:
                await run(cluster)
            finally:
                await cluster.close()
                print(cluster.system.logs())

    asyncio.run(play())


async def _goes_through(client: Client) -> bool:
    try:
        run = await client.start(app.sequence, Work(5))
        await run.result(timeout=10)
    except Exception as error:
        print(f"not yet: {error!r}")
        return False
    return True


async def _commands(cluster: Cluster) -> int:
    info = str(await cluster.admin.execute("INFO", "stats"), "utf-8")
    return int(info.partition("total_commands_processed:")[2].split()[0])
