"""What scripts do inside the server, as MONITOR tells it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from importlib.resources import files

from resolute.store.connection import ServerReply
from resolute.store.script import load_script
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer

_LINE = re.compile(rb"\+[\d.]+ \[(?P<source>[^\]]*)\] (?P<words>.*)\r\n", re.DOTALL)
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
_END = b"the-end-of-the-watch"


@dataclass
class ScriptCall:
    """One EVALSHA: the keys that it declared, and those that its commands touched."""

    script: str
    declared: set[str]
    commands: list[list[bytes]] = field(default_factory=list[list[bytes]])
    touched: set[str] = field(default_factory=set[str])


@contextlib.asynccontextmanager
async def watched(store: Store, server: EmbeddedServer) -> AsyncGenerator[list[ScriptCall]]:
    """The calls of scripts in this namespace meanwhile; complete when the block is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 24)
    calls: list[ScriptCall] = []
    try:
        writer.write(b"MONITOR\r\n")
        assert await reader.readline() == b"+OK\r\n"
        yield calls
        await store.execute("ECHO", _END)
        await _gather(reader, calls, await _names(store))
    finally:
        writer.close()
        await writer.wait_closed()
    for call in calls:
        for command in call.commands:
            call.touched |= await _keys_of(store, command)


async def _names(store: Store) -> dict[bytes, str]:
    folder = files("resolute.store") / "lua"
    names = [path.name.removesuffix(".lua") for path in folder.iterdir()]
    scripts = [load_script(n) for n in names if not n.startswith("lib_") and "." not in n]
    return {script.sha.encode(): script.name for script in scripts}


async def _gather(
    reader: asyncio.StreamReader, calls: list[ScriptCall], names: dict[bytes, str]
) -> None:
    while True:
        match = _LINE.fullmatch(await reader.readline())
        assert match is not None
        words = [_unescaped(word) for word in _WORD.findall(match["words"])]
        if words == [b"ECHO", _END]:
            return
        if match["source"].endswith(b" lua"):
            calls[-1].commands.append(words)
        elif words[0].upper() == b"EVALSHA" and words[1] in names:
            count = int(words[2])
            keys = {str(key, "utf-8") for key in words[3 : 3 + count]}
            calls.append(ScriptCall(names[words[1]], keys))


def _unescaped(word: bytes) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code.startswith(b"x") and len(code) == 3:
            return bytes([int(code[1:], 16)])
        return _PLAIN.get(code, code)

    return _ESCAPE.sub(plain, word)


async def _keys_of(store: Store, command: list[bytes]) -> set[str]:
    if len(command) == 1:
        return set()  # TIME
    try:
        keys = await store.execute("COMMAND", "GETKEYS", *command)
    except ServerReply as error:
        assert "no key arguments" in str(error), error
        return set()
    return {str(key, "utf-8") for key in keys}
