"""A real worker under a flood of high nodes: who begins when, by what nodes wrote down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from resolute import Client
from resolute.priority import Priority, lanes_of
from resolute.testing.server import ServerBinary
from tests.e2e import ranks
from tests.e2e.app import Word
from tests.support.system import System, until

APP = "tests.e2e.ranks"
LOW, NORMAL, HIGH = 12, 40, 150  # runs: while the first 100 begin, each has more than its share
SLOTS = 2


async def waiting(client: Client) -> int:
    """How many nodes are in the lanes, and not with a worker."""
    streams = [
        partition.queue(lane)
        for partition in client.store.keys.partitions
        for lane in lanes_of("e2e")
    ]
    return sum([int(await client.store.execute("XLEN", stream)) for stream in streams])


async def flood(system: System, client: Client) -> None:
    """Let the slots be held while all begins to wait: low ones first, then normal, then high."""
    await system.offered(client, "ranked")
    holding = await client.start_many(ranks.occupying, [Word("go")] * SLOTS)
    await until(lambda: len(system.lines("occupy")) == SLOTS, "every slot is taken")
    runs = [*holding]
    for priority, count in ((Priority.LOW, LOW), (Priority.NORMAL, NORMAL)):
        words = [Word(priority, number) for number in range(count)]
        runs += await client.start_many(ranks.ranked, words, priority=priority)
    runs += await client.start_many(ranks.hurried, [Word("high", number) for number in range(HIGH)])
    await until(lambda: _all_wait(client), "all of them wait")
    system.release("go")
    await asyncio.gather(*(run.result() for run in runs))


async def _all_wait(client: Client) -> bool:
    return await waiting(client) == SLOTS + LOW + NORMAL + HIGH


@pytest.mark.parametrize("partitions", [1, 3])
def test_under_a_flood_of_high_nodes_the_others_begin_at_their_share(
    make_system: Callable[..., System], one_binary: ServerBinary, partitions: int
) -> None:
    system = make_system(one_binary, partitions=partitions)
    system.coordinator()
    system.worker("--processes", "1", "--concurrency", str(SLOTS), app=APP)

    async def run() -> None:
        async with system.client() as client:
            await flood(system, client)

    asyncio.run(run())
    began = [line[1] for line in system.lines("rank")]
    assert len(began) == LOW + NORMAL + HIGH
    for slots in range(10, 101, 10):
        first = began[: slots + SLOTS]  # nodes that are together in a process may change places
        assert first.count("low") >= slots // 10
        assert first.count("normal") >= 3 * slots // 10
        assert first.count("high") >= 6 * slots // 10 - SLOTS
    if partitions == 1:
        for priority in Priority:
            numbers = [int(line[2]) for line in system.lines("rank", priority)]
            late = sum(abs(number - place) > SLOTS for place, number in enumerate(numbers))
            assert late == 0  # in the order in which they were started
