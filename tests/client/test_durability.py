"""Durability levels: what is refused, what is confirmed, and what a broken connection does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from resolute import sync
from resolute.client import Client
from resolute.errors import (
    ConfigurationError,
    DurabilityNotConfirmed,
    DurabilityUnavailable,
    FlowCancelled,
)
from resolute.store import durable
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.support.durable import ALWAYS, EVERYSEC, FLOW, Scene, is_honest, scene, set_to
from tests.support.keyspace import snapshot

T = TypeVar("T")


@pytest.fixture
def replica(
    server_binary: ServerBinary, own_server: EmbeddedServer, tmp_path: Path
) -> Iterator[EmbeddedServer]:
    """A replica of `own_server` that has caught up."""
    options = ["--replicaof", "127.0.0.1", str(own_server.port)]
    with EmbeddedServer(tmp_path / "replica", binary=server_binary, options=options) as running:
        yield running
        running.kill()  # a clean end would wait for what a paused one has missed


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that is in vain is short."""
    monkeypatch.setattr(durable, "LEAST_WAIT", 0.3)


async def caught_up(on: Scene) -> None:
    """The replica is connected and has everything."""
    await on.stage.store.execute(*set_to("repl-diskless-sync-delay", "0"))
    while await on.stage.store.execute("WAIT", 1, 1000) < 1:
        pass


async def confirmed(call: Callable[[], Awaitable[T]]) -> T:
    """The same call again until it is confirmed, as a caller may: the waits here are short."""
    while True:
        try:
            return await call()
        except DurabilityNotConfirmed:
            pass


async def started(on: Scene, count: int, **options: Any) -> list[str]:
    runs = await on.client.start_many(FLOW, ["x"] * count, **options)
    return [run.id for run in runs]


# What is refused, and before anything is written.


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([set_to("appendonly", "no")], "appendonly no"),
        ([set_to("appendfsync", "no")], "appendfsync no"),
    ],
    ids=["no-file", "no-fsync"],
)
async def test_fsync_is_refused_by_a_server_that_cannot_prove_it(
    own_server: EmbeddedServer, settings: list[Any], reason: str
):
    async with scene(own_server, *settings) as on:
        before = await snapshot(on.stage.store)
        with pytest.raises(DurabilityUnavailable, match=reason) as caught:
            await on.client.start(FLOW, "x", durability="fsync")
        assert own_server.binary.version in caught.value.has
        assert "appendfsync always" in caught.value.needs
        assert await snapshot(on.stage.store) == before


async def test_fsync_is_refused_where_the_settings_may_not_be_read_and_nothing_else_is_proof(
    own_server: EmbeddedServer,
):
    rights = ("ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", "-config")
    url = own_server.url.replace("redis://", "redis://app:pass@")
    async with scene(own_server, ALWAYS, rights, url=url) as on:
        if is_honest(own_server):
            await on.client.start(FLOW, "x", id="run", durability="fsync")
            return
        with pytest.raises(DurabilityUnavailable, match="settings may not be read"):
            await on.client.start(FLOW, "x", durability="fsync")
        assert await on.run_ids() == set()


