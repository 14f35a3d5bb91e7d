"""The floor: scripts alone, minimal readers, no coordinator, no checks. What Redis can do at most.

The same steps, hashes, streams and counters as the product's plain path, without claims, fences,
records, plans, retries or leases: what is above it is the price of the promises.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Sequence
from multiprocessing.context import SpawnProcess
from typing import Any
from urllib.parse import urlparse

import hiredis
import msgspec

_START = """
for i = 2, #ARGV do
  local key = 'floor:f:' .. ARGV[i]
  redis.call('HSET', key, 'status', 'running', 'seq', 1, 'pending', 1, 'input', 'x')
  redis.call('XADD', KEYS[1], '*', 'e', cmsgpack.pack({ARGV[i], 1, 0}))
end
return #ARGV - 1
"""

_COMPLETE = """
local widths = cmsgpack.unpack(ARGV[1])
local ids = {}
for at = 2, #ARGV, 4 do
  local flow, seq, index = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local key = 'floor:f:' .. flow
  ids[#ids + 1] = ARGV[at]
  redis.call('HSET', key, 'o:' .. seq .. '.' .. index, '1')
  if redis.call('HINCRBY', key, 'pending', -1) == 0 then
    local width = widths[seq + 1]
    if width then
      redis.call('HSET', key, 'seq', seq + 1, 'pending', width)
      for i = 0, width - 1 do
        redis.call('XADD', KEYS[1], '*', 'e', cmsgpack.pack({flow, seq + 1, i}))
      end
    else
      redis.call('HSET', key, 'status', 'completed')
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


class Raw:
    """A blocking socket that speaks RESP; nothing is faster from Python."""

    def __init__(self, url: str) -> None:
        address = urlparse(url)
        self._socket = socket.create_connection((address.hostname or "127.0.0.1", address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def __call__(self, *command: Any) -> Any:
        self._socket.sendall(hiredis.pack_command(command))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(1 << 20))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply


def _read_for_ever(url: str, name: str, widths: Sequence[int], count: int) -> None:
    call = Raw(url)
    sha = call("SCRIPT", "LOAD", _COMPLETE)
    packed = msgspec.msgpack.encode(list(widths))
    while True:
        reply = call(
            "XREADGROUP", "GROUP", "g", name, "COUNT", count, "BLOCK", 1000, "STREAMS",
            "floor:q", ">",
        )  # fmt: skip
        if not reply:
            continue
        arguments: list[Any] = []
        for entry_id, fields in reply[0][1]:
            flow, seq, index = msgspec.msgpack.decode(fields[1])
            arguments += (entry_id, flow, seq, index)
        call("EVALSHA", sha, 1, "floor:q", packed, *arguments)


class Floor:
    """Two readers of a flow whose steps have these widths."""

    def __init__(self, url: str, widths: Sequence[int], count: int = 100) -> None:
        self._call = Raw(url)
        self._call("DEL", "floor:q", "floor:done")
        self._call("XGROUP", "CREATE", "floor:q", "g", "0", "MKSTREAM")
        self._start = self._call("SCRIPT", "LOAD", _START)
        spawn = multiprocessing.get_context("spawn")
        self._readers: list[SpawnProcess] = [
            spawn.Process(target=_read_for_ever, args=(url, f"r{i}", widths, count), daemon=True)
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

    def close(self) -> None:
        for reader in self._readers:
            reader.kill()
            reader.join()
        self._call("DEL", "floor:q", "floor:done")
