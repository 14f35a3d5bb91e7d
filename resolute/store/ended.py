"""Runs that have ended: which are past their time, and deleting them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from resolute.status import Code, RunStatus
from resolute.store.keys import Partition
from resolute.store.nodes import MAX_ITEMS, code_of
from resolute.store.script import Item, KeyList, pack, pack_item
from resolute.store.store import Store
from resolute.store.transitions import IndexedItem

log = logging.getLogger(__name__)

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
        for (index, _), row in zip(wanted[at:], reply, strict=False):
            if row[0] == Code.ERROR.encode():
                log.warning("index %s cannot be read: %s", index, row[1])
                found.append(Ended(0, []))
                continue
            count, *rows = row
            runs = [(int(end), str(i, "utf-8")) for i, end in _pairs(rows)]
            found.append(Ended(int(count), runs))
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
    keys = KeyList(partition.ended(status), partition.folders_due)
    index = keys.index(partition.ended(status, flow))
    items = [
        pack_item(IndexedItem(keys.index(partition.flow(name)), index, name)) for _, name in runs
    ]
    if not items:
        return 0
    reply = await store.call("drop_flows", keys.keys, pack(max(runs)[0], flow), items)
    return [code_of(answer) for answer in reply].count(Code.OK)


async def drop_ended(
    store: Store, partition: Partition, status: RunStatus, retention_ms: int
) -> int:
    """Delete some of the runs, of whatever flow, that ended in `status` so long ago; how many."""
    index = partition.ended(status)
    (ended,) = await list_ended(store, partition, [(index, retention_ms)])
    if not ended.runs:
        return 0
    names = [name for _, name in ended.runs]
    flows = await store.try_all([("HGET", partition.flow(i), "flow") for i in names])
    offered = [str(f, "utf-8") for f in await store.execute("HKEYS", store.keys.meta.flows)]
    keys = KeyList(index, partition.folders_due)
    # Where the hash went by its TTL, or is none, the flow is not known: it may be in any index.
    places = [
        (name, candidate)
        for name, flow in zip(names, flows, strict=True)
        for candidate in ([str(flow, "utf-8", "replace")] if _is_name(flow) else offered or [""])
    ]
    items = [
        pack_item(
            IndexedItem(
                keys.index(partition.flow(name)), keys.index(partition.ended(status, flow)), name
            )
        )
        for name, flow in places
    ]
    reply = await store.call("drop_flows", keys.keys, pack(max(ended.runs)[0], ""), items)
    answers = zip(places, reply, strict=True)
    return len({name for (name, _), answer in answers if code_of(answer) == Code.OK})


def _is_name(flow: object) -> bool:
    return isinstance(flow, bytes) and flow != b""
