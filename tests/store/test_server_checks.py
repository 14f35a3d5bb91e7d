"""Whether a server can be trusted with flows, said before the first of them is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from resolute.errors import ServerUnsuitable
from resolute.store.connection import Address, Link
from resolute.store.server import ServerInfo, check, inspect, run_id
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


@pytest.fixture
def link(server: EmbeddedServer) -> Link:
    """A link that a test closes."""
    return Link(Address(server.url))


async def test_a_server_as_it_should_be_is_accepted(link: Link, server: EmbeddedServer):
    info = await check(link)
    assert info.version == server.binary.version
    assert info.kind == server.binary.name
    assert (info.role, info.eviction, info.appendonly) == ("master", "noeviction", True)
    assert info.used_memory > 0
    await link.close()


@pytest.fixture
def unset(own_server: EmbeddedServer) -> Iterator[Link]:
    """A link to a server that the test sets up as it likes."""
    yield Link(Address(own_server.url))


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_server_that_evicts_is_refused_unless_we_are_told(unset: Link, policy: str):
    await unset.execute("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(ServerUnsuitable, match=rf"{policy}.*noeviction"):
        await check(unset)
    info = await check(unset, allow_eviction=True)
    assert info.eviction == policy
    await unset.close()


async def test_a_replica_is_refused_even_if_eviction_is_allowed(
    unset: Link, own_server: EmbeddedServer
):
    await unset.execute("REPLICAOF", "127.0.0.1", own_server.port)
    with pytest.raises(ServerUnsuitable, match="read-only"):
        await check(unset, allow_eviction=True)
    await unset.execute("REPLICAOF", "NO", "ONE")
    await check(unset)
    await unset.close()


async def test_all_reasons_are_given_at_once(unset: Link, own_server: EmbeddedServer):
    await unset.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await unset.execute("REPLICAOF", "127.0.0.1", own_server.port)
    with pytest.raises(ServerUnsuitable, match=r"allkeys-lru.*read-only"):
        await check(unset)
    await unset.close()


async def test_a_setting_that_may_not_be_read_is_no_reason_to_refuse(
    unset: Link, own_server: EmbeddedServer
):
    await unset.execute("ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", "-config")
    other = Link(Address(own_server.url.replace("redis://", "redis://app:pass@")))
    info = await check(other)
    assert info.appendfsync is None
    assert info.eviction == "noeviction"
    await other.close()
    await unset.close()


async def test_a_restarted_server_has_another_identity(unset: Link, own_server: EmbeddedServer):
    before = await run_id(unset)
    assert before == await run_id(unset) == (await inspect(unset)).run_id
    await unset.close()
    own_server.restart()
    again = Link(Address(own_server.url))
    assert await run_id(again) not in ("", before)
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
