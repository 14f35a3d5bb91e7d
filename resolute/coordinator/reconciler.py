"""The hash is the truth, a stream only a hint: what a stream or timer set lost is written anew.

Looks at runs unmoved for a lease. A sweep of all of them follows the start of a coordinator, a
server with a new run id, and a group that had to be made; otherwise runs are looked at in turn, at
a bounded rate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.reclaiming import as_orphaned, as_reclaim
from resolute.coordinator.surviving import surviving
from resolute.engine.advance import room_for
from resolute.errors import DamagedRun, reading
from resolute.model.messages import Entry, Event
from resolute.model.plan import Children, Plan
from resolute.status import CHILD, OPEN, Code, EventKind, NodeStatus, RunStatus, TimerKind
from resolute.store import claims, nodes, registry, runs, streams, transitions
from resolute.store.keys import Partition
from resolute.store.store import Store

log = logging.getLogger(__name__)

CHUNK = 100  # runs looked at together
PAUSE = 1.0  # s between chunks, unless sweeping
WIDE = 1000  # records read together
WAITS = (TimerKind.GATE, TimerKind.SLEEP)

_OPEN = {status.value.encode() for status in OPEN}

_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Reconciler:
    """Goes round the open runs of every partition."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        lease: float,
        is_over: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._lease = lease
        self._is_over = is_over
        self._sweeps = 1
        self._asked = asyncio.Event()

    def sweep(self) -> None:
        """Ask for a look at every open run, soon."""
        self._sweeps += 1
        self._asked.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            self._asked.clear()
            sweeping, self._sweeps = self._sweeps > 0, 0
            with surviving(log, "reconciling"):
                repaired = await self.run_once(0.0 if sweeping else PAUSE)
                if repaired:
                    log.info("reconciler: %d repairs", repaired)
                if sweeping:
                    # What was too young to judge in this sweep is a lease old in the next.
                    await asyncio.sleep(self._lease)
                    await self.run_once(0.0)
            try:
                async with asyncio.timeout(self._lease):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def run_once(self, pause: float = 0.0) -> int:
        """Look at every open run once; how many repairs."""
        await self._catalog.refresh()
        repairs = 0
        for partition in self._store.keys.partitions:
            cursor = "-inf"
            last: set[bytes] = set()
            while True:
                rows = await self._store.execute(
                    "ZRANGE", partition.open, cursor, "+inf", "BYSCORE", "LIMIT", 0,
                    CHUNK + len(last), "WITHSCORES",
                )  # fmt: skip
                fresh = [row for row in rows[::2] if row not in last]
                if not fresh:
                    break
                repairs += await self._check_chunk(partition, [str(r, "utf-8") for r in fresh])
                score = rows[-1]
                same = {n for n, s in zip(rows[::2], rows[1::2], strict=True) if s == score}
                last = same | (last if score == cursor.encode() else set())
                cursor = str(score, "ascii")
                if pause:
                    await asyncio.sleep(pause)
        return repairs

    async def _check_chunk(self, partition: Partition, ids: Sequence[str]) -> int:
        now = await registry.server_ms(self._store) / 1000
        repairs = 0
        headers = await runs.read_headers(self._store, ids)
        for flow_id, header in zip(ids, headers, strict=True):
            if isinstance(header, DamagedRun):
                log.error("%s", header)
            elif header is None or header.status.is_terminal:
                # It ended since the index was read, or the index outlived it: a lost second, or
                # a hash deleted by hand.
                flows = [header.flow] if header else list(self._catalog.offers)
                if await transitions.unlist(self._store, partition, flow_id, flows):
                    log.warning("run %s was in the index of open runs, but is not open", flow_id)
                    repairs += 1
            elif abs(now - header.moved) >= self._lease:  # ahead: Redis's clock was set back
                with surviving(log, f"reconciling run {flow_id}"), reading(flow_id):
                    repairs += await self._check(partition, header)
        return repairs

    async def _check(self, partition: Partition, header: runs.Header) -> int:
        if not header.plan:
            if header.due is not None and header.status is RunStatus.RUNNING:
                return await self._restore(
                    partition, transitions.start_timer(header.id), header.due
                )
            may_start = header.status is RunStatus.RUNNING and not header.terminated
            if may_start and self._catalog.pin(header.flow) is None:
                return 0
            if may_start and not await claims.may_begin(self._store, header):
                return 0
            await self._look(partition, header)
            return 1
        plan = await self._catalog.plan(header.plan)
        if plan is None:
            return 0
        repairs = 0
        if header.deadline is not None and header.status is RunStatus.RUNNING:
            timer = transitions.deadline_timer(header.id)
            repairs = await self._restore(partition, timer, header.deadline)
        width = 1 if header.undoing else plan.width(header.pc, header.width)
        missing = room_for(plan.step(header.pc), width, header.page, header.pending)
        is_due = (
            header.pending == 0
            or header.terminated
            or (header.status is RunStatus.RUNNING and missing > 0)
            or (header.status is RunStatus.FAILING and header.skip < width)
        )
        if is_due:
            await self._look(partition, header)
            return repairs + 1
        return repairs + await self._check_nodes(partition, header, plan)

    async def _restore(self, partition: Partition, timer: str, due: float) -> int:
        """Put a timer of a run back where it was lost. One too many is dropped when it is due."""
        if not await self._store.execute("ZADD", partition.timers, "NX", round(due * 1000), timer):
            return 0
        await registry.wake(self._store)
        return 1

    async def _look(self, partition: Partition, header: runs.Header) -> None:
        event = Event(EventKind.LOOK, header.id, header.plan, header.pc, header.seq, header.rev)
        await registry.push_event(self._store, partition, event)

    async def _check_nodes(self, partition: Partition, header: runs.Header, plan: Plan) -> int:
        key = partition.flow(header.id)
        pages, undo = await self._store.execute("HMGET", key, "pages", f"u:{header.undoing}")
        if header.undoing:
            indices = [runs.parse_undo(undo)[1]] if undo else []
        else:
            indices = list(range(header.page))
        implied = implied_entries(partition, header, plan, indices, str(pages or b"", "utf-8"))
        repairs = 0
        for at in range(0, len(indices), WIDE):
            batch = indices[at : at + WIDE]
            values = await self._store.execute(
                "HMGET", key, *(f"n:{header.seq}.{i}" for i in batch)
            )
            lost = await self._find_lost(partition, header, plan, batch, values, implied)
            for chunk in nodes.chunks(lost):
                codes = await nodes.reclaim(self._store, partition, chunk)
                repairs += sum(code in (Code.OK, Code.SKIP) for code in codes)
                if Code.ERROR in codes:
                    log.error("a node of run %s cannot be taken back: it is damaged", header.id)
        return repairs

    async def _find_lost(
        self,
        partition: Partition,
        header: runs.Header,
        plan: Plan,
        indices: Sequence[int],
        values: Sequence[bytes | None],
        implied: dict[int, tuple[str, str]],
    ) -> list[nodes.Reclaim]:
        """The nodes that nothing will bring forward any more."""
        lost: list[nodes.Reclaim] = []
        unclaimed: list[tuple[str, nodes.Held]] = []
        claimed: list[tuple[str, nodes.Held]] = []  # with the process
        orphaned: list[tuple[str, nodes.Held]] = []  # with the process, which is not registered
        children: list[tuple[str, nodes.Held]] = []
        step = plan.step(header.pc)
        for index, value in zip(indices, values, strict=True):
            record = runs.parse_record(value) if value else None
            token = record.token if record else header.token
            entry = Entry(
                header.id, header.plan, header.pc, header.seq, index, token, undo=header.undoing
            )
            queue, entry_id = implied.get(index, (header.queue, ""))
            if record is not None:
                queue, entry_id = record.queue or queue, record.entry
            held = nodes.Held(partition, queue, entry_id, entry)
            match record.status if record else NodeStatus.READY:
                case NodeStatus.READY:
                    unclaimed.append((entry_id, held))
                case NodeStatus.RUNNING:
                    process = record.process if record else ""
                    is_known = process in self._catalog.processes
                    (claimed if is_known else orphaned).append((process, held))
                case NodeStatus.WAITING if record and record.hold == CHILD:
                    if isinstance(step, Children):
                        children.append((step.child_id(header.id, header.seq, index), held))
                case NodeStatus.WAITING:
                    if not await self._has_timer(partition, held.entry, record):
                        lost.append(as_reclaim(plan, held, "", header.queue))
                case _:
                    pass
        lost += await self._without_process(plan, orphaned, header.queue)
        lost += await self._without_run(partition, plan, children)
        lost += await self._without_entry(plan, unclaimed, header.queue)
        await self._ask_holders(claimed)
        return lost

    async def _without_process(
        self, plan: Plan, orphaned: Sequence[tuple[str, nodes.Held]], queue: str
    ) -> list[nodes.Reclaim]:
        """The nodes of processes that are dead: cleared away, or unknown for a lease."""
        ends = await registry.ends_of(self._store, sorted({process for process, _ in orphaned}))
        dead = ends.over | {process for process in ends.unknown if self._is_over(process)}
        return [
            as_reclaim(plan, held, process, queue) for process, held in orphaned if process in dead
        ]

    async def _without_run(
        self, partition: Partition, plan: Plan, children: Sequence[tuple[str, nodes.Held]]
    ) -> list[nodes.Reclaim]:
        """The nodes that wait for a run which is not open, so that nobody will end it."""
        statuses = await self._store.execute_all(
            [("HGET", partition.flow(child), "status") for child, _ in children]
        )
        waiting = zip(children, statuses, strict=True)
        return [
            as_orphaned(plan, held, child) for (child, held), now in waiting if now not in _OPEN
        ]

    async def _has_timer(
        self, partition: Partition, entry: Entry, record: runs.Record | None
    ) -> bool:
        """Whether what a node waits for has a timer, or needs none: a gate without a timeout."""
        if record is None or record.ended is None:
            return True
        kind = record.hold if record.hold in WAITS else TimerKind.NODE
        member = f"{kind}|{record.queue}|{entry.flow}|{entry.seq}|{entry.index}|{record.token}"
        return await self._store.execute("ZSCORE", partition.timers, member) is not None

    async def _without_entry(
        self, plan: Plan, unclaimed: Sequence[tuple[str, nodes.Held]], queue: str
    ) -> list[nodes.Reclaim]:
        lost: list[nodes.Reclaim] = []
        entries = await self._entries([held for _, held in unclaimed])
        for (_, held), there in zip(unclaimed, entries, strict=True):
            if not there:
                lost.append(as_reclaim(plan, held, "", queue))
            elif not _is_for(there[0], held.entry):
                # The stream was deleted, and its ids were given out again: that entry stays.
                lost.append(as_reclaim(plan, msgspec.structs.replace(held, id=""), "", queue))
        return lost

    async def _ask_holders(self, claimed: Sequence[tuple[str, nodes.Held]]) -> None:
        """Have processes look whether they run what is claimed for them, and has no entry.

        A process looks at the entries that it has pending. Without one, a claim that it does not
        know of would keep a node from everybody: its server had lost the claim, or the answer.
        """
        wanted: dict[str, list[str]] = {}
        entries = await self._entries([held for _, held in claimed])
        for (process, held), there in zip(claimed, entries, strict=True):
            if not there or not _is_for(there[0], held.entry):
                wanted.setdefault(process, []).append(nodes.question(held))
        if wanted:
            await registry.request_cancel(self._store, wanted)

    async def _entries(self, helds: Sequence[nodes.Held]) -> list[list[streams.Message]]:
        """The entry of each, if it is there."""
        replies = await self._store.execute_all(
            [("XRANGE", held.stream, held.id or "0-0", held.id or "0-0") for held in helds]
        )
        return [streams.parse_entries(reply) for reply in replies]


