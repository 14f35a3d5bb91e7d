"""Pages are kept as they come: whoever dies or fails goes on with the one that is missing."""

from __future__ import annotations

import asyncio

import pytest

from examples.sync_articles.flows import CURSOR, Source, flow
from resolute import FlowFailed
from tests.e2e import paging
from tests.support.system import System


@pytest.fixture
def paged(system: System) -> System:
    system.worker("--processes", "2", app="tests.e2e.paging")
    return system


def pages(system: System) -> list[int]:
    return [int(line[1]) for line in system.lines("page")]


def test_a_worker_that_dies_costs_the_page_it_fetched(paged: System) -> None:
    async def run() -> None:
        async with paged.client() as client:
            await paged.offered(client, paging.killing.name)
            one = await client.start(paging.killing, None)
            assert await one.result() == paging.LETTERS
            (letters, _) = await one.history()
            assert (letters.attempts, letters.crashes) == (1, 1)  # of the last page

    asyncio.run(run())
    assert pages(paged) == [0, 1, 2, 2, 3, 4, 4]


def test_a_retried_run_fetches_what_is_missing(paged: System) -> None:
    async def run() -> None:
        async with paged.client() as client:
            await paged.offered(client, paging.mendable.name)
            one = await client.start(paging.mendable, None)
            with pytest.raises(FlowFailed, match="not yet"):
                await one.result()
            paged.release("allowed")
            again = await client.retry(one.id)
            assert await again.result() == paging.LETTERS

    asyncio.run(run())
    assert pages(paged) == [0, 1, 2, 3, 3, 4]


def test_a_rate_limit_counts_pages(paged: System) -> None:
    """Its bucket has 20 tokens: six runs of five pages need ten more."""

    async def run() -> None:
        async with paged.client() as client:
            await paged.offered(client, paging.limited.name)
            started = await client.start_many(paging.limited, [None] * 6)
            for one in started:
                assert await one.result() == paging.LETTERS

    asyncio.run(run())
    times = [float(line[-1]) for line in paged.lines("page")]
    assert len(times) == 30
    assert times[-1] - times[0] > 0.35  # ten tokens at 20 a second, less the grace of a start


def test_a_second_sync_fetches_what_is_new(system: System) -> None:
    system.worker("--processes", "2", app="examples.sync_articles.flows")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, flow.name)
            for until, batches in ((90, [40, 40, 10]), (100, [10]), (100, [0])):
                one = await client.start(flow, Source(until))
                assert await one.result() == batches[-1]
                (fetched, *others) = await one.history()
                assert fetched.attempts == 1
                assert [n.name for n in others].count("articles.cut") == len(batches)
                assert (await client.cursor(flow.name, CURSOR)).value == until

    asyncio.run(run())
