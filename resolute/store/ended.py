"""Runs that have ended: which are past their time, and deleting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resolute.status import RunStatus
from resolute.store.keys import Partition
from resolute.store.nodes import MAX_ITEMS
from resolute.store.script import Item, KeyList, pack, pack_item
from resolute.store.store import Store
from resolute.store.transitions import IndexedItem

MAX_RUNS = 200  # of one index and call


class EndedItem(Item):
    index_key: int
    age: int


@dataclass(slots=True)
class Ended:
    """What an index of ended runs says: how many it holds, and the (end in ms, id) of the oldest.

    Only those are told that ended long enough ago, and at most MAX_RUNS.
    """

    count: int
    runs: list[tuple[int, str]]

    @property
    def is_cut(self) -> bool:
        return len(self.runs) == MAX_RUNS


async def list_ended(
    store: Store, partition: Partition, wanted: Sequence[tuple[str, int]]
) -> list[Ended]:
    """Look at indexes of a partition; with each the time (ms) since the end of a run."""
    found: list[Ended] = []
    for at in range(0, len(wanted), MAX_ITEMS):
        keys = KeyList()
        items = [
            pack_item(EndedItem(keys.index(index), age))
            for index, age in wanted[at : at + MAX_ITEMS]
        ]
        reply = await store.call("list_ended", keys.keys, pack(MAX_RUNS), items)
        found += [
            Ended(int(count), [(int(end), str(i, "utf-8")) for i, end in _pairs(rows)])
            for count, *rows in reply
        ]
    return found


def _pairs(rows: Sequence[bytes]) -> Sequence[tuple[bytes, bytes]]:
    return list(zip(rows[::2], rows[1::2], strict=True))


async def drop(
    store: Store,
    partition: Partition,
    status: RunStatus,
    flow: str,
    runs: Sequence[tuple[int, str]],
) -> int:
    """Delete runs of a flow that ended in `status`, as `list_ended` told them; how many."""
    keys = KeyList(partition.ended(status))
    index = keys.index(partition.ended(status, flow))
    items = [
        pack_item(IndexedItem(keys.index(partition.flow(name)), index, name)) for _, name in runs
    ]
    if items:
        await store.call("drop_flows", keys.keys, pack(max(runs)[0], flow), items)
    return len(items)


async def drop_ended(
    store: Store, partition: Partition, status: RunStatus, retention_ms: int
) -> int:
    """Delete some of the runs, of whatever flow, that ended in `status` so long ago; how many."""
    index = partition.ended(status)
    (ended,) = await list_ended(store, partition, [(index, retention_ms)])
    if not ended.runs:
        return 0
    names = [name for _, name in ended.runs]
    flows = await store.execute_all([("HGET", partition.flow(i), "flow") for i in names])
    offered = [str(f, "utf-8") for f in await store.execute("HKEYS", store.keys.meta.flows)]
    keys = KeyList(index)
    # Of a run whose hash went by its TTL the flow is not known: it may be in any index.
    items = [
        pack_item(
            IndexedItem(
                keys.index(partition.flow(name)), keys.index(partition.ended(status, candidate)),
                name,
            )
        )
        for name, flow in zip(names, flows, strict=True)
        for candidate in ([str(flow, "utf-8")] if flow else offered or [""])
    ]  # fmt: skip
    await store.call("drop_flows", keys.keys, pack(max(ended.runs)[0], ""), items)
    return len(names)
