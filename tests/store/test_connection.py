"""One connection: no reply reaches the wrong caller, and nothing that breaks is used again."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from resolute.errors import StoreUnavailable
from resolute.store.connection import ServerReply
from resolute.testing.server import EmbeddedServer
from tests.support.links import linked, saying, strange_server

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


@pytest.mark.parametrize("word", ["\ud800", None, {}])
async def test_what_cannot_be_sent_leaves_every_reply_to_its_own_caller(
    server: EmbeddedServer, word: Any
):
    async with linked(server.url) as link:
        with pytest.raises((TypeError, UnicodeEncodeError)):
            await link.execute("ECHO", word)
        with pytest.raises((TypeError, UnicodeEncodeError)):
            await link.execute_all([("ECHO", "sent"), ("ECHO", word), ("ECHO", "not sent")])
        replies = await asyncio.gather(*(link.execute("ECHO", n) for n in range(3)))
        assert replies == [b"0", b"1", b"2"]
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


async def test_published_messages_do_not_mix_with_replies(server: EmbeddedServer):
    heard: asyncio.Queue[list[Any]] = asyncio.Queue()
    async with linked(server.url, on_push=heard.put_nowait) as link, linked(server.url) as other:
        connection = await link.connection()
        connection.post(("SUBSCRIBE", "news"))
        assert (await heard.get())[:2] == [b"subscribe", b"news"]
        await other.execute("PUBLISH", "news", "hello")
        assert await heard.get() == [b"message", b"news", b"hello"]


async def test_a_link_for_published_messages_has_replies_too(server: EmbeddedServer):
    heard: list[Any] = []
    async with linked(server.url, on_push=heard.append, name="listener") as link:
        assert await link.execute("CLIENT", "GETNAME") == b"listener"
    assert heard == []


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


async def test_a_server_that_talks_nonsense_is_unavailable():
    nonsense = saying([b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    async with strange_server(nonsense) as url, linked(url) as link:
        with pytest.raises(StoreUnavailable, match="nonsense"):
            await link.execute("ECHO", "x")


async def test_a_reply_that_nobody_asked_for_breaks_the_connection():
    chatty = saying([b"+OK\r\n+AND MORE\r\n"])
    async with strange_server(chatty) as url, linked(url) as link:
        connection = await link.connection()
        assert await connection.request(("ECHO", "x")) == b"OK"
        await connection.closed
        with pytest.raises(StoreUnavailable):
            await connection.request(("ECHO", "y"))


async def test_a_reply_that_nobody_waits_for_any_more_is_no_stray_error(server: EmbeddedServer):
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with linked(server.url) as link:
        connection = await link.connection()
        connection.send(("BLPOP", "the-list", 0))
        connection.close()
        gc.collect()
    assert reported == []


# Those who share one.


async def test_whoever_asks_for_a_connection_while_it_is_made_gets_the_same(
    server: EmbeddedServer,
):
    async with linked(server.url) as link:
        found = await asyncio.gather(*(link.connection() for _ in range(10)))
        assert len(set(map(id, found))) == 1
        assert link.generation == 1


async def test_who_asked_for_a_connection_and_left_takes_it_from_nobody(server: EmbeddedServer):
    async with linked(server.url) as link:
        leaving, staying = (asyncio.create_task(link.connection()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert not (await staying).closed.done()
        assert link.generation == 1


async def test_who_waits_for_a_connection_that_is_given_up_is_told_so_and_not_cancelled():
    """Cancelled, a caller would take the end of the link for its own."""
    arrived = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
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
