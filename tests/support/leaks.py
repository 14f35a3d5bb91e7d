"""What a test leaves behind in Redis, when everything it began has been brought to its end."""

from __future__ import annotations

import msgspec

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.dispatcher import Dispatcher
from resolute.coordinator.objects import Objects
from resolute.coordinator.timers import Timers
from resolute.errors import ErrorInfo
from resolute.model.messages import Entry
from resolute.status import TERMINAL, Code, RunStatus
from resolute.storage import Storage
from resolute.store import ended, nodes, registry, runs, streams
from resolute.store.keys import Partition
from resolute.store.store import Store
from tests.support.clocks import FakeClock
from tests.support.keyspace import all_keys, types
from tests.support.stage import forget

ROUNDS = 100
PAST = -60_000  # a retention that is over for what ends a moment from now


async def find_leaks(store: Store) -> list[str]:
    """Bring the namespace to its end as the product would; what is wrong or left after that."""
    found = await _bring_to_an_end(store)
    found += await _wrong_runs(store)
    await _drop_ended(store)
    await _drop_folders(store)
    await forget(store, *{*await registry.processes(store), *await registry.beats(store)})
    return found + await _left_over(store)


async def _bring_to_an_end(store: Store) -> list[str]:
    """Terminate what is open; let coordinators, timers and workers see it."""
    found: list[str] = []
    dispatcher = _dispatcher(store)
    for partition in store.keys.partitions:
        found += await _empty_inbox(store, dispatcher, partition)
        for flow_id in await _members(store, partition.open):
            await runs.cancel(store, flow_id, ErrorInfo("Terminated", "test"), terminate=True)
        found += await _empty_inbox(store, dispatcher, partition)
        await _make_due(store, partition)
    await Timers(store).run_once()
    for partition in store.keys.partitions:
        for key in await all_keys(store):
            if key.startswith(f"{partition.tag}:q:"):
                found += await _empty_queue(store, partition, key)
    return found


def _dispatcher(store: Store) -> Dispatcher:
    catalog = Catalog(store, FakeClock(tick=1.0))
    return Dispatcher(store, catalog, "leaks:0:coordinator", 60_000, _nothing, _nothing)


def _nothing() -> None:
    pass


async def _members(store: Store, key: str) -> list[str]:
    return [str(name, "utf-8") for name in await store.execute("ZRANGE", key, 0, -1)]


async def _empty_inbox(store: Store, dispatcher: Dispatcher, partition: Partition) -> list[str]:
    for _ in range(ROUNDS):
        entries = await store.execute("XRANGE", partition.inbox, "-", "+", "COUNT", 200)
        if not entries:
            return []
        await dispatcher.handle(partition, streams.parse_entries(entries))
    return [f"{partition.inbox}: its events are never acknowledged"]


async def _make_due(store: Store, partition: Partition) -> None:
    for member in await _members(store, partition.timers):
        await store.execute("ZADD", partition.timers, 1, member)


async def _empty_queue(store: Store, partition: Partition, stream: str) -> list[str]:
    """Begin every entry: its run has ended, so the entry must go."""
    found: list[str] = []
    for message in streams.parse_entries(await store.execute("XRANGE", stream, "-", "+")):
        entry = msgspec.msgpack.decode(message.payload or b"", type=Entry)
        held = nodes.Held(partition, partition.queue_of(stream), message.id, entry)
        begun = (await nodes.begin(store, "leaks:0:worker", [(held, ())]))[0]
        if begun.code == Code.OK:
            found.append(f"{stream}: a node of the ended run {entry.flow} could be begun")
    return found


async def _wrong_runs(store: Store) -> list[str]:
    found: list[str] = []
    for partition in store.keys.partitions:
        prefix = partition.flow("")
        for key in [key for key in await all_keys(store) if key.startswith(prefix)]:
            status = str(await store.execute("HGET", key, "status"), "utf-8")
            if not RunStatus(status).is_terminal:
                found.append(f"{key}: still {status}: terminating it did not end it")
            elif await store.execute("PTTL", key) < 0:
                found.append(f"{key}: {status}, without a TTL")
    return found


async def _drop_ended(store: Store) -> None:
    """Delete every ended run, however long its flow keeps them."""
    for partition in store.keys.partitions:
        for status in TERMINAL:
            while await ended.drop_ended(store, partition, status, PAST):
                pass


async def _drop_folders(store: Store) -> None:
    """What is in the storage, when every folder has come to be looked at."""
    for partition in store.keys.partitions:
        for folder in await _members(store, partition.folders_due):
            await store.execute("ZADD", partition.folders_due, 1, folder)
    await Objects(store, Storage("memory://"), period=1.0).run_once()


async def _left_over(store: Store) -> list[str]:
    meta = store.keys.meta
    allowed = {meta.partitions, meta.plans, meta.flows, meta.ticks, meta.version, meta.cursors}
    for partition in store.keys.partitions:
        allowed |= {partition.stats, partition.dead}
    found: list[str] = []
    for key, kind in (await types(store, await all_keys(store))).items():
        if key in allowed:
            continue
        if kind == "stream":
            count = await store.execute("XLEN", key)
            if count:
                found.append(f"{key}: {count} entries")
        elif key == meta.departed or any(
            part in key
            for part in (":limit:", ":places:", ":cancel:", ":dead:", ":a:", ":claims:", ":c:")
        ):
            if await store.execute("PTTL", key) < 0:
                found.append(f"{key}: {kind} without a TTL")
        else:
            found.append(f"{key}: {kind}")
    return found
