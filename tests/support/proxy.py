"""A TCP proxy between a process and its server, that can cut, swallow, lose and be late.

It runs on a loop in a thread of its own, so that a test whose loop is busy does not slow it down.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

HOST = "127.0.0.1"
CHUNK = 64 * 1024

T = TypeVar("T")


class Pair:
    """One connection through the proxy: the client's side and the server's."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.is_doomed = False  # the next answer is lost, and the connection with it

    def reset(self) -> None:
        for side in (self.client, self.server):
            side.transport.abort()


class Proxy:
    """Forwards to `target`, a port of this machine, which may be changed.

    `swallow` keeps connections open and lets nothing through, either way; `cut` closes them and
    takes no new ones; `loss` is the probability that an answer is dropped, after the server gave
    it, and its connection reset; `lose_next` does that to the next request that holds some bytes.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self.target = target
        self.loss = 0.0
        self.lost = 0
        self._random = Random(seed)
        self._open: asyncio.Event | None = None
        self._is_cut = False
        self._wanted: bytes | None = None
        self._pairs: set[Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def swallow(self) -> None:
        """From now on nothing comes through; connections stay open."""
        self._call(lambda: self._gate().clear())

    def flow(self) -> None:
        """Heal: what was swallowed meanwhile is lost, with its connections."""
        self._call(self._heal)

    def cut(self) -> None:
        """Close every connection and refuse new ones."""

        def do() -> None:
            self._is_cut = True
            self._reset_all()

        self._call(do)

    def reset_all(self) -> None:
        """Close every connection; new ones are welcome."""
        self._call(self._reset_all)

    def lose_next(self, containing: bytes) -> None:
        """Forward the next request that contains these bytes, and lose its answer."""
        self._wanted = containing

    def close(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, do: Callable[[], None]) -> None:
        async def run() -> None:
            do()

        self._run(run())

    def _gate(self) -> asyncio.Event:
        if self._open is None:
            self._open = asyncio.Event()
            self._open.set()
        return self._open

    def _heal(self) -> None:
        self._is_cut, self.loss, self._wanted = False, 0.0, None
        if not self._gate().is_set():
            self._reset_all()
            self._gate().set()

    def _reset_all(self) -> None:
        for pair in self._pairs:
            pair.reset()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, HOST, 0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = Pair(writer, far_writer)
        self._pairs.add(pair)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, pair, is_answer=False)),
            asyncio.create_task(self._pump(far_reader, writer, pair, is_answer=True)),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self._pairs.discard(pair)
        pair.reset()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._tasks.difference_update(pumps)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: Pair,
        *,
        is_answer: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._gate().wait()
                if is_answer and self._loses(pair):
                    self.lost += 1
                    return
                if not is_answer and self._wanted is not None and self._wanted in data:
                    pair.is_doomed, self._wanted = True, None
                writer.write(data)
                await writer.drain()

    def _loses(self, pair: Pair) -> bool:
        return pair.is_doomed or (self.loss > 0 and self._random.random() < self.loss)

    async def _close(self) -> None:
        self._server.close()
        self._gate().set()
        self._reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
