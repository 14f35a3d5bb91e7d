"""One connection: no reply reaches the wrong caller, and nothing that breaks is used again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from resolute.errors import ConfigurationError, StoreUnavailable
from resolute.store import connection as module
from resolute.store import streams
from resolute.store.connection import Address, Connection, Link, ServerReply
from resolute.store.keys import Keys
from resolute.store.script import GROUP_WORKERS, load_script, pack
from resolute.store.store import Store
from resolute.store.sync import SyncReader
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.support.flows import chain
from tests.support.proxy import Proxy
from tests.support.stage import Stage

one_partition = pytest.mark.parametrize("partitions", [1], indirect=True)


@contextlib.asynccontextmanager
async def linked(url: str, **options: Any) -> AsyncGenerator[Link]:
    link = Link(Address(url), **options)
    try:
        yield link
    finally:
        await link.close()


# Pairing.


async def test_a_thousand_requests_sent_together_get_each_their_own_reply(server: EmbeddedServer):
    async with linked(server.url) as link:
        replies = await asyncio.gather(*(link.execute("ECHO", n) for n in range(1000)))
        assert replies == [str(n).encode() for n in range(1000)]


async def test_a_reply_whose_caller_has_gone_is_given_to_nobody_else(server: EmbeddedServer):
    async with linked(server.url) as link, linked(server.url) as other:
        connection = await link.connection()
        waiting = connection.send(("BLPOP", "the-list", 0))
        waiting.cancel()
        after = asyncio.gather(*(link.execute("ECHO", text) for text in ("one", "two")))
        await other.execute("LPUSH", "the-list", "for the one who left")
        assert await after == [b"one", b"two"]
        assert link.generation == 1


async def test_a_task_that_is_cancelled_in_a_request_leaves_the_connection_as_it_was(
    server: EmbeddedServer,
):
    async with linked(server.url) as link, linked(server.url) as other:
        await link.connection()
        blocked = asyncio.create_task(link.execute("BLPOP", "the-list", 0))
        answered = asyncio.create_task(link.execute("ECHO", "mine"))
        await other.execute("ECHO", "both were sent before this came back")
        blocked.cancel()
        await other.execute("LPUSH", "the-list", "theirs")
        assert await answered == b"mine"
        with pytest.raises(asyncio.CancelledError):
            await blocked
        assert link.generation == 1


async def test_errors_among_many_commands_come_in_their_places(server: EmbeddedServer):
    async with linked(server.url) as link:
        replies = await link.execute_all([("ECHO", "a"), ("NOSUCH",), ("ECHO", "b"), ("GET",)])
        assert [isinstance(reply, ServerReply) for reply in replies] == [False, True, False, True]
        assert replies[::2] == [b"a", b"b"]


async def test_an_error_is_raised_with_its_first_word_as_code(server: EmbeddedServer):
    async with linked(server.url) as link:
        with pytest.raises(ServerReply) as caught:
            await link.execute("EVALSHA", "0" * 40, 0)
        assert caught.value.code == "NOSCRIPT"


async def test_bytes_go_and_come_as_they_are(server: EmbeddedServer):
    data = bytes(range(256)) * 40_000
    async with linked(server.url) as link:
        assert await link.execute("ECHO", data) == data


async def test_whoever_asks_for_a_connection_while_it_is_made_gets_the_same(
    server: EmbeddedServer,
):
    async with linked(server.url) as link:
        found = await asyncio.gather(*(link.connection() for _ in range(10)))
        assert len(set(map(id, found))) == 1
        assert link.generation == 1


async def test_published_messages_do_not_mix_with_replies(server: EmbeddedServer):
    heard: asyncio.Queue[list[Any]] = asyncio.Queue()
    async with linked(server.url, on_push=heard.put_nowait) as link, linked(server.url) as other:
        connection = await link.connection()
        connection.post(("SUBSCRIBE", "news"))
        assert (await heard.get())[:2] == [b"subscribe", b"news"]
        await other.execute("PUBLISH", "news", "hello")
        assert await heard.get() == [b"message", b"news", b"hello"]


# Breaking.


async def test_after_the_time_for_a_reply_the_connection_is_dropped_and_another_is_made(
    server: EmbeddedServer,
):
    async with linked(server.url) as link:
        connection = await link.connection()
        with pytest.raises(StoreUnavailable, match="in time"):
            await connection.request(("BLPOP", "the-list", 0), 0.05)
        with pytest.raises(StoreUnavailable, match="closed"):
            await connection.request(("ECHO", "x"))
        assert await link.execute("ECHO", "x") == b"x"
        assert link.generation == 2


async def test_a_server_that_dies_in_a_call_is_unavailable_until_it_is_back(
    own_server: EmbeddedServer,
):
    async with linked(own_server.url) as link, linked(own_server.url) as other:
        waiting = [asyncio.create_task(link.execute("BLPOP", "the-list", 0)) for _ in range(3)]
        await other.execute("ECHO", "they are on their way")
        own_server.kill()
        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, StoreUnavailable)
        with pytest.raises(StoreUnavailable, match="cannot reach"):
            await link.execute("ECHO", "x")
        own_server.start()
        assert await link.execute("ECHO", "x") == b"x"


async def test_a_call_outlasts_a_server_that_is_away_for_less_than_its_patience(
    own_server: EmbeddedServer,
):
    store = await Store.open(own_server.url, "patient", patience=30.0)
    own_server.kill()
    calls = [asyncio.create_task(store.execute("ECHO", n)) for n in range(3)]
    script = asyncio.create_task(
        store.call("ensure_group", [store.keys.partitions[0].inbox, "{patient}:s"], pack("g"))
    )
    await asyncio.wait(calls, timeout=0.1)
    own_server.start()
    assert await asyncio.gather(*calls) == [b"0", b"1", b"2"]
    assert await script == [b"OK"]
    await store.close()


async def test_a_call_without_patience_says_at_once_that_the_server_is_away(
    own_server: EmbeddedServer,
):
    store = await Store.open(own_server.url, "hasty", patience=0.0)
    own_server.kill()
    with pytest.raises(StoreUnavailable):
        await store.execute("ECHO", "x")
    await store.close()


async def test_what_is_refused_for_the_moment_is_tried_again(own_server: EmbeddedServer):
    """READONLY: a primary that was made a replica, and is made a primary again."""
    store = await Store.open(own_server.url, "patient", patience=30.0)
    await store.execute("REPLICAOF", "127.0.0.1", own_server.port)
    writing = asyncio.create_task(store.execute("SET", "{patient}:key", "value"))
    done, _ = await asyncio.wait([writing], timeout=0.1)
    assert not done
    await store.execute("REPLICAOF", "NO", "ONE")
    assert await writing == b"OK"
    await store.close()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def strange_server(handle: Handler) -> AsyncGenerator[str]:
    """Something that listens and is no Redis; its callers must have hung up when it ends."""
    talks: list[asyncio.Future[None]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(done := asyncio.get_running_loop().create_future())
        with contextlib.suppress(ConnectionError):
            await handle(reader, writer)
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        done.set_result(None)

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    async with listening:
        yield f"redis://{host}:{port}"
        await asyncio.gather(*talks)


async def test_a_server_that_talks_nonsense_is_unavailable():
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with strange_server(talk) as url, linked(url) as link:
        with pytest.raises(StoreUnavailable, match="nonsense"):
            await link.execute("ECHO", "x")


async def test_a_reply_that_nobody_asked_for_breaks_the_connection():
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"+OK\r\n+AND MORE\r\n")

    async with strange_server(talk) as url, linked(url) as link:
        connection = await link.connection()
        assert await connection.request(("ECHO", "x")) == b"OK"
        await connection.closed
        with pytest.raises(StoreUnavailable):
            await connection.request(("ECHO", "y"))


async def test_who_waits_for_a_connection_that_is_given_up_is_told_so_and_not_cancelled():
    """Cancelled, a caller would take the end of the link for its own."""
    arrived = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        arrived.set()

    async with strange_server(silent) as url, linked(url, name="waiting") as link:
        waiting = asyncio.create_task(link.connection())
        await arrived.wait()
        await link.close()
        with pytest.raises(StoreUnavailable):
            await waiting


async def test_a_dial_that_fails_after_all_who_asked_have_gone_is_no_stray_error():
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with linked("redis://127.0.0.1:1") as link:
        asking = asyncio.create_task(link.connection())
        await asyncio.sleep(0)
        dialling = asyncio.all_tasks() - {asking, asyncio.current_task()}
        asking.cancel()
        await asyncio.wait(dialling)
        with pytest.raises(StoreUnavailable):
            await link.connection()
        del asking, dialling
        gc.collect()
    assert reported == []


async def test_a_closed_link_makes_no_connection(server: EmbeddedServer):
    async with linked(server.url) as link:
        await link.execute("ECHO", "x")
        await link.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await link.execute("ECHO", "x")


# Logging in.


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


async def test_too_many_clients_are_refused_in_clear_words(own_server: EmbeddedServer):
    async with linked(own_server.url) as first, linked(own_server.url, name="second") as second:
        await first.execute("CONFIG", "SET", "maxclients", 1)
        with pytest.raises(StoreUnavailable, match=r"max number of clients|lost|closed"):
            await second.execute("ECHO", "x")
        await first.execute("CONFIG", "SET", "maxclients", 100)
        assert await second.execute("ECHO", "x") == b"x"


async def test_a_connection_has_the_name_and_the_database_it_was_asked_for(
    server: EmbeddedServer,
):
    async with linked(server.url.removesuffix("0") + "3", name="somebody") as link:
        assert await link.execute("CLIENT", "GETNAME") == b"somebody"
        assert b"db=3" in await link.execute("CLIENT", "LIST", "ID", await client_id(link))


async def client_id(link: Link) -> int:
    return await link.execute("CLIENT", "ID")


async def test_a_unix_socket_is_an_address_too(server_binary: ServerBinary, tmp_path: Path):
    path = tmp_path / "redis.sock"
    options = ["--unixsocket", str(path)]
    with EmbeddedServer(tmp_path / "server", binary=server_binary, options=options):
        async with linked(f"unix://{path}") as link:
            assert await link.execute("ECHO", "x") == b"x"
            assert str(link.address) == f"unix://{path}"


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


# Scripts.


@one_partition
async def test_scripts_that_the_server_forgot_are_loaded_again(stage: Stage):
    await stage.begin_run(chain("a", "b"))
    await stage.store.execute("SCRIPT", "FLUSH")
    assert await stage.work() == 2
    assert await stage.status() == "completed"


@one_partition
async def test_calls_in_flight_while_the_server_forgets_its_scripts_all_succeed(stage: Stage):
    await stage.offer(chain("a"))
    calls = [stage.start("chain", run_id) for run_id in stage.ids(50)]
    flush = stage.store.execute("SCRIPT", "FLUSH")
    codes = await asyncio.gather(*calls[:25], flush, *calls[25:])
    assert codes.count("OK") == 50


@one_partition
async def test_a_script_that_is_loaded_is_sent_by_its_hash_alone(stage: Stage):
    await stage.start("a")
    before = await stage.store.execute("INFO", "commandstats")
    await stage.start("a", "other")
    after = await stage.store.execute("INFO", "commandstats")
    assert (await stage.store.execute("SCRIPT", "EXISTS", load_script("start_flow").sha)) == [1]
    for line in (b"cmdstat_script|load:calls=", b"cmdstat_eval:calls="):
        assert count(before, line) == count(after, line)


def count(stats: bytes, line: bytes) -> bytes:
    return stats.partition(line)[2].partition(b",")[0]


# The number of partitions.


async def test_the_first_to_use_a_namespace_says_how_many_partitions_it_has(store: Store):
    count = len(store.keys.partitions)
    other = await Store.open(store.link.address.url, store.keys.meta.namespace)
    assert len(other.keys.partitions) == count
    await other.close()


async def test_a_number_of_partitions_that_was_lost_is_written_anew_by_who_knows_it(store: Store):
    """FLUSHALL: whoever comes next must not decide on another one."""
    count = store.keys.count
    await store.execute("DEL", store.keys.meta.partitions)
    await store.confirm_partitions()
    await store.confirm_partitions()
    assert int(await store.execute("GET", store.keys.meta.partitions)) == count


async def test_who_knows_another_number_than_that_which_was_written_anew_is_told(store: Store):
    await store.execute("SET", store.keys.meta.partitions, 7)
    with pytest.raises(ConfigurationError, match=r"has 7 partition\(s\)"):
        await store.confirm_partitions()


async def test_the_number_of_partitions_cannot_be_changed(store: Store):
    with pytest.raises(ConfigurationError, match="cannot be given 7"):
        await Store.open(store.link.address.url, store.keys.meta.namespace, partitions=7)


@one_partition
async def test_of_many_that_use_a_namespace_first_all_have_the_same_number(store: Store):
    namespace = f"{store.keys.meta.namespace}-new"
    opened = await asyncio.gather(
        *(
            Store.open(store.link.address.url, namespace, partitions=n)
            for n in (4, None, 2, 4, None)
        ),
        return_exceptions=True,
    )
    stores = [found for found in opened if isinstance(found, Store)]
    assert len({len(found.keys.partitions) for found in stores}) == 1
    for found in stores:
        await found.execute("DEL", found.keys.meta.partitions)
        await found.close()
    for found in opened:
        assert isinstance(found, Store | ConfigurationError)


@one_partition
@pytest.mark.parametrize("partitions_wanted", [0, -1, 1025])
async def test_a_senseless_number_of_partitions_is_refused(store: Store, partitions_wanted: int):
    with pytest.raises(ConfigurationError, match="expected 1 to 1024"):
        await Store.open(store.link.address.url, "senseless", partitions=partitions_wanted)


@pytest.mark.parametrize("namespace", ["", "a{b", "a}b", "x" * 101])
async def test_a_namespace_that_would_break_the_hash_tags_is_refused(
    server: EmbeddedServer, namespace: str
):
    with pytest.raises(ConfigurationError, match="namespace"):
        await Store.open(server.url, namespace)


async def test_a_connection_that_is_refused_leaves_no_socket_behind(guarded: EmbeddedServer):
    address = Address(f"redis://:wrong@127.0.0.1:{guarded.port}")
    for _ in range(3):
        with pytest.raises(ServerReply):
            await Connection.open(address)
    async with linked(guarded.url) as link:
        assert len((await link.execute("CLIENT", "LIST")).splitlines()) == 1


async def test_a_reply_in_time_does_not_end_the_watch_over_those_behind_it(server: EmbeddedServer):
    async with linked(server.url) as link:
        connection = await link.connection()
        first = connection.send(("ECHO", "x"), 0.01)
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable, match="in time"):
                await connection.request(("BLPOP", "the-list", 0), 0.03)
        assert await first == b"x"


async def test_a_look_that_finds_nobody_waiting_does_not_end_the_watch(server: EmbeddedServer):
    async with linked(server.url) as link:
        connection = await link.connection()
        await connection.request(("ECHO", "x"))
        connection._look_at_the_oldest()
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable, match="in time"):
                await connection.request(("BLPOP", "the-list", 0), 0.01)


async def test_a_reply_that_nobody_waits_for_any_more_is_no_stray_error(server: EmbeddedServer):
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with linked(server.url) as link:
        connection = await link.connection()
        connection.send(("BLPOP", "the-list", 0))
        connection.close()
        gc.collect()
    assert reported == []


async def test_a_link_for_published_messages_has_replies_too(server: EmbeddedServer):
    heard: list[Any] = []
    async with linked(server.url, on_push=heard.append, name="listener") as link:
        assert await link.execute("CLIENT", "GETNAME") == b"listener"
    assert heard == []


@pytest.mark.parametrize(
    ("login", "path", "name"), [(":password@", "", ""), ("", "/3", ""), ("", "", "somebody")]
)
async def test_a_server_that_does_not_answer_a_login_is_given_up(
    monkeypatch: pytest.MonkeyPatch, login: str, path: str, name: str
):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.02)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)

    async with (
        strange_server(silent) as url,
        linked(url.replace("//", f"//{login}") + path, name=name) as link,
        asyncio.timeout(5),
    ):
        with pytest.raises(StoreUnavailable, match="in time"):
            await link.connection()


async def test_a_host_that_does_not_answer_at_all_is_given_up(monkeypatch: pytest.MonkeyPatch):
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.01)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    async with linked("redis://127.0.0.1") as link:
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable, match="TimeoutError"):
                await link.connection()


async def test_who_asked_for_a_connection_and_left_takes_it_from_nobody(server: EmbeddedServer):
    async with linked(server.url) as link:
        leaving, staying = (asyncio.create_task(link.connection()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert not (await staying).closed.done()
        assert link.generation == 1


async def test_after_a_dial_that_failed_the_next_one_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.05)
    async with linked("redis://127.0.0.1:1") as link:
        with pytest.raises(StoreUnavailable, match="cannot reach"):
            await link.connection()
        allowed = link._next_try
        with pytest.raises(StoreUnavailable, match="cannot reach"):
            await link.connection()
        assert time.monotonic() >= allowed


async def test_an_outage_is_said_once_and_so_is_its_end(
    own_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
):
    async with linked(own_server.url) as link:
        await link.execute("ECHO", "x")
        for _ in range(2):
            caplog.clear()
            own_server.kill()
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await link.execute("ECHO", "x")
            own_server.start()
            await link.execute("ECHO", "x")
            assert ["is back after" in record.message for record in caplog.records] == [False, True]


async def test_a_first_connection_that_fails_is_its_caller_s_to_say(
    caplog: pytest.LogCaptureFixture,
):
    async with linked("redis://127.0.0.1:1") as link:
        with pytest.raises(StoreUnavailable):
            await link.connection()
    assert caplog.records == []


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


@pytest.mark.parametrize("partitions", [1], indirect=True)
async def test_a_script_that_fails_is_not_sent_again(store: Store):
    partition = store.keys.partitions[0]
    stream = partition.queue("q")
    await store.execute("SET", stream, "a text")
    load = ("SCRIPT", "LOAD", load_script("ensure_group").source)
    await store.execute(*load)
    before = await store.execute("INFO", "commandstats")
    with pytest.raises(ServerReply, match="WRONGTYPE"):
        await store.call("ensure_group", [partition.inbox, stream], pack(GROUP_WORKERS))
    after = await store.execute("INFO", "commandstats")
    line = b"cmdstat_evalsha:calls="
    assert int(count(after, line)) == int(count(before, line) or 0) + 1
    await store.execute("DEL", stream)


@pytest.mark.parametrize(
    "code",
    ["LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "READONLY", "MISCONF",
     "NOREPLICAS"],
)  # fmt: skip
async def test_what_is_refused_for_the_moment_is_asked_again_whatever_the_reason(code: str):
    answers = iter([f"-{code} not now\r\n".encode(), b"+OK\r\n"])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(next(answers))

    async with strange_server(talk) as url, linked(url) as link:
        assert await Store(link, Keys("n", 1), 30.0).execute("SET", "key", "value") == b"OK"
        # Another server may answer behind the same address.
        assert link.generation == (2 if code in ("READONLY", "MASTERDOWN") else 1)


async def test_commands_sent_together_are_all_asked_again_where_one_was_refused_for_the_moment():
    """A read of several runs while the server loads its file after a crash."""
    answers = iter([b"-LOADING not now\r\n+b\r\n", b"+a\r\n+b\r\n"])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.read(1000)).count(b"GET") == 2:
            writer.write(next(answers))

    async with strange_server(talk) as url, linked(url) as link:
        store = Store(link, Keys("n", 1), 30.0)
        assert await store.execute_all([("GET", "a"), ("GET", "b")]) == [b"a", b"b"]


async def test_a_script_that_is_flushed_while_it_is_loaded_is_loaded_again():
    unknown, loaded = b"-NOSCRIPT No matching script.\r\n", b"+loaded\r\n"
    answers = iter([unknown, loaded, unknown, loaded, b"+OK\r\n"])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(10_000):
            writer.write(next(answers))

    async with strange_server(talk) as url, linked(url) as link:
        store = Store(link, Keys("n", 1), 30.0)
        assert await store.call("due_timers", ["timers"], pack(1)) == b"OK"


async def test_without_patience_what_is_refused_for_the_moment_is_said_at_once():
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(b"-BUSY not now\r\n")

    async with strange_server(talk) as url, linked(url) as link, asyncio.timeout(5):
        with pytest.raises(ServerReply, match="BUSY"):
            await Store(link, Keys("n", 1), 0.0).execute("SET", "key", "value")


async def test_a_server_that_loads_its_file_is_waited_for_at_the_first_connection():
    """A coordinator that is started while Redis comes back after a crash."""
    answers = iter([b"-LOADING not now\r\n", b"-LOADING not now\r\n", b"$1\r\n3\r\n"])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(next(answers))

    async with strange_server(talk) as url, asyncio.timeout(30):
        store = await Store.open(url, "n", name="", patience=30.0)
        assert store.keys.count == 3
        await store.close()


async def test_who_waits_for_a_server_does_not_wait_for_what_will_not_pass():
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(b"-NOPERM no\r\n")

    async with strange_server(talk) as url, asyncio.timeout(5):
        with pytest.raises(ServerReply, match="NOPERM"):
            await Store.open(url, "n", name="", wait=True)


@pytest.mark.parametrize("partitions", [1], indirect=True)
async def test_of_commands_sent_together_the_first_error_is_raised(store: Store):
    with pytest.raises(ServerReply, match="NOSUCH"):
        await store.execute_all([("ECHO", "a"), ("NOSUCH",), ("GET",)])


@pytest.mark.parametrize("partitions", [1], indirect=True)
async def test_what_is_no_stream_has_nothing_pending_only_by_mistake(store: Store):
    stream = store.keys.partitions[0].queue("q")
    assert await streams.pending_of(store, stream, GROUP_WORKERS, "worker") == []
    await store.execute("SET", stream, "a text")
    with pytest.raises(ServerReply, match="WRONGTYPE"):
        await streams.pending_of(store, stream, GROUP_WORKERS, "worker")
    await store.execute("DEL", stream)


# A server that was demoted.


async def test_a_read_of_entries_leaves_a_server_that_became_a_replica(own_server: EmbeddedServer):
    """It would be refused for ever: the connection stays open, and the primary is elsewhere."""
    async with linked(own_server.url) as link:
        connection = await link.connection()
        await link.execute("XGROUP", "CREATE", "stream", "group", "0", "MKSTREAM")
        await link.execute("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="not the primary"):
            await streams.read_group(link, "group", "consumer", ["stream"], 1, None)
        assert connection.closed.done()


async def test_blocking_reads_follow_the_link_to_another_server(
    server: EmbeddedServer, own_server: EmbeddedServer
):
    """Else they would be answered by a replica, late, when the link has found the new primary."""
    with Proxy(own_server.port) as proxy:
        async with linked(proxy.url) as link, linked(server.url) as new:
            await link.execute("HSET", "a-hash", "field", "old")
            await new.execute("HSET", "a-hash", "field", "new")
            reader = SyncReader(link)
            assert await asyncio.to_thread(reader.hmget, "a-hash", ["field"]) == [b"old"]
            proxy.target = server.port
            (await link.connection()).close()
            assert await asyncio.to_thread(reader.hmget, "a-hash", ["field"]) == [b"old"]
            await link.connection()
            assert await asyncio.to_thread(reader.hmget, "a-hash", ["field"]) == [b"new"]
            reader.close()
            await new.execute("DEL", "a-hash")
