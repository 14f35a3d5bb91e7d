"""Whether a server can be trusted with flows, said before the first of them is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from resolute.errors import ServerUnsuitable
from resolute.store.connection import Address, Link
from resolute.store.keys import Keys
from resolute.store.server import ServerInfo, check, inspect, run_ids
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer

GOOD = ServerInfo(
    kind="redis",
    version="7.2.4",
    run_id="x",
    role="master",
    appendonly=True,
    appendfsync="everysec",
    eviction="noeviction",
    used_memory=1,
    max_memory=0,
    clients=1,
)


def opened(url: str) -> Store:
    """A store that a test closes."""
    return Store(Link(Address(url)), Keys("checks", 1), 5.0)


@pytest.fixture
def shared(server: EmbeddedServer) -> Store:
    """Of the server that all tests share."""
    return opened(server.url)


async def test_a_server_as_it_should_be_is_accepted(shared: Store, server: EmbeddedServer):
    info = await check(shared)
    assert info.version == server.binary.version
    assert info.kind == server.binary.name
    assert (info.role, info.eviction, info.appendonly) == ("master", "noeviction", True)
    assert info.used_memory > 0
    await shared.close()


@pytest.fixture
def own(own_server: EmbeddedServer) -> Iterator[Store]:
    """Of a server that the test sets up as it likes."""
    yield opened(own_server.url)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_server_that_evicts_is_refused_unless_we_are_told(own: Store, policy: str):
    await own.execute("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(ServerUnsuitable, match=rf"{policy}.*noeviction"):
        await check(own)
    info = await check(own, allow_eviction=True)
    assert info.eviction == policy
    await own.close()


async def test_a_replica_is_refused_even_if_eviction_is_allowed(
    own: Store, own_server: EmbeddedServer
):
    await own.execute("REPLICAOF", "127.0.0.1", own_server.port)
    with pytest.raises(ServerUnsuitable, match="read-only"):
        await check(own, allow_eviction=True)
    await own.execute("REPLICAOF", "NO", "ONE")
    await check(own)
    await own.close()


async def test_all_reasons_are_given_at_once(own: Store, own_server: EmbeddedServer):
    await own.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await own.execute("REPLICAOF", "127.0.0.1", own_server.port)
    with pytest.raises(ServerUnsuitable, match=r"allkeys-lru.*read-only"):
        await check(own)
    await own.close()


async def test_a_setting_that_may_not_be_read_is_no_reason_to_refuse(
    own: Store, own_server: EmbeddedServer
):
    await own.execute("ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", "-config")
    other = opened(own_server.url.replace("redis://", "redis://app:pass@"))
    info = await check(other)
    assert info.appendfsync is None
    assert info.eviction == "noeviction"
    await other.close()
    await own.close()


async def test_a_restarted_server_has_another_identity(own: Store, own_server: EmbeddedServer):
    before = await run_ids(own)
    assert before == await run_ids(own) == {(await inspect(own)).run_id}
    await own.close()
    own_server.restart()
    again = opened(own_server.url)
    assert await run_ids(again) not in ({""}, before)
    await again.close()


@pytest.mark.parametrize(
    ("kind", "version", "is_good"),
    [
        ("redis", "6.2.14", False),
        ("redis", "7.0.0", True),
        ("redis", "8.2.1", True),
        ("redis", "10.0.0", True),
        ("valkey", "7.0.0", False),
        ("valkey", "7.2.0", True),
        ("valkey", "9.1.0", True),
    ],
)
def test_a_server_that_is_too_old_is_refused_with_the_version_that_is_needed(
    kind: str, version: str, is_good: bool
):
    problems = dataclasses.replace(GOOD, kind=kind, version=version).problems()
    assert (problems == []) == is_good
    if not is_good:
        needed = "7.0" if kind == "redis" else "7.2"
        assert f"at least {needed}" in problems[0]
