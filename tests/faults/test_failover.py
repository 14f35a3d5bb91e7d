"""Fault 21: a replica takes over, with or without what the primary had acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from resolute.durability import Durability
from resolute.store.connection import Address, Arg, Link
from resolute.store.server import parse_info
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.faults.losses import LEASE, Loss, Trial, assert_only_lost, trial
from tests.support.proxy import HOST, Proxy
from tests.support.system import until

FAST, REPLICATED = Durability.FAST, Durability.REPLICATED
AT_ONCE = ("--repl-diskless-sync-delay", "0")


@dataclass
class Pair:
    """A primary, its replica, and a replica of that one; replication comes through `between`."""

    primary: EmbeddedServer
    replica: EmbeddedServer
    spare: EmbeddedServer
    between: Proxy

    async def has_all(self) -> float:
        """A moment; when this returns, all that was acknowledged before it is on the replica."""
        moment = time.monotonic()
        offset = int((await replication(self.primary))["master_repl_offset"])

        async def is_there() -> bool:
            return int((await replication(self.replica))["master_repl_offset"]) >= offset

        await until(is_there, "the replica has what the primary had")
        return moment

    async def promote(self, on: Trial) -> None:
        """The replica is the primary; who connects from now on is led there."""
        await command(self.replica, "REPLICAOF", "NO", "ONE")
        for proxy in on.cluster.proxies:
            proxy.target = self.replica.port


async def command(server: EmbeddedServer, *words: Arg) -> object:
    link = Link(Address(server.url), name="test")
    try:
        return await link.execute(*words)
    finally:
        await link.close()


async def replication(server: EmbeddedServer) -> dict[str, str]:
    answer = await command(server, "INFO", "replication")
    assert isinstance(answer, bytes)
    return parse_info(answer)


async def replicate(server: EmbeddedServer, port: int) -> None:
    await command(server, "REPLICAOF", HOST, port)

    async def is_up() -> bool:
        return (await replication(server)).get("master_link_status") == "up"

    await until(is_up, "the replica is in step")


@asynccontextmanager
async def replicated(folder: Path, binary: ServerBinary) -> AsyncGenerator[Pair]:
    async with AsyncExitStack() as stack:
        primary, replica, spare = (
            stack.enter_context(EmbeddedServer(folder / name, binary=binary, options=AT_ONCE))
            for name in ("primary", "replica", "spare")
        )
        between = stack.enter_context(Proxy(primary.port))
        await replicate(replica, between.port)
        await replicate(spare, replica.port)
        yield Pair(primary, replica, spare, between)


async def test_21_no_run_acknowledged_as_replicated_is_lost_with_the_primary(
    tmp_path: Path, seed: int, binary: ServerBinary
) -> None:
    """Those acknowledged at once, while replication was late, are whole or absent."""
    async with replicated(tmp_path, binary) as servers:
        async with trial(servers.primary, tmp_path, seed, levels=(REPLICATED, FAST)) as on:
            await on.is_busy(10)
            since = await servers.has_all()
            servers.between.swallow()
            # Few: those that wait for a replica now keep their places in the load, each time more.
            await on.acknowledged(2)
            await asyncio.to_thread(servers.primary.kill)
            await servers.promote(on)
            for proxy in on.cluster.proxies:
                proxy.reset_all()
            await on.follow(servers.replica)
            on.losses.append(Loss(since, time.monotonic()))
            await on.is_busy(20)
        assert_only_lost(on, [REPLICATED])
        assert on.gone()
        assert all(one.told for one in on.load.tracked.values() if one.level is REPLICATED)


async def test_21_processes_leave_a_primary_that_was_demoted_under_them(
    tmp_path: Path, seed: int, binary: ServerBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection breaks: they learn it from the server's answers."""
    # Who only waits is told nothing while the old primary is not in step: it reads again by itself.
    monkeypatch.setattr("resolute.client.run.REREAD", LEASE)
    async with replicated(tmp_path, binary) as servers:
        async with trial(servers.primary, tmp_path, seed, levels=(REPLICATED, FAST)) as on:
            await on.is_busy(10)
            since = await servers.has_all()
            await servers.promote(on)
            await on.acknowledged(1)  # by the old one, which knows nothing of it yet
            await command(servers.primary, "REPLICAOF", HOST, servers.replica.port)
            await on.follow(servers.replica)

            async def have_left() -> bool:
                answer = await command(servers.primary, "CLIENT", "LIST")
                assert isinstance(answer, bytes)
                return b"cmd=xreadgroup" not in answer and b"cmd=evalsha" not in answer

            await until(have_left, "no process works with the old primary")
            on.losses.append(Loss(since, time.monotonic()))
            await on.is_busy(20)
        assert_only_lost(on, [REPLICATED])
