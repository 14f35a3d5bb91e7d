"""Cursors: one hash for all of a namespace, each with who moved it last."""

from __future__ import annotations

from resolute.model.cursors import SavedBy, cursor_field
from resolute.store.connection import Command
from resolute.store.nodes import code_of
from resolute.store.script import Item, pack, pack_item
from resolute.store.store import Store


class CursorItem(Item):
    field: str
    started: int
    run: str
    seq: int


async def save(store: Store, namespace: str, name: str, by: SavedBy, value: bytes) -> str:
    """Save a cursor for a step of a run; OK or STALE."""
    item = CursorItem(cursor_field(namespace, name), by.started, by.run, by.seq)
    keys = [store.keys.meta.cursors]
    reply = await store.call("save_cursor", keys, pack(), (pack_item(item), value))
    return code_of(reply[0])


async def read(store: Store, namespace: str, name: str) -> bytes | None:
    """The encoded value, None where there is none."""
    return await store.execute("HGET", store.keys.meta.cursors, cursor_field(namespace, name))


async def put(store: Store, namespace: str, name: str, value: bytes | None) -> None:
    """Let a cursor be what somebody says; None: as if no run had ever saved it."""
    key, field = store.keys.meta.cursors, cursor_field(namespace, name)
    commands: list[Command] = [("HDEL", key, field, f"{field}#")]
    if value is not None:
        commands.append(("HSET", key, field, value))
    await store.write_all(commands)
