"""Where a connection leads, and how it is let in."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from resolute.errors import ConfigurationError, StoreUnavailable
from resolute.store import connection as module
from resolute.store.connection import Address, Connection, Link, ServerReply
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.support.links import linked, silent, strange_server

# Addresses.


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://:hunter2@localhost",
        "redis://:hunter2@localhost:port",
        "redis://:hunter#2@localhost:6379",
        "redis://:hunter2@localhost:6379/?socket_timeout=hunter2",
    ],
)
def test_a_url_that_is_none_is_refused_in_words_that_do_not_tell_the_password(url: str):
    with pytest.raises(ConfigurationError, match="Redis URL") as caught:
        Address(url)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:7000/2", "redis://host:7000/2"),
        ("redis://user:secret@host", "redis://host:6379/0"),
        ("redis://", "redis://localhost:6379/0"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str):
    assert str(Address(url)) == shown


async def test_a_unix_socket_is_an_address_too(server_binary: ServerBinary, tmp_path: Path):
    path = tmp_path / "redis.sock"
    options = ["--unixsocket", str(path)]
    with EmbeddedServer(tmp_path / "server", binary=server_binary, options=options):
        async with linked(f"unix://{path}") as link:
            assert await link.execute("ECHO", "x") == b"x"
            assert str(link.address) == f"unix://{path}"


@pytest.mark.parametrize(
    ("query", "mode", "checks_name"),
    [
        ("", ssl.CERT_REQUIRED, True),
        ("?ssl_check_hostname=false", ssl.CERT_REQUIRED, False),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE, False),
    ],
)
def test_a_certificate_is_checked_unless_the_url_says_not(
    query: str, mode: ssl.VerifyMode, checks_name: bool
):
    context = Address(f"rediss://host{query}").ssl
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (mode, checks_name)
    assert Address("redis://host").ssl is None


async def test_a_host_that_does_not_answer_at_all_is_given_up(monkeypatch: pytest.MonkeyPatch):
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.01)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    async with linked("redis://127.0.0.1") as link:
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable, match="TimeoutError"):
                await link.connection()


# Passwords.


@pytest.fixture
def guarded(server_binary: ServerBinary, tmp_path: Path):
    with EmbeddedServer(tmp_path, binary=server_binary, password="open sesame/?#") as running:
        yield running


async def test_the_right_password_is_let_in(guarded: EmbeddedServer):
    async with linked(guarded.url) as link:
        assert await link.execute("ECHO", "x") == b"x"


@pytest.mark.parametrize("password", ["", "hunter2"])
async def test_a_wrong_password_is_refused_in_words_that_do_not_tell_it(
    guarded: EmbeddedServer, password: str
):
    url = f"redis://:{password}@127.0.0.1:{guarded.port}/0"
    async with linked(url, name="stranger") as link:
        with pytest.raises(StoreUnavailable, match=r"WRONGPASS|NOAUTH") as caught:
            await link.execute("ECHO", "x")
    assert str(guarded.port) in str(caught.value)
    assert not password or password not in str(caught.value)


async def test_a_password_that_is_put_right_is_accepted_without_a_restart(
    own_server: EmbeddedServer,
):
    async with linked(own_server.url) as admin:
        await admin.execute("CONFIG", "SET", "requirepass", "first")
        url = own_server.url.replace("redis://", "redis://:second@")
        opening = asyncio.create_task(Store.open(url, "late", wait=True))
        await asyncio.wait([opening], timeout=0.1)
        assert not opening.done()
        await admin.execute("CONFIG", "SET", "requirepass", "second")
        store = await opening
        assert await store.execute("ECHO", "x") == b"x"
        await store.close()


async def test_a_connection_that_is_refused_leaves_no_socket_behind(guarded: EmbeddedServer):
    address = Address(f"redis://:wrong@127.0.0.1:{guarded.port}")
    for _ in range(3):
        with pytest.raises(ServerReply):
            await Connection.open(address)
    async with linked(guarded.url) as link:
        assert len((await link.execute("CLIENT", "LIST")).splitlines()) == 1


# The rest of a login.


async def test_a_connection_has_the_name_and_the_database_it_was_asked_for(
    server: EmbeddedServer,
):
    async with linked(server.url.removesuffix("0") + "3", name="somebody") as link:
        assert await link.execute("CLIENT", "GETNAME") == b"somebody"
        assert b"db=3" in await link.execute("CLIENT", "LIST", "ID", await client_id(link))


async def client_id(link: Link) -> int:
    return await link.execute("CLIENT", "ID")


async def test_too_many_clients_are_refused_in_clear_words(own_server: EmbeddedServer):
    async with linked(own_server.url) as first, linked(own_server.url, name="second") as second:
        await first.execute("CONFIG", "SET", "maxclients", 1)
        with pytest.raises(StoreUnavailable, match=r"max number of clients|lost|closed"):
            await second.execute("ECHO", "x")
        await first.execute("CONFIG", "SET", "maxclients", 100)
        assert await second.execute("ECHO", "x") == b"x"


@pytest.mark.parametrize(
    ("login", "path", "name"), [(":password@", "", ""), ("", "/3", ""), ("", "", "somebody")]
)
async def test_a_server_that_does_not_answer_a_login_is_given_up(
    monkeypatch: pytest.MonkeyPatch, login: str, path: str, name: str
):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.02)
    async with (
        strange_server(silent) as url,
        linked(url.replace("//", f"//{login}") + path, name=name) as link,
        asyncio.timeout(5),
    ):
        with pytest.raises(StoreUnavailable, match="in time"):
            await link.connection()
