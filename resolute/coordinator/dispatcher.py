"""Events in, transitions out: the main work of a coordinator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.committing import look_event, make_commit, pin, weight_of_end
from resolute.coordinator.family import end_of_child, with_list
from resolute.coordinator.surviving import surviving
from resolute.engine.advance import advance
from resolute.engine.run import NeedsRun, Stale, Transition
from resolute.errors import DamagedRun, ResoluteError, StoreUnavailable
from resolute.model.messages import Event
from resolute.status import Code, EventKind, NodeStatus
from resolute.store import claims, dead, registry, runs, streams, transitions
from resolute.store.connection import ServerReply, backoff
from resolute.store.keys import Partition
from resolute.store.nodes import chunks
from resolute.store.reading import GroupReader
from resolute.store.script import GROUP_COORDINATORS
from resolute.store.store import Store

log = logging.getLogger(__name__)

BATCH = 250
BLOCK_MS = 5_000
MAX_IN_FLIGHT = 3  # batches; while one is committed the next is read
MAX_CONFLICTS = 20
IDLE_MS = 2_000  # an event pending for so long at another coordinator is taken over
MAX_DELIVERIES = 5

_decode_event = msgspec.msgpack.Decoder(Event).decode


@dataclass(slots=True)
class Pending:
    """An event being dealt with, and its stream id ('' where it came from nowhere)."""

    id: str
    event: Event


class Dispatcher:
    """Reads the inboxes as a member of the group and commits what follows."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        name: str,
        retention_ms: int,
        on_wake: Callable[[], None],
        on_sweep: Callable[[], None],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._name = name
        self._retention_ms = retention_ms
        self._on_wake = on_wake
        self._on_sweep = on_sweep
        self._source = GroupReader(store, f"{name}:inbox", GROUP_COORDINATORS, name)
        self._by_inbox = {p.inbox: p for p in store.keys.partitions}
        self._in_flight: set[asyncio.Task[None]] = set()
        self.handled = 0

    async def run(self) -> None:
        """Read and dispatch until cancelled."""
        try:
            await self._ensure_groups()
            failures = 0
            while True:
                failures += 1
                with surviving(log, "inbox"):
                    try:
                        await self._read_once()
                        failures = 0
                    except ServerReply as error:
                        # The inbox was deleted under the blocked read, or lost its group.
                        log.warning("inbox: %s; making its group anew", error)
                        await self._ensure_groups()
                if failures:
                    await asyncio.sleep(backoff(failures))
        finally:
            for task in self._in_flight:
                task.cancel()
            await asyncio.gather(*self._in_flight, return_exceptions=True)
            await self._source.close()

    async def _ensure_groups(self) -> None:
        for partition in self._store.keys.partitions:
            await streams.ensure_group(self._store, partition, partition.inbox, GROUP_COORDINATORS)

    async def _read_once(self) -> None:
        while len(self._in_flight) >= MAX_IN_FLIGHT:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        found = await self._source.read(list(self._by_inbox), BATCH, BLOCK_MS)
        for inbox, messages in found.items():
            task = asyncio.create_task(self._guarded(self._by_inbox[inbox], messages))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def _guarded(self, partition: Partition, messages: Sequence[streams.Message]) -> None:
        """One batch; if it fails its events stay pending and are taken over later."""
        with surviving(log, f"a batch of {len(messages)} events"):
            await self.handle(partition, messages)

    async def take_over(self) -> int:
        """Handle events that another coordinator read and did not finish; how many."""
        taken = 0
        for partition in self._store.keys.partitions:
            messages = await streams.take_over(
                self._store, partition.inbox, GROUP_COORDINATORS, self._name, IDLE_MS
            )
            if messages:
                await self._bury_hopeless(partition, messages)
                await self.handle(partition, messages)
                taken += len(messages)
        return taken

    async def _bury_hopeless(self, partition: Partition, messages: list[streams.Message]) -> None:
        pending = await self._store.execute(
            "XPENDING", partition.inbox, GROUP_COORDINATORS, messages[0].id, messages[-1].id,
            len(messages), self._name,
        )  # fmt: skip
        hopeless = {str(row[0], "ascii") for row in pending if int(row[3]) > MAX_DELIVERIES}
        for message in [m for m in messages if m.id in hopeless]:
            await self._bury(partition, message, f"not handled in {MAX_DELIVERIES} deliveries")
            messages.remove(message)

    async def _bury(self, partition: Partition, message: streams.Message, why: str) -> None:
        log.error("dead letter from the inbox: %s (%s)", why, message.id)
        await dead.bury_event(self._store, partition, message.id, why)

    async def handle(self, partition: Partition, messages: Sequence[streams.Message]) -> None:
        """Decide and commit for a batch of events of one partition."""
        todo: list[Pending] = []
        done: list[str] = []
        for message in messages:
            event = await self._decode(partition, message)
            if event is None:
                continue
            match event.kind:
                case EventKind.WAKE:
                    self._on_wake()
                    done.append(message.id)
                case EventKind.SWEEP:
                    self._on_sweep()
                    done.append(message.id)
                case _:
                    todo.append(Pending(message.id, event))
        await streams.acknowledge(self._store, partition.inbox, GROUP_COORDINATORS, done)
        self.handled += len(messages)
        for _ in range(MAX_CONFLICTS):
            if not todo:
                return
            todo = await self._round(partition, todo)
        log.warning("%d runs keep changing; their events wait for another try", len(todo))

    async def _decode(self, partition: Partition, message: streams.Message) -> Event | None:
        if message.payload is None:
            await streams.acknowledge(
                self._store, partition.inbox, GROUP_COORDINATORS, [message.id]
            )
            return None
        try:
            return _decode_event(message.payload)
        except ValueError as error:
            await self._bury(partition, message, f"not an event: {error}")
            return None

    async def _round(self, partition: Partition, todo: Sequence[Pending]) -> list[Pending]:
        """One decision and commit for each event; those that lost a race, to look again."""
        commits: list[transitions.Commit] = []
        sources: list[Pending] = []
        stale: list[str] = []
        if any(pending.event.kind is EventKind.START for pending in todo):
            await self._catalog.refresh(exact=True)
        decided = [await self._decide_plain(partition, pending) for pending in todo]
        to_load = [p for p, made in zip(todo, decided, strict=True) if isinstance(made, NeedsRun)]
        loaded = await self._decide_loaded(partition, to_load)
        for pending, made in zip(todo, decided, strict=True):
            commit = loaded.get(id(pending)) if isinstance(made, NeedsRun) else made
            if isinstance(commit, transitions.Commit):
                commits.append(commit)
                sources.append(pending)
            elif pending.id:
                stale.append(pending.id)
        await streams.acknowledge(self._store, partition.inbox, GROUP_COORDINATORS, stale)
        return await self._commit(partition, commits, sources)

    async def _commit(
        self,
        partition: Partition,
        commits: Sequence[transitions.Commit],
        sources: Sequence[Pending],
    ) -> list[Pending]:
        again: list[Pending] = []
        to_trim: dict[str, str] = {}
        longer: list[tuple[Pending, transitions.Commit, transitions.TellParent, str]] = []
        at = 0
        await self._set_retention([commit for commit in commits if commit.ended])
        for batch in chunks(commits, lambda commit: commit.size):
            codes = await transitions.commit(self._store, partition, batch, self._retention_ms)
            of_batch = sources[at : at + len(batch)]
            for commit, pending, (code, text) in zip(batch, of_batch, codes, strict=True):
                if code == Code.LONG and isinstance(commit.family, transitions.TellParent):
                    longer.append((pending, commit, commit.family, text))
                elif code == Code.CONFLICT:
                    again.append(Pending(pending.id, _look_of(pending.event)))
                elif code == Code.ERROR:
                    log.error("run %s: its transition failed: %s", pending.event.flow, text)
                elif text:
                    to_trim[pending.event.flow] = text
            at += len(batch)
        with surviving(log, "former turns of loops"):  # what is left goes in the next turn
            while to_trim:
                to_trim = await transitions.trim(self._store, partition, to_trim)
        for pending, commit, tell, name in longer:  # one by one: a list may have megabytes
            made = await with_list(self._store, partition, commit.id, tell, name)
            again += await self._commit(partition, [replace(commit, family=made)], [pending])
        return again

    async def _set_retention(self, commits: Sequence[transitions.Commit]) -> None:
        """How long runs that end now are kept, where their flow says so."""
        if commits:
            await self._catalog.refresh()
        for commit in commits:
            retention = await self._catalog.retention(commit.flow, self._retention_ms)
            commit.retention_ms = retention.after_ms if retention else None

    async def _decide_plain(
        self, partition: Partition, pending: Pending
    ) -> transitions.Commit | NeedsRun | None:
        """The commit that follows from the event alone, if that says enough."""
        try:
            return await self._decide_from_event(pending)
        except (LookupError, ValueError, ResoluteError) as error:
            await self._give_up(partition, pending, error)
            return None

    async def _give_up(self, partition: Partition, pending: Pending, error: Exception) -> None:
        """An event that cannot be decided is a dead letter; its neighbours are not."""
        if isinstance(error, StoreUnavailable):
            raise error
        log.error("run %s: %s", pending.event.flow, error)
        await dead.bury_event(self._store, partition, pending.id, str(error))

    async def _decide_from_event(self, pending: Pending) -> transitions.Commit | NeedsRun | None:
        event = pending.event
        if event.kind is EventKind.START:
            return await self._start(pending)
        if event.kind is EventKind.LOOK:
            return NeedsRun()
        plan = await self._catalog.plan(event.plan)
        if plan is None:
            return NeedsRun()
        decision = advance(plan, None, event)
        match decision:
            case Transition():
                return make_commit(plan, event, pending.id, decision, self._store.nonce())
            case Stale():
                return None
            case NeedsRun():
                return decision

    async def _start(self, pending: Pending) -> transitions.Commit | None:
        """Pin the run to a plan and dispatch its first step."""
        event = pending.event
        plan_hash = self._catalog.pin(event.arg)
        plan = await self._catalog.plan(plan_hash) if plan_hash else None
        if plan_hash is None or plan is None:
            # The registry lost this flow. The run stays open; a sweep starts it once it is offered.
            log.warning("run %s: no worker offers flow %r", event.flow, event.arg)
            return None
        pinned, fresh = pin(event, plan_hash)
        decision = advance(plan, fresh, pinned)
        if not isinstance(decision, Transition):
            return None
        return make_commit(plan, pinned, pending.id, decision, self._store.nonce())

    async def _decide_loaded(
        self, partition: Partition, todo: Sequence[Pending]
    ) -> dict[int, transitions.Commit | None]:
        """The commits for events whose run must be read first, by id() of the event."""
        if not todo:
            return {}
        headers = await runs.read_headers(self._store, [p.event.flow for p in todo])
        found: dict[int, transitions.Commit | None] = {}
        seen: set[str] = set()
        for pending, header in zip(todo, headers, strict=True):
            if isinstance(header, DamagedRun):
                await self._give_up(partition, pending, header)
                continue
            if header is None or header.status.is_terminal or header.id in seen:
                continue
            seen.add(header.id)
            try:
                found[id(pending)] = await self._look(partition, pending, header)
            except (LookupError, ValueError, ResoluteError) as error:
                await self._give_up(partition, pending, error)
        return found

    async def _look(
        self, partition: Partition, pending: Pending, header: runs.Header
    ) -> transitions.Commit | None:
        if not header.plan:
            if header.terminated or header.status is not runs.RunStatus.RUNNING:
                return self._end_unpinned(pending, header)
            if header.due is not None:
                return None  # its timer begins it
            if not await claims.may_begin(self._store, header):
                return None  # the end of the run that it replaces begins it
            event = Event(
                EventKind.START, header.id, rev=header.rev, queue=header.queue, arg=header.flow
            )
            await self._catalog.refresh(exact=True)
            return await self._start(Pending(pending.id, event))
        plan = await self._catalog.plan(header.plan)
        if plan is None:
            log.error("run %s: its plan %s is not stored", header.id, header.plan)
            return None
        state = await runs.load_state(self._store, header, plan)
        event = look_event(header)
        decision = advance(plan, state, event)
        if not isinstance(decision, Transition):
            return None
        if decision.skip and (header.cancelled or header.overran):
            await self._cancel_running(partition, header, decision.skip)
        elif header.terminated and header.seq:
            await self._cancel_running(partition, header, runs.at_work(state, plan))
        nonce = self._store.nonce()
        return make_commit(plan, event, pending.id, decision, nonce, header.error)

    def _end_unpinned(self, pending: Pending, header: runs.Header) -> transitions.Commit:
        """A run that was cancelled or terminated before its first transition."""
        status = runs.RunStatus.TERMINATED if header.terminated else runs.RunStatus.CANCELLED
        rev = f"{int(header.rev.partition('-')[0]) + 1}-{self._store.nonce()}"
        family = end_of_child(header.id, status, header.error)
        return transitions.Commit(
            header.id, pending.id, header.rev, rev, header.seq, ["status", status.value],
            ended=status, flow=header.flow, timers=[transitions.start_timer(header.id)],
            family=family, size=weight_of_end(family),
        )  # fmt: skip

    async def _cancel_running(
        self, partition: Partition, header: runs.Header, indices: tuple[int, int]
    ) -> None:
        """Tell the processes that run nodes of this step to stop them."""
        wanted: dict[str, list[str]] = {}
        names = [f"n:{header.seq}.{index}" for index in range(*indices)]
        for at in range(0, len(names), 1000):
            batch = names[at : at + 1000]
            values = await self._store.execute("HMGET", partition.flow(header.id), *batch)
            for name, value in zip(batch, values, strict=True):
                record = runs.read_record(value)
                if record is not None and record.status is NodeStatus.RUNNING:
                    node = f"{header.id}|{name[2:]}|{record.token}"
                    wanted.setdefault(record.process, []).append(node)
        if wanted:
            await registry.request_cancel(self._store, wanted)


def _look_of(event: Event) -> Event:
    return Event(EventKind.LOOK, event.flow)