async def test_a_setting_that_changes_is_noticed_on_the_same_connection(
    own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(durable, "FRESH", 0.0)
    async with scene(own_server, ALWAYS, durability="fsync") as on:
        await on.client.start(FLOW, "x", id="one")
        await on.stage.store.execute(*set_to("appendfsync", "no"))
        with pytest.raises(DurabilityUnavailable):
            await on.client.start(FLOW, "x", id="two")
        assert await on.run_ids() == {"one"}
        await on.stage.store.execute(*ALWAYS)
        await on.client.start(FLOW, "x", id="two")


async def test_a_setting_that_changes_just_before_the_write_leaves_it_unconfirmed(
    own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(durable, "FRESH", 3600.0)
    async with scene(own_server, ALWAYS, durability="fsync") as on:
        await on.client.start(FLOW, "x", id="one")
        await on.stage.store.execute(*EVERYSEC)
        with pytest.raises(DurabilityNotConfirmed, match="settings were changed") as caught:
            await on.client.start(FLOW, "x", id="two")
        assert caught.value.ids == ("two",)
        assert await on.run_ids() == {"one", "two"}
        await on.stage.store.execute(*ALWAYS)
        assert (await on.client.start(FLOW, "x", id="two")).id == "two"


async def test_a_level_that_is_none_is_refused_with_those_there_are(own_server: EmbeddedServer):
    wrong: Any = "eternal"
    async with scene(own_server) as on:
        with pytest.raises(ConfigurationError, match="fast, fsync, replicated, got 'eternal'"):
            await on.client.start(FLOW, "x", durability=wrong)
    with pytest.raises(ConfigurationError, match="got 'eternal'"):
        await Client.open(own_server.url, durability=wrong)
    with pytest.raises(ConfigurationError, match="replicas: expected 1 or more"):
        await Client.open(own_server.url, replicas=0)


# What is confirmed.


async def test_every_call_can_be_made_durable_and_made_twice(own_server: EmbeddedServer):
    async with scene(own_server, ALWAYS, durability="fsync") as on:
        for _ in range(2):
            assert (await on.client.start(FLOW, "x", id="run")).id == "run"
        assert await on.stage.work() == 2
        run = await on.client.get("run")
        for _ in range(2):
            assert await run.result() is None
        await on.client.start(FLOW, "x", id="stopped")
        await on.stage.coordinate()
        for _ in range(2):
            assert await on.client.terminate("stopped")
        await on.stage.coordinate()
        assert not await on.client.cancel("stopped")
        for _ in range(2):
            assert (await on.client.retry("stopped", number=1)).id == "stopped/~1"
        assert await on.client.cancel("stopped/~1")
        await on.stage.work()
        with pytest.raises(FlowCancelled):
            await (await on.client.get("stopped/~1")).result(durability="fsync")
        assert await on.waits() >= 10


async def test_fast_calls_make_no_connection_and_no_mark(own_server: EmbeddedServer):
    async with scene(own_server) as on:
        await started(on, 3)
        assert await on.waits() == 0
        assert b"resolute-f" not in await on.stage.store.execute("CLIENT", "LIST")


async def test_calls_that_come_while_a_wait_lasts_share_the_next_one(
    own_server: EmbeddedServer, replica: EmbeddedServer
):
    async with scene(own_server, replicas=1) as on:
        await caught_up(on)
        await asyncio.gather(*(started(on, 1, durability="replicated") for _ in range(100)))
        assert len(await on.run_ids()) == 100
        assert await on.waits() < 10


async def test_scripts_that_the_server_forgot_are_loaded_again(own_server: EmbeddedServer):
    async with scene(own_server, ALWAYS, durability="fsync") as on:
        for _ in range(3):
            await on.stage.store.execute("SCRIPT", "FLUSH")
            await asyncio.gather(*(started(on, 1) for _ in range(3)))
        assert len(await on.run_ids()) == 9


async def test_a_run_is_cancelled_durably_on_a_full_server(own_server: EmbeddedServer):
    async with scene(own_server, ALWAYS, durability="fsync") as on:
        await on.client.start(FLOW, "x", id="run")
        await on.stage.store.execute(*set_to("maxmemory", "1"))
        assert await on.client.cancel("run")


# Replicas.


@pytest.mark.usefixtures("hasty")
async def test_a_write_that_no_replica_has_is_unconfirmed_until_one_has_it(
    own_server: EmbeddedServer, replica: EmbeddedServer
):
    async with scene(own_server, patience=0.3) as on:
        await caught_up(on)
        await confirmed(lambda: on.client.start(FLOW, "x", id="run", durability="replicated"))
        replica.pause()
        with pytest.raises(DurabilityNotConfirmed, match="0 of 1") as caught:
            await on.client.start(FLOW, "x", id="late", durability="replicated")
        assert caught.value.ids == ("late",)
        assert await on.run_ids() == {"run", "late"}
        replica.resume()
        await confirmed(lambda: on.client.start(FLOW, "x", id="late", durability="replicated"))


@pytest.mark.usefixtures("hasty")
async def test_without_enough_replicas_nothing_is_confirmed(
    own_server: EmbeddedServer, replica: EmbeddedServer
):
    async with scene(own_server, patience=0.3, replicas=2) as on:
        await caught_up(on)
        with pytest.raises(DurabilityNotConfirmed, match=r"[01] of 2"):
            await on.client.start(FLOW, "x", durability="replicated")


@pytest.mark.usefixtures("hasty")
async def test_what_a_call_only_finds_is_confirmed_like_what_it_writes(
    own_server: EmbeddedServer, replica: EmbeddedServer
):
    """Start, cancel, retry and result meet what other connections wrote: no write of their own."""
    async with scene(own_server, patience=0.3) as on:
        await caught_up(on)
        replica.pause()
        await on.client.start(FLOW, "x", id="run")
        await on.stage.coordinate()
        await on.client.terminate("run")
        await on.stage.coordinate()
        await on.client.retry("run", number=1)
        run = await on.client.get("run")
        for call in (
            on.client.start(FLOW, "x", id="run", durability="replicated"),
            on.client.cancel("run", durability="replicated"),
            on.client.terminate("run", durability="replicated"),
            on.client.retry("run", number=1, durability="replicated"),
            run.result(durability="replicated"),
        ):
            with pytest.raises(DurabilityNotConfirmed):
                await call
        replica.resume()
        assert not await confirmed(lambda: on.client.cancel("run", durability="replicated"))


# Connections that break, callers that go.


async def until_blocked(on: Scene) -> None:
    """Until somebody waits for a replica."""
    while b"cmd=wait" not in await on.stage.store.execute("CLIENT", "LIST"):
        pass


async def test_a_connection_lost_between_the_script_and_its_wait_makes_the_whole_call_again(
    own_server: EmbeddedServer, replica: EmbeddedServer
):
    async with scene(own_server, durability="replicated") as on:
        await caught_up(on)
        replica.pause()
        starting = [asyncio.create_task(started(on, 1, ids=[f"r{n}"])) for n in range(3)]
        await until_blocked(on)
        own = await on.stage.store.execute("CLIENT", "ID")
        for line in (await on.stage.store.execute("CLIENT", "LIST")).splitlines():
            if b"name=resolute-replicated" in line:
                number = line.split()[0].removeprefix(b"id=")
                assert int(number) != own
                await on.stage.store.execute("CLIENT", "KILL", "ID", number)
        replica.resume()
        assert await asyncio.gather(*starting) == [["r0"], ["r1"], ["r2"]]
        for number in range(3):
            events = await on.stage.events(f"r{number}")
            assert [event.kind for event in events] == ["start"]


async def test_a_caller_that_is_cancelled_takes_no_other_s_wait_with_it(
    own_server: EmbeddedServer, replica: EmbeddedServer
):
    async with scene(own_server, durability="replicated") as on:
        await caught_up(on)
        replica.pause()
        first = asyncio.create_task(started(on, 1, ids=["first"]))
        await until_blocked(on)
        others = [asyncio.create_task(started(on, 1, ids=[f"r{n}"])) for n in range(4)]
        await on.client.store.execute("PING")
        first.cancel()
        others[0].cancel()
        replica.resume()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(one) for one in found[:2]] == [asyncio.CancelledError] * 2
        assert found[2:] == [["r1"], ["r2"], ["r3"]]
        assert await on.run_ids() == {"first", "r1", "r2", "r3"}


async def test_who_waits_when_the_client_closes_is_told_so(
    own_server: EmbeddedServer, replica: EmbeddedServer
):
    async with scene(own_server, durability="replicated", patience=0.1) as on:
        await caught_up(on)
        replica.pause()
        starting = asyncio.create_task(started(on, 1))
        await until_blocked(on)
    with pytest.raises(Exception, match=r"closed"):
        await starting
    replica.resume()


# Without a loop.


@pytest.fixture
def blocking(own_server: EmbeddedServer, runner: asyncio.Runner) -> Iterator[sync.Client]:
    async def prepare() -> None:
        async with scene(own_server, ALWAYS):
            pass

    runner.run(prepare())
    with sync.Client(own_server.url, namespace="durable", durability="fsync") as client:
        yield client


def test_the_blocking_client_has_the_same_levels(blocking: sync.Client, own_server: EmbeddedServer):
    run = blocking.start(FLOW, "x", id="run")
    assert run.cancel()
    assert run.terminate(durability="fast")
    wrong: Any = "eternal"
    with pytest.raises(ConfigurationError):
        blocking.start(FLOW, "x", durability=wrong)
