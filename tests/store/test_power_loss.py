"""Power is lost for real, and what was acknowledged with `fsync` is there after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolute.client import Client
from resolute.errors import DurabilityUnavailable
from resolute.store.connection import Address, Connection, ServerReply
from resolute.store.store import Store
from resolute.testing.server import ServerBinary
from tests.support.disk import Disk
from tests.support.durable import ALWAYS, FLOW, is_honest, scene
from tests.support.flows import chain
from tests.support.stage import Stage


@pytest.fixture
def disk(server_binary: ServerBinary, tmp_path: Path) -> Iterator[Disk]:
    """A server under everysec, on a disk that can lose power."""
    with Disk(tmp_path, binary=server_binary) as made:
        yield made


async def survivors(disk: Disk) -> dict[str, bytes]:
    """What is left of each run: its input, if it is whole: with its event and in its indexes."""
    store = await Store.open(disk.server.url, "durable")
    stage = Stage(store)
    found: dict[str, bytes] = {}
    partition = store.keys.partitions[0]
    for name in await store.execute("ZRANGE", partition.open, 0, -1):
        run_id = str(name, "utf-8")
        fields = await stage.hash(run_id)
        assert (fields["status"], fields["flow"]) == (b"running", b"chain")
        assert [event.kind for event in await stage.events(run_id)] == ["start"]
        assert await store.execute("ZSCORE", partition.open_of("chain"), run_id) is not None
        found[run_id] = fields["input"]
    await store.close()
    return found


async def test_without_fsync_what_was_acknowledged_is_lost_with_the_power(disk: Disk):
    """So that the tests that follow prove something."""
    async with scene(disk.server) as on:
        with disk.held():
            run = await on.client.start(FLOW, "x")
            assert await on.run_ids() == {run.id}
            assert disk.lose_power() > 0
    disk.start()
    assert await survivors(disk) == {}


@pytest.mark.parametrize("rewrites", [False, True], ids=["", "while-the-file-is-rewritten"])
async def test_no_run_acknowledged_with_fsync_is_lost_with_the_power(disk: Disk, rewrites: bool):
    settings = [] if is_honest(disk.server) else [ALWAYS]
    acknowledged: dict[str, str] = {}
    async with scene(disk.server, *settings, patience=0.2) as on:

        async def start(number: int) -> None:
            run = await on.client.start(FLOW, f"{number}", id=f"r{number}", durability="fsync")
            acknowledged[run.id] = f"{number}"

        for first in range(0, 60, 20):
            if rewrites:
                with contextlib.suppress(ServerReply):  # the last one may still go on
                    await on.stage.store.execute("BGREWRITEAOF")
            await asyncio.gather(*(start(n) for n in range(first, first + 20)))
        # These are on their way when it happens.
        late = [asyncio.create_task(start(n)) for n in range(100, 120)]
        await on.client.store.execute("PING")
        disk.lose_power()
        await asyncio.gather(*late, return_exceptions=True)
    disk.start()
    found = await survivors(disk)
    assert len(acknowledged) >= 60
    for run_id, value in acknowledged.items():
        assert found[run_id].endswith(value.encode())


async def test_a_call_with_fsync_does_not_return_before_the_disk_has_answered(disk: Disk):
    settings = [] if is_honest(disk.server) else [ALWAYS]
    async with scene(disk.server, *settings) as on:
        with disk.held():
            starting = asyncio.create_task(on.client.start(FLOW, "x", id="run", durability="fsync"))
            done, _ = await asyncio.wait([starting], timeout=0.5)
            assert not done
        assert (await starting).id == "run"
        disk.lose_power()
    disk.start()
    assert set(await survivors(disk)) == {"run"}


async def test_a_run_that_another_connection_started_is_on_the_disk_when_fsync_finds_it(
    disk: Disk,
):
    """The second start writes nothing of its own that a wait would cover, but the mark.

    Only where WAITAOF is believed: under `always` the first one is on the disk when it returns.
    There tests/client/test_durability.py notices a mark, or a read of the end, that is missing.
    """
    settings = [] if is_honest(disk.server) else [ALWAYS]
    async with scene(disk.server, *settings) as on:
        await on.client.start(FLOW, "x", id="run")
        await on.client.start(FLOW, "x", id="run", durability="fsync")
        disk.lose_power()
    disk.start()
    assert set(await survivors(disk)) == {"run"}


async def test_an_end_that_was_told_with_fsync_is_still_the_end_after_a_loss_of_power(disk: Disk):
    """Only where WAITAOF is believed: under `always` every end that can be read is on the disk."""
    flow = chain("a", flow="one")
    settings = [] if is_honest(disk.server) else [ALWAYS]
    async with scene(disk.server, *settings) as on:
        await on.stage.begin_run(flow)
        run = await on.client.get("run")
        await on.stage.work()
        assert await run.result(durability="fsync") is None
        disk.lose_power()
    disk.start()
    async with Client.connect(disk.server.url, namespace="durable") as client:
        assert (await (await client.get("run")).status()).is_terminal


async def test_waitaof_is_believed_under_everysec_just_where_it_waits_for_an_fsync(disk: Disk):
    """Should this fail for a new server, its place in HONEST has changed."""
    connection = await Connection.open(Address(disk.server.url))
    with disk.held():
        answers = [
            await connection.request_all([("INCR", "n"), ("WAITAOF", 1, 0, 1500)]) for _ in range(2)
        ]
        assert disk.unsynced() > 0
    connection.close()
    has_wait = not isinstance(answers[0][1], ServerReply)
    waited = has_wait and all(answer[1][0] == 0 for answer in answers)
    assert waited == is_honest(disk.server)


async def test_under_everysec_a_server_that_cannot_prove_it_is_not_asked_to(disk: Disk):
    if is_honest(disk.server):
        pytest.skip("this server's WAITAOF is believed under everysec")
    async with scene(disk.server) as on:
        with pytest.raises(DurabilityUnavailable, match=r"appendfsync everysec.*needs"):
            await on.client.start(FLOW, "x", id="run", durability="fsync")
        assert await on.run_ids() == set()
