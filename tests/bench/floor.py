"""The floor: scripts alone, minimal readers, no coordinator. What a hand-written worker can do.

It writes what the data model needs of the plain path (a claim, a result and a record for each
node, the counter, the step, the indexes, the streams) in two scripts a batch, of which the second
dispatches the next step itself. It has no plan, fence, attempt, retry, lease, limit, type or
coordinator: what the product takes longer is the price of the promises.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from typing import Any, Self, cast
from urllib.parse import urlparse

import hiredis
import msgspec
import redis.asyncio
import uvloop

_START = """
local t = redis.call('TIME')[1]
for i = 2, #ARGV do
  local key = 'floor:f:' .. ARGV[i]
  redis.call('HSET', key, 'status', 'running', 'seq', 1, 'pending', 1, 'input', 'x')
  redis.call('ZADD', 'floor:open', t, ARGV[i])
  redis.call('XADD', KEYS[1], '*', 'e', cmsgpack.pack({ARGV[i], 1, 0}))
end
return #ARGV - 1
"""

_BEGIN = """
local replies = {}
for at = 2, #ARGV, 3 do
  local key = 'floor:f:' .. ARGV[at]
  redis.call('HSET', key, 'n:' .. ARGV[at + 1] .. '.' .. ARGV[at + 2], ARGV[1])
  replies[#replies + 1] = redis.call('HGET', key, 'input')
end
return replies
"""

_COMPLETE = """
local widths = cmsgpack.unpack(ARGV[1])
local t = redis.call('TIME')[1]
local ids = {}
for at = 2, #ARGV, 4 do
  local flow, seq, index = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local key = 'floor:f:' .. flow
  local node = seq .. '.' .. index
  ids[#ids + 1] = ARGV[at]
  redis.call('HSET', key, 'o:' .. node, '1', 'n:' .. node, t)
  if redis.call('HINCRBY', key, 'pending', -1) == 0 then
    local width = widths[seq + 1]
    if width then
      redis.call('HSET', key, 'seq', seq + 1, 'pending', width, 'moved', t)
      for i = 0, width - 1 do
        redis.call('XADD', KEYS[1], '*', 'e', cmsgpack.pack({flow, seq + 1, i}))
      end
    else
      redis.call('HSET', key, 'status', 'completed', 'moved', t)
      redis.call('ZREM', 'floor:open', flow)
      redis.call('ZADD', 'floor:ended', t, flow)
      redis.call('RPUSH', 'floor:done', flow)
    end
  end
end
for at = 1, #ids, 1000 do
  local stop = math.min(#ids, at + 999)
  redis.call('XACK', KEYS[1], 'g', unpack(ids, at, stop))
  redis.call('XDEL', KEYS[1], unpack(ids, at, stop))
end
return #ids
"""


_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]  # its stub knows only tuples of one


class Raw:
    """A blocking socket that speaks RESP, to start flows and see their ends at little cost."""

    def __init__(self, url: str) -> None:
        address = urlparse(url)
        self._socket = socket.create_connection((address.hostname or "127.0.0.1", address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def __call__(self, *command: Any) -> Any:
        self._socket.sendall(_pack(command))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(1 << 20))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply


async def _nothing() -> int:
    return 1


async def _read_for_ever(url: str, name: str, widths: Sequence[int], count: int) -> None:
    """A hand-written worker: the standard client, a batch read, a coroutine a node, one script."""
    client = redis.asyncio.Redis.from_url(url, socket_timeout=None)  # pyright: ignore[reportUnknownMemberType]  # untyped **kwargs
    begin = client.register_script(_BEGIN)
    complete = client.register_script(_COMPLETE)
    packed = msgspec.msgpack.encode(list(widths))
    while True:
        reply: Any = await client.xreadgroup("g", name, {"floor:q": ">"}, count=count, block=1000)
        if not reply:
            continue
        claims: list[Any] = [name]
        arguments: list[Any] = [packed]
        for entry_id, fields in reply[0][1]:
            entry = msgspec.msgpack.decode(fields[b"e"])
            claims += entry
            arguments += (entry_id, *entry)
        for _ in await begin(args=claims):
            await asyncio.create_task(_nothing())
        await complete(keys=["floor:q"], args=arguments)


def _reader(url: str, name: str, widths: Sequence[int], count: int) -> None:
    uvloop.run(_read_for_ever(url, name, widths, count))


class Floor:
    """Two reader processes of a flow whose steps have these widths."""

    def __init__(self, url: str, widths: Sequence[int], count: int = 100) -> None:
        self._call = Raw(url)
        self._call("DEL", "floor:q", "floor:done", "floor:open", "floor:ended")
        self._call("XGROUP", "CREATE", "floor:q", "g", "0", "MKSTREAM")
        self._start = self._call("SCRIPT", "LOAD", _START)
        spawn = multiprocessing.get_context("spawn")
        self._readers: list[SpawnProcess] = [
            spawn.Process(target=_reader, args=(url, f"r{i}", widths, count), daemon=True)
            for i in range(2)
        ]
        for reader in self._readers:
            reader.start()
        self.run(10)  # until both live and every script is loaded

    def run(self, flows: int) -> float:
        """Start so many flows and wait for their ends; the seconds it took."""
        self._call("DEL", "floor:done")
        began = time.perf_counter()
        names = [f"{began}-{i}" for i in range(flows)]
        for at in range(0, flows, 250):
            self._call("EVALSHA", self._start, 1, "floor:q", "", *names[at : at + 250])
        if flows == 1:
            self._call("BLPOP", "floor:done", 0)
        else:
            while self._call("LLEN", "floor:done") < flows:
                time.sleep(0.005)
        took = time.perf_counter() - began
        for at in range(0, flows, 1000):
            self._call("UNLINK", *(f"floor:f:{name}" for name in names[at : at + 1000]))
        return took

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.kill()
            reader.join()
        self._call("DEL", "floor:q", "floor:done", "floor:open", "floor:ended")
