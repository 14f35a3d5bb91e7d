"""Starts that share a key, with real processes that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from examples.index_documents.flows import Edit, Rebuild, edits, rebuilds
from resolute import AlreadyRunning, Client, Debounce, FlowCancelled, Unique, sync
from resolute.cli.show.snapshot import take_snapshot
from resolute.cli.show.waiting import WaitKind
from resolute.status import RunStatus
from resolute.testing.server import ServerBinary
from tests.support.system import System, until

APP = "examples.index_documents.flows"
NEVER_OVER = Rebuild(1, 600.0)
QUICK = Rebuild(1, 0.0)
REPLACE = Unique("all", "replace")


def begin(system: System) -> list[int]:
    return [system.coordinator().pid, system.worker(app=APP, queue="default").pid]


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_run_is_replaced_while_everybody_dies(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    pids = begin(system)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, rebuilds.name)
            first = await client.start(rebuilds, NEVER_OVER, unique="all")
            await until(lambda: is_rebuilding(client, first.id), "it rebuilds")
            assert (await client.start(rebuilds, QUICK, unique="all")).id == first.id
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            skipped = await client.start(rebuilds, QUICK, unique=REPLACE)
            last = await client.start(rebuilds, QUICK, unique=REPLACE)
            waits = (await take_snapshot(client, last.id)).waits
            assert {wait.kind for wait in waits} <= {WaitKind.RUN, WaitKind.COORDINATOR}
            begin(system)
            assert await last.result() == 1
            with pytest.raises(FlowCancelled, match=f"replaced by run {last.id}"):
                await skipped.result()
            with pytest.raises(FlowCancelled, match=f"replaced by run {skipped.id}"):
                await first.result()
            restored = [node.name for node in await first.history() if node.compensates]
            assert restored == ["restore-old-index"]
            ended, began = (await first.info()).ended, (await last.history())[0].begun
            assert ended is not None and began is not None and began >= ended
            third = await client.start(rebuilds, QUICK, unique=Unique("all", "fail"))
            assert await third.result() == 1

    asyncio.run(run())


async def is_rebuilding(client: Client, run_id: str) -> bool:
    run = await client.get(run_id)
    return any(node.name == "rebuild" and node.begun for node in await run.history())


def test_edits_are_one_run_also_when_the_coordinator_dies_before_it_begins(
    make_system: Callable[..., System], binary: ServerBinary
) -> None:
    system = make_system(binary, partitions=3)
    pids = begin(system)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, edits.name)
            texts = ("one", "two", "three")
            found = [
                (await client.trigger("edited", Edit("d-1", text), id=text))[0] for text in texts
            ]
            os.kill(pids[0], signal.SIGKILL)
            system.coordinator()
            assert len({one.id for one in found}) == 1
            assert await found[0].result() == "d-1: three"
            (again,) = await client.trigger("edited", Edit("d-1", "two"), id="two")
            assert again.id == found[0].id
            (other,) = await client.trigger("edited", Edit("d-1", "four"), id="four")
            assert await other.result() == "d-1: four"

    asyncio.run(run())


def test_a_client_without_a_loop_shares_keys_too(system: System) -> None:
    begin(system)

    async def offered() -> None:
        async with system.client() as client:
            await system.offered(client, rebuilds.name)

    asyncio.run(offered())
    with sync.Client(system.server.url) as client:
        first = client.start(rebuilds, NEVER_OVER, unique="all")
        with pytest.raises(AlreadyRunning):
            client.start(rebuilds, NEVER_OVER, unique=Unique("all", "fail"))
        assert first.cancel()
        assert client.start(rebuilds, QUICK, unique=REPLACE).result() == 1
        assert first.status() is RunStatus.CANCELLED
        late = client.start(edits, Edit("d", "1"), debounce=Debounce("d", "50ms"))
        assert late.result() == "d: 1"
