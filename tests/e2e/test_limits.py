"""A limit holds over all processes, is used, and delays nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from resolute.testing.server import ServerBinary
from tests.bench.limiter import judge
from tests.e2e import app
from tests.e2e.app import Word
from tests.support.system import System, until

RATE, BURST = 100, 20  # of the limiter in the app


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_shared_limit_is_kept_and_used_by_four_processes(
    make_system: Callable[..., System], one_binary: ServerBinary, partitions: int
) -> None:
    system = make_system(one_binary, partitions=partitions)
    system.coordinator()
    system.worker("--processes", "2")
    system.worker("--processes", "2")
    limited = 600

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "throttled", processes=4)
            runs = await client.start_many(app.throttled, [Word(f"l{i}") for i in range(limited)])
            # While hundreds wait for their turn, what has no limit goes straight through.
            await until(lambda: len(system.lines("limited")) > BURST, "the limit bites")
            quick = await client.start(app.unthrottled, Word("quick"))
            await quick.result()
            assert len(system.lines("limited")) < limited
            await asyncio.gather(*(one.result() for one in runs))

    asyncio.run(run())
    starts = [float(line[-1]) for line in system.lines("limited")]
    span = starts[-1] - starts[0]
    verdict = judge(starts, RATE, BURST, span)
    assert verdict.starts == limited
    assert verdict.worst_excess <= 0
    assert verdict.used > 0.9
    assert len({line[-2] for line in system.lines("limited")}) == 4
