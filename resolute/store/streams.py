"""Reading streams as a consumer group, and what a consumer has pending."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from resolute.errors import StoreUnavailable
from resolute.store.connection import Connection, ServerReply
from resolute.store.keys import Partition
from resolute.store.script import pack
from resolute.store.store import DEMOTED, Store

READ_MARGIN = 15.0  # s more than the block, before a read counts as dead
FIELD = b"e"


class Message(NamedTuple):
    """A stream entry: its id, and its payload (None: it was deleted while pending)."""

    id: str
    payload: bytes | None


async def ensure_group(store: Store, partition: Partition, stream: str, group: str) -> None:
    """Make the group, and the stream if need be; a new one asks the coordinators for a sweep."""
    await store.call("ensure_group", [partition.inbox, stream], pack(group))


async def read_on(
    connection: Connection,
    group: str,
    consumer: str,
    streams: Sequence[str],
    count: int,
    block_ms: int | None,
) -> dict[str, list[Message]]:
    """New entries of the streams, at most `count` of each; blocks `block_ms` unless None.

    Raises ServerReply with code NOGROUP or UNBLOCKED where a stream was lost; StoreUnavailable,
    also where the server is a replica by now.
    """
    block = () if block_ms is None else ("BLOCK", block_ms)
    timeout = READ_MARGIN + (block_ms or 0) / 1000
    command = ("XREADGROUP", "GROUP", group, consumer, "COUNT", count, *block, "STREAMS")
    try:
        reply = await connection.request(command + tuple(streams) + (">",) * len(streams), timeout)
    except ServerReply as error:
        if error.code not in DEMOTED:
            raise
        # It would refuse for ever: only a new connection leads to the primary of today.
        connection.close()
        raise StoreUnavailable(f"this server is not the primary any more: {error}") from error
    return parse_streams(reply)


def parse_streams(reply: Any) -> dict[str, list[Message]]:
    """The reply of XREADGROUP by stream."""
    if not reply:
        return {}
    return {str(name, "utf-8"): parse_entries(entries) for name, entries in reply}


def parse_entries(entries: Any) -> list[Message]:
    """The entries of XRANGE, XCLAIM or one stream of XREADGROUP."""
    return [Message(str(entry[0], "ascii"), _payload(entry[1])) for entry in entries if entry]


def _payload(fields: Any) -> bytes | None:
    if not fields:
        return None
    for name, value in zip(fields[::2], fields[1::2], strict=False):
        if name == FIELD:
            return value
    return b""


async def pending_of(
    store: Store, stream: str, group: str, consumer: str, after: str = "-", count: int = 500
) -> list[str]:
    """The ids of entries that a consumer has pending, in order."""
    start = after if after == "-" else f"({after}"
    try:
        reply = await store.execute("XPENDING", stream, group, start, "+", count, consumer)
    except ServerReply as error:
        if error.code == "NOGROUP":
            return []
        raise
    return [str(entry[0], "ascii") for entry in reply]


async def consumers(store: Store, readers: Sequence[tuple[str, str]]) -> list[dict[str, int]]:
    """For each (stream, group) its consumers and how many entries they have pending.

    None where there is no such stream or group.
    """
    replies = await store.try_all(
        [("XINFO", "CONSUMERS", stream, group) for stream, group in readers]
    )
    return [{} if isinstance(reply, ServerReply) else _pending_counts(reply) for reply in replies]


def _pending_counts(rows: Any) -> dict[str, int]:
    found = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
    return {str(fields[b"name"], "utf-8"): int(fields[b"pending"]) for fields in found}


async def read_entries(store: Store, stream: str, ids: Sequence[str]) -> dict[str, bytes | None]:
    """The payloads of entries by id; None for one that is gone."""
    replies = await store.execute_all([("XRANGE", stream, i, i) for i in ids])
    return {
        entry_id: (parse_entries(reply)[0].payload if reply else None)
        for entry_id, reply in zip(ids, replies, strict=True)
    }


async def acknowledge(store: Store, stream: str, group: str, ids: Sequence[str]) -> None:
    """Let entries go for good: XACK and XDEL."""
    if ids:
        await store.execute_all([("XACK", stream, group, *ids), ("XDEL", stream, *ids)])


async def take_over(
    store: Store, stream: str, group: str, consumer: str, idle_ms: int, count: int = 200
) -> list[Message]:
    """XAUTOCLAIM: entries that another consumer has had pending for `idle_ms`."""
    reply = await store.execute("XAUTOCLAIM", stream, group, consumer, idle_ms, "0", "COUNT", count)
    return parse_entries(reply[1])
