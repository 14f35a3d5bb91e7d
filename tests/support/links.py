"""Links to Redis, and to what listens and is no Redis, for tests of a single connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any

from resolute.store import streams
from resolute.store.connection import Address, Link
from resolute.store.keys import Keys
from resolute.store.servers import Topology
from resolute.store.store import Store

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def linked(url: str, **options: Any) -> AsyncGenerator[Link]:
    link = Link(Address(url), **options)
    try:
        yield link
    finally:
        await link.close()


async def read_group(
    link: Link, group: str, consumer: str, names: Sequence[str], count: int, block_ms: int | None
) -> dict[str, list[streams.Message]]:
    """What a `GroupReader` reads from one server."""
    connection = await link.connection()
    return await streams.read_on(connection, group, consumer, names, count, block_ms)


def alone(link: Link, patience: float) -> Store:
    """A store on a server that need not be asked whether it is in a cluster."""
    topology = Topology(link.address)
    topology.is_single()
    return Store(link, Keys("n", 1), patience, topology)


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


def saying(answers: Iterable[bytes]) -> Handler:
    """Whatever is sent, over however many connections, gets the next answer; silent after all."""
    left = iter(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(10_000):
            writer.write(next(left, b""))

    return talk


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """It listens and answers nothing."""
    await reader.read()
