"""Fault 22: slots move while flows run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

from resolute.store.keys import slot_of
from resolute.testing.server import ServerBinary
from tests.faults.cases import USUAL
from tests.faults.chaos import LEASE, Plan, Soak
from tests.faults.nemesis import Scene
from tests.support.keyspace import all_keys
from tests.support.sharded import sharded

MOVES = 60
AT_ONCE_RATE = 0.3  # of the moves where servers can move a slot as a whole


def test_22_nothing_is_lost_or_doubled_while_a_cluster_is_resharded(
    tmp_path: Path, seed: int, binary: ServerBinary
) -> None:
    """Slots with keys in them, whichever those are just now, go from primary to primary.

    A process of a worker is killed now and then, so that its nodes are taken back meanwhile.
    """
    plan = Plan(
        seconds=0.0, seed=seed, workers=2, coordinators=2, partitions=5, faults=(), open_runs=20,
        cases=USUAL, processes=1, lease=LEASE, binary=binary,
    )  # fmt: skip
    random = Random(seed)

    async def run() -> None:
        async with sharded(tmp_path / "cluster", binary) as servers:

            async def reshard(scene: Scene) -> None:
                await scene.is_busy()
                while servers.moved < MOVES:
                    slots = sorted({slot_of(key) for key in await all_keys(scene.store)})
                    at_once = servers.can_hand_over and random.random() < AT_ONCE_RATE
                    give = servers.hand_over if at_once else servers.move
                    await give(random.choice(slots), random.choice(servers.primaries))
                    if servers.moved % 5 == 0:
                        await scene.is_busy()
                    worker = scene.some(scene.cluster.workers)
                    if servers.moved % 20 == 10 and (processes := worker.children()):
                        scene.cluster.kill(worker, random.choice(processes))
                await scene.is_busy()

            soak = Soak(plan, tmp_path / "drill", print)
            report = await soak.run_on(servers.primaries[0].server, reshard)
            assert not report.broken, "\n".join(
                [f"seed {seed}", *map(str, report.broken), *report.histories.values()]
            )

    asyncio.run(run())