def _is_for(message: streams.Message, entry: Entry) -> bool:
    """Whether a message is this hand-out of a node."""
    try:
        found = _decode_entry(message.payload or b"")
    except ValueError:
        return False
    wanted = (entry.flow, entry.seq, entry.index, entry.token)
    return (found.flow, found.seq, found.index, found.token) == wanted


def implied_entries(
    partition: Partition, header: runs.Header, plan: Plan, indices: Sequence[int], pages: str
) -> dict[int, tuple[str, str]]:
    """(queue, entry id) of each node as it was first dispatched.

    A page keeps, for each of its streams, the first id, the number of entries and the stream; ids
    of one page and stream follow each other.
    """
    left: dict[str, tuple[str, int, int]] = {}
    lines = iter(pages.splitlines())
    found: dict[int, tuple[str, str]] = {}
    for index in indices:
        queue = plan.lane_at(header.pc, index, header.queue, undo=header.undoing > 0)
        while left.get(queue, ("", 0, 0))[2] == 0:
            line = next(lines, None)
            if line is None:
                return found
            first, count, stream = line.split(" ", 2)
            ms, _, seq = first.partition("-")
            left[partition.queue_of(stream)] = (ms, int(seq), int(count))
        ms, seq, count = left[queue]
        found[index] = (queue, f"{ms}-{seq}")
        left[queue] = (ms, seq + 1, count - 1)
    return found
