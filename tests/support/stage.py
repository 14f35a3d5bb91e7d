"""A namespace on a real server with hands that play its coordinators and workers, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.dispatcher import Dispatcher
from resolute.coordinator.reclaiming import as_reclaim
from resolute.coordinator.timers import Timers
from resolute.errors import ErrorInfo
from resolute.model.flow import Flow
from resolute.model.messages import Entry, Event
from resolute.model.nodes import Node
from resolute.model.plan import NodePlan, Plan
from resolute.status import RunStatus
from resolute.store import nodes, registry, runs, streams, transitions
from resolute.store.keys import Partition
from resolute.store.nodes import Begun, Completion, Failure, Held, PageTurn, Return
from resolute.store.runs import Header, Record
from resolute.store.script import GROUP_COORDINATORS, GROUP_WORKERS
from resolute.store.store import Store
from tests.support.clocks import FakeClock
from tests.support.links import read_group

NIL = b"\xc0"  # None as MessagePack
NO_UNDO_INPUT = b"\x92\x00\xc0"  # what a compensation without an input is stored with
QUEUE = "q"
RETENTION_MS = 60_000

_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_event = msgspec.msgpack.Decoder(Event).decode


def error_blob(message: str = "boom", kind: str = "ValueError") -> bytes:
    """An encoded error."""
    return msgspec.msgpack.encode(ErrorInfo(kind, message))


async def forget(store: Store, *processes: str) -> None:
    """Have processes cleared away, as if each was dead and had nothing."""
    for process in processes:
        await store.execute("HDEL", store.keys.meta.beats, process)
        assert await registry.unregister(store, process)


@dataclass
class Stage:
    """Starts runs of offered flows, coordinates, takes entries and settles them."""

    store: Store
    clock: FakeClock = field(default_factory=lambda: FakeClock(tick=1.0))
    name: str = "stage:0:coordinator"
    plans: dict[str, Plan] = field(default_factory=dict[str, Plan])
    wakes: int = 0
    sweeps: int = 0

    def __post_init__(self) -> None:
        self.catalog = Catalog(self.store, self.clock)
        self.dispatcher = Dispatcher(
            self.store, self.catalog, self.name, RETENTION_MS, self._wake, self._sweep
        )

    def _wake(self) -> None:
        self.wakes += 1

    def _sweep(self) -> None:
        self.sweeps += 1

    async def offer(
        self,
        *flows: Flow[Any, Any],
        queue: str = QUEUE,
        process: str = "stage:0:offers",
        nodes: Sequence[Node[Any, Any]] = (),
    ) -> None:
        """Register a worker that offers these flows on `queue`, and these nodes by name."""
        plans = {flow.plan_hash: flow.plan for flow in flows}
        self.plans.update(plans)
        info = registry.ProcessInfo(
            name=process,
            kind="worker",
            host="stage",
            pid=0,
            started=await registry.server_ms(self.store),
            lease=15.0,
            queue=queue,
            flows={flow.name: flow.plan_hash for flow in flows},
            nodes=tuple(node.name for node in nodes),
        )
        await registry.register(self.store, info, plans)

    async def start(
        self,
        flow: Flow[Any, Any] | str,
        run_id: str = "run",
        data: bytes = NIL,
        *,
        queue: str = QUEUE,
        tick: int = 0,
        retention_ms: int = RETENTION_MS,
        delay: int = 0,
        at: int = 0,
    ) -> str:
        """The code of start_flow."""
        name = flow if isinstance(flow, str) else flow.name
        looked = await registry.server_ms(self.store) if tick else 0
        start = runs.Start(run_id, name, queue, data, tick, looked, delay, at)
        return (await runs.start(self.store, self.of(run_id), [start], retention_ms))[0]

    async def put_cursor(self, field: str, tick_ms: int) -> None:
        """Let the cursor of a schedule be there, also where that is before where it is."""
        await self.store.execute("HSET", self.store.keys.meta.ticks, field, tick_ms)

    def of(self, run_id: str) -> Partition:
        """The partition of a run."""
        return self.store.keys.of(run_id)

    def ids(self, count: int, partition: int = 0) -> list[str]:
        """Run ids that all live in one partition."""
        found: list[str] = []
        number = 0
        while len(found) < count:
            run_id = f"run-{number}"
            if self.of(run_id).number == partition:
                found.append(run_id)
            number += 1
        return found

    async def coordinate(self) -> int:
        """Handle inbox events until there are none; how many there were."""
        handled = 0
        for partition in self.store.keys.partitions:
            while True:
                messages = await self.read_inbox(partition)
                if not messages:
                    break
                await self.dispatcher.handle(partition, messages)
                handled += len(messages)
        return handled

    async def read_inbox(self, partition: Partition) -> list[streams.Message]:
        """New events, read as a member of the group of coordinators."""
        await streams.ensure_group(self.store, partition, partition.inbox, GROUP_COORDINATORS)
        found = await read_group(
            self.store.servers.link_of(partition.inbox), GROUP_COORDINATORS, self.name,
            [partition.inbox], 1000, None,
        )  # fmt: skip
        return found.get(partition.inbox, [])

    async def begin_run(self, flow: Flow[Any, Any], run_id: str = "run", data: bytes = NIL) -> None:
        """Offer a flow, start a run of it and dispatch its first step."""
        await self.offer(flow)
        await self.start(flow, run_id, data)
        await self.coordinate()

    async def take(self, process: str, queue: str = QUEUE, count: int = 1000) -> list[Held]:
        """Read new entries of a queue in every partition, as a worker process."""
        taken: list[Held] = []
        for partition in self.store.keys.partitions:
            stream = partition.queue(queue)
            await streams.ensure_group(self.store, partition, stream, GROUP_WORKERS)
            link = self.store.servers.link_of(stream)
            found = await read_group(link, GROUP_WORKERS, process, [stream], count, None)
            for message in found.get(stream, []):
                assert message.payload is not None
                taken.append(Held.read(partition, queue, message.id, message.payload))
        return taken

    async def take_one(self, process: str, queue: str = QUEUE) -> Held:
        """The only new entry of a queue."""
        (held,) = await self.take(process, queue)
        return held

    async def claim(self, process: str, queue: str = QUEUE) -> list[Held]:
        """Take every new entry of a queue and begin it."""
        taken = await self.take(process, queue)
        for held in taken:
            assert (await self.begin(process, held)).code == "OK"
        return taken

    async def claim_one(self, process: str, queue: str = QUEUE) -> Held:
        """Take the only new entry of a queue and begin it."""
        (held,) = await self.claim(process, queue)
        return held

    async def begin(self, process: str, held: Held, fields: Sequence[str] = ()) -> Begun:
        return (await nodes.begin(self.store, process, [(held, fields)]))[0]

    async def complete(
        self,
        process: str,
        held: Held,
        output: bytes = NIL,
        *,
        undo: bytes | None = None,
        arg: str = "",
        costs: str = "",
        pages: int | None = None,
    ) -> str:
        done = Completion(held, self.key(held), output, undo, arg, costs, pages)
        return (await nodes.complete(self.store, process, [done]))[0]

    async def turn_page(
        self, process: str, held: Held, number: int, page: bytes, progress: bytes, costs: str = ""
    ) -> str:
        turn = PageTurn(held, held.queue, number, page, progress, costs)
        return (await nodes.turn_pages(self.store, process, [turn]))[0]

    async def keep_progress(self, process: str, held: Held, progress: bytes) -> str:
        return await nodes.keep_progress(self.store, process, held, progress)

    async def store_items(
        self, process: str, held: Held, items: Sequence[bytes], start: int = 0
    ) -> str:
        return await nodes.store_items(self.store, process, held, start, items)

    async def fail(
        self,
        process: str,
        held: Held,
        delay: int | None = None,
        *,
        best_effort: bool = False,
        message: str = "boom",
        costs: str = "",
    ) -> str:
        key, error = self.key(held), error_blob(message)
        failure = Failure(held, key, held.queue, error, delay, best_effort, costs)
        return (await nodes.fail(self.store, process, [failure]))[0]

    async def give_back(
        self,
        process: str,
        held: Held,
        delay: int = 0,
        *,
        hold: str = "",
        queue: str | None = None,
        costs: str = "",
    ) -> str:
        back = Return(held, held.queue if queue is None else queue, delay, hold, costs)
        return (await nodes.give_back(self.store, process, [back]))[0]

    async def reclaim(self, held: Held, process: str = "") -> str:
        lost = as_reclaim(self.plan(held), held, process, held.queue.partition("@")[0])
        return (await nodes.reclaim(self.store, held.partition, [lost]))[0]

    async def make_due(self, partition: Partition) -> None:
        """Let every timer of a partition be due."""
        for member in await self.store.execute("ZRANGE", partition.timers, 0, -1):
            await self.store.execute("ZADD", partition.timers, 1, member)

    async def release(self, partition: Partition) -> list[str]:
        """Release what is due; a code for each."""
        due, _, _ = await transitions.due_timers(self.store, partition)
        return await Timers(self.store).fire(partition, due) if due else []

    async def signal(
        self, name: str, payload: bytes = NIL, *, sender: str = "s", run_id: str = "run"
    ) -> str:
        """The code of signal_flow."""
        one = runs.Signal(run_id, name, sender, payload)
        return (await runs.signal(self.store, self.of(run_id), [one]))[0]

    async def stop(self, run_id: str, *, terminate: bool = False) -> str:
        """The code of cancel_flow."""
        kind = "Terminated" if terminate else "Cancelled"
        return await runs.cancel(self.store, run_id, ErrorInfo(kind, "test"), terminate=terminate)

    async def work(self, process: str = "worker", queues: Iterable[str] = (QUEUE,)) -> int:
        """Coordinate and complete whatever comes until nothing does; how many nodes ran."""
        count = 0
        while True:
            await self.coordinate()
            taken = [held for queue in queues for held in await self.take(process, queue)]
            if not taken:
                return count
            claimed = [h for h in taken if (await self.begin(process, h)).code == "OK"]
            for held in claimed:
                node = self.node(held)
                undo = msgspec.msgpack.encode((0, None)) if node.compensation else None
                assert await self.complete(process, held, undo=undo, arg="1") == "OK"
            count += len(claimed)

    def plan(self, held: Held) -> Plan:
        return self.plans[held.entry.plan]

    def node(self, held: Held) -> NodePlan:
        """The node that an entry is for."""
        node = self.plan(held).node(held.entry.pc, held.entry.index)
        return node.compensation or node if held.entry.undo else node

    def key(self, held: Held) -> str:
        """The output key of the node that an entry is for."""
        entry = held.entry
        return self.node(held).key if entry.undo else self.plan(held).key(entry.pc, entry.index)

    async def header(self, run_id: str = "run") -> Header:
        header = await runs.read_header(self.store, run_id)
        assert header is not None
        return header

    async def status(self, run_id: str = "run") -> RunStatus:
        return (await self.header(run_id)).status

    async def record(self, held: Held) -> Record | None:
        """The record of a node instance, None where there is none yet."""
        return await self.record_of(held.entry.flow, held.entry.seq, held.entry.index)

    async def record_of(self, run_id: str, seq: int, index: int) -> Record | None:
        value = await self.store.execute("HGET", self.of(run_id).flow(run_id), f"n:{seq}.{index}")
        return runs.parse_record(value) if value is not None else None

    async def hash(self, run_id: str = "run") -> dict[str, bytes]:
        """The whole hash of a run."""
        reply = await self.store.execute("HGETALL", self.of(run_id).flow(run_id))
        return {str(n, "utf-8"): v for n, v in zip(reply[::2], reply[1::2], strict=True)}

    async def events(self, run_id: str = "run") -> list[Event]:
        """What is in the inbox of a run's partition about this run."""
        entries = await self.store.execute("XRANGE", self.of(run_id).inbox, "-", "+")
        found = [_decode_event(m.payload or b"") for m in streams.parse_entries(entries)]
        return [event for event in found if event.flow == run_id]

    async def entries(self, run_id: str = "run", queue: str = QUEUE) -> list[tuple[str, Entry]]:
        """What is in a queue of a run's partition, with its stream ids."""
        reply = await self.store.execute("XRANGE", self.of(run_id).queue(queue), "-", "+")
        return [(m.id, _decode_entry(m.payload or b"")) for m in streams.parse_entries(reply)]

    async def stats(self, run_id: str = "run") -> dict[str, int]:
        reply = await self.store.execute("HGETALL", self.of(run_id).stats)
        return {str(n, "utf-8"): int(v) for n, v in zip(reply[::2], reply[1::2], strict=True)}
