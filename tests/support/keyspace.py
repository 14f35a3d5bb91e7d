"""The whole of a namespace, to compare, to search and to erase."""

from __future__ import annotations

from typing import Any

from resolute.store.connection import Command
from resolute.store.store import Store


async def all_keys(store: Store) -> list[str]:
    """Every key of the namespace, sorted."""
    namespace = store.keys.meta.namespace
    found: set[str] = set()
    for link in store.servers.primaries():
        cursor = b"0"
        while True:
            cursor, names = await link.execute(
                "SCAN", cursor, "MATCH", f"{{{namespace}*", "COUNT", 10_000
            )
            found |= {str(name, "utf-8") for name in names}
            if cursor == b"0":
                break
    return sorted(n for n in found if n.startswith((f"{{{namespace}}}", f"{{{namespace}:")))


async def erase(store: Store) -> None:
    """Delete every key of the namespace."""
    await store.execute_all([("UNLINK", key) for key in await all_keys(store)])


async def types(store: Store, keys: list[str]) -> dict[str, str]:
    """The type of each key."""
    replies = await store.execute_all([("TYPE", key) for key in keys])
    return {key: str(reply, "ascii") for key, reply in zip(keys, replies, strict=True)}


async def snapshot(store: Store) -> dict[str, Any]:
    """The content of every key, and whether it has a TTL; equal if nothing changed."""
    kinds = await types(store, await all_keys(store))
    commands: list[Command] = []
    for key, kind in kinds.items():
        commands += [_read(key, kind), ("PTTL", key)]
    replies = await store.execute_all(commands)
    found: dict[str, Any] = {}
    for (key, kind), value, ttl in zip(kinds.items(), replies[::2], replies[1::2], strict=True):
        content = sorted(zip(value[::2], value[1::2], strict=True)) if kind == "hash" else value
        found[key] = (content, ttl >= 0)
        if kind == "stream":
            found[f"{key} groups"] = await _groups(store, key)
    return found


def _read(key: str, kind: str) -> Command:
    match kind:
        case "hash":
            return ("HGETALL", key)
        case "stream":
            return ("XRANGE", key, "-", "+")
        case "zset":
            return ("ZRANGE", key, 0, -1, "WITHSCORES")
        case "set":
            return ("SMEMBERS", key)
        case _:
            return ("GET", key)


async def _groups(store: Store, key: str) -> list[tuple[str, list[Any]]]:
    """Each group of a stream with what it has pending: (id, consumer)."""
    found: list[tuple[str, list[Any]]] = []
    for row in await store.execute("XINFO", "GROUPS", key):
        name = str(dict(zip(row[::2], row[1::2], strict=True))[b"name"], "utf-8")
        pending = await store.execute("XPENDING", key, name, "-", "+", 10_000)
        found.append((name, [(entry[0], entry[1]) for entry in pending]))
    return found
