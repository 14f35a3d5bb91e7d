"""Making dead letters, as a coordinator or a worker does."""

from __future__ import annotations

from resolute.store import dead
from resolute.store.keys import Partition
from resolute.store.store import Store


async def bury(store: Store, partition: Partition, queue: str, raw: bytes, why: str = "why") -> str:
    """Put raw bytes into a queue ('': into the inbox), and bury them; the letter's id."""
    stream = partition.queue(queue) if queue else partition.inbox
    entry = str(await store.execute("XADD", stream, "*", "e", raw), "ascii")
    if queue:
        await dead.bury_entries(store, partition, queue, [(entry, why)])
    else:
        await dead.bury_event(store, partition, entry, why)
    (letter,) = await dead.read_letters(store, partition, count=1)
    return f"{partition.number}-{letter.entry}"


async def raws(store: Store, stream: str) -> list[bytes]:
    """The raw bytes of every entry of a stream."""
    return [fields[1] for _, fields in await store.execute("XRANGE", stream, "-", "+")]
