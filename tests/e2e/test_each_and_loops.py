"""Lists that are known only at run time, and loops, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from examples.import_contacts.flows import Imported, Source, flow
from resolute import FlowFailed
from resolute.status import NodeStatus
from resolute.testing.server import ServerBinary
from tests.e2e import lists
from tests.support.processes import children_of
from tests.support.system import System, until

APP = "examples.import_contacts.flows"


@pytest.fixture
def listing(system: System) -> System:
    system.worker("--processes", "2", app="tests.e2e.lists")
    return system


@pytest.mark.parametrize("partitions", [1, 3])
def test_pages_are_fetched_in_a_loop_and_each_contact_is_imported(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    system.coordinator()
    system.worker("--processes", "2", app=APP)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, flow.name)
            for contacts, turns in ((0, 1), (23, 3), (40, 4)):
                one = await client.start(flow, Source(contacts))
                failed = sum(number % 10 == 7 for number in range(contacts))
                assert await one.result() == Imported(turns, contacts, failed)
                statuses = [
                    node.status for node in await one.history() if node.name == "import-contact"
                ]
                assert len(statuses) == contacts
                assert statuses.count(NodeStatus.FAILED) == failed

    asyncio.run(run())


def test_the_output_of_an_each_is_the_list_in_the_order_of_its_items(listing: System) -> None:
    async def run() -> None:
        async with listing.client() as client:
            await listing.offered(client, lists.squares.name)
            for count in (0, 1, 1300):
                one = await client.start(lists.squares, count)
                assert await one.result() == sum(n * n for n in range(count))
            plain = await client.start(lists.plain, [3, 1, 2])
            assert await plain.result() == [9, 1, 4]
            holes = await client.start(lists.forgiving, 5)
            assert await holes.result() == [0, None, 2, None, 4]

    asyncio.run(run())


def test_never_more_than_the_window_run_at_once(listing: System) -> None:
    async def run() -> None:
        async with listing.client() as client:
            await listing.offered(client, lists.few.name)
            await (await client.start(lists.few, 40)).result()

    asyncio.run(run())
    moments = [(float(line[-1]), 1) for line in listing.lines("in")]
    moments += [(float(line[-1]), -1) for line in listing.lines("out")]
    inside = most = 0
    for _, change in sorted(moments):
        inside += change
        most = max(most, inside)
    assert len(moments) == 80
    assert most <= 4


def test_an_item_that_fails_fails_the_step_and_those_that_completed_are_undone(
    listing: System,
) -> None:
    async def run() -> None:
        async with listing.client() as client:
            await listing.offered(client, lists.picky.name)
            one = await client.start(lists.picky, 6)
            with pytest.raises(FlowFailed, match="not 4"):
                await one.result()
            history = await one.history()
            done = [n.index for n in history if n.name == "pick" and n.status == "completed"]
            undone = [n.index for n in history if n.compensates == "pick"]
            assert sorted(done) == sorted(undone)

    asyncio.run(run())


def test_what_cannot_be_listed_fails_the_run_and_says_which_item(listing: System) -> None:
    async def run() -> None:
        async with listing.client() as client:
            await listing.offered(client, lists.unlistable.name)
            with pytest.raises(FlowFailed, match=r"items\[1\]"):
                await (await client.start(lists.unlistable, 0)).result()

    asyncio.run(run())


def test_a_loop_goes_on_where_a_killed_worker_left_it_and_leaves_no_turns_behind(
    system: System,
) -> None:
    worker = system.worker(app="tests.e2e.lists")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, lists.counting.name)
            one = await client.start(lists.counting, 60)
            await until(lambda: len(system.lines("turn")) > 10, "it turns")
            os.kill(children_of(worker.pid)[0], signal.SIGKILL)
            counted = await one.result()
            assert counted == lists.Counter(60, 60)
            key = client.store.keys.of(one.id).flow(one.id)
            names = await client.store.execute("HKEYS", key)
            steps = [name for name in names if name.startswith(b"s:")]
            assert len(steps) < 12
            undone = [name for name in names if name.startswith(b"ui:")]
            assert len(undone) == 60

    asyncio.run(run())
    numbers = [int(line[1]) for line in system.lines("turn")]
    assert sorted(set(numbers)) == list(range(60))


def test_a_loop_that_turns_too_often_fails_and_its_turns_are_undone(listing: System) -> None:
    async def run() -> None:
        async with listing.client() as client:
            await listing.offered(client, lists.endless.name)
            one = await client.start(lists.endless, 0)
            with pytest.raises(FlowFailed, match="more than its 7 turns"):
                await one.result()

    asyncio.run(run())
    assert len(listing.lines("turn")) == 7
    undone = [int(line[1]) for line in listing.lines("undo")]
    assert undone == list(range(6, -1, -1))


def test_a_failed_run_is_retried_from_the_item_s_step(listing: System) -> None:
    async def run() -> None:
        async with listing.client() as client:
            await listing.offered(client, lists.mendable.name)
            one = await client.start(lists.mendable, 5)
            with pytest.raises(FlowFailed, match="not yet"):
                await one.result()
            listing.release("mended")
            again = await client.retry(one.id)
            found: Any = await again.result()
            assert found == [0, 1, 2, 3, 4]
            assert msgspec.to_builtins((await again.info()).retry_of) == one.id

    asyncio.run(run())
