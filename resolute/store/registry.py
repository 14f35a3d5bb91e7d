"""The namespace's registry: plans, flows, processes with their beats, cron cursors."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from resolute.model.messages import Event
from resolute.model.plan import Plan, RetentionPlan, decode_plan
from resolute.priority import lanes_of
from resolute.status import Code, EventKind
from resolute.store.connection import Command, ServerReply
from resolute.store.keys import Partition
from resolute.store.script import Item, pack, pack_item
from resolute.store.store import Store

CANCEL_TTL = 3600.0  # s; for a process that does not beat meanwhile
log = logging.getLogger(__name__)


class ProcessInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A live process. `flows` maps the flows it offers to their plans; `started` is Redis's ms.

    `nodes` are those that it runs for any flow that names them, `providers` the versions of those
    that some of them belong to, `ill` what the health checks of these say of those that are.
    """

    name: str
    kind: str
    host: str
    pid: int
    started: int
    lease: float
    queue: str = ""
    flows: dict[str, str] = {}
    concurrency: int = 0
    supervisor: str = ""
    nodes: tuple[str, ...] = ()
    providers: dict[str, str] = {}
    ill: dict[str, str] = {}

    @property
    def queues(self) -> list[str]:
        """The lanes it reads, with the streams of what it alone can run, as streams are named."""
        if not self.queue:
            return []
        special = (*self.flows.values(), *(named_stream(name) for name in self.nodes))
        return [*lanes_of(self.queue), *(f"{self.queue}@{one}" for one in special)]


class FlowOffer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A flow as it was offered last: its plan, and the queue of the worker that did.

    `retention` is the plan's, for those who cannot read a plan of a later release; None in an offer
    of a release that did not write it.
    """

    plan: str
    queue: str
    offered: int
    retention: RetentionPlan | None = None


def named_stream(node: str) -> str:
    """What follows queue@ in the stream of those who offer a node by name; no plan is called so."""
    return f"!{node}"


LEASE_OVER = -1  # the beat of a process whose supervisor ended its lease
MOST_DEPARTED = 10_000  # processes remembered of which the lease was over and nothing is left
DEPARTED_TTL = 86_400.0  # s; after the last of them


class Beats(NamedTuple):
    """The count of each process's beats, and the seconds since the last one, by Redis's clock."""

    counts: dict[str, int]
    ages: dict[str, float]
    now: float


class BeatItem(Item):
    process: str
    cancels_key: int
    told: Sequence[str]


class LeaseItem(Item):
    process: str
    count: str


class HealthItem(Item):
    process: str


_encode = msgspec.msgpack.encode
_decode_process = msgspec.msgpack.Decoder(ProcessInfo).decode
_decode_offer = msgspec.msgpack.Decoder(FlowOffer).decode


async def server_ms(store: Store) -> int:
    """The time of Redis in milliseconds."""
    seconds, micros = await store.execute("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def register(store: Store, process: ProcessInfo, plans: Mapping[str, Plan]) -> None:
    """Announce a process, store the plans it offers, and wake the coordinators."""
    meta = store.keys.meta
    commands: list[Command] = []
    for name, plan_hash in process.flows.items():
        commands.append(("HSETNX", meta.plans, plan_hash, plans[plan_hash].encode()))
        retention = plans[plan_hash].retention or RetentionPlan()
        offer = FlowOffer(plan_hash, process.queue, process.started, retention)
        commands.append(("HSET", meta.flows, name, _encode(offer)))
        for index in range(len(plans[plan_hash].schedules)):
            commands.append(("HSETNX", meta.ticks, tick_field(name, index, plans[plan_hash]),
                             process.started))  # fmt: skip
    commands.append(("HSET", meta.processes, process.name, _encode(process)))
    commands.append(("HSET", meta.beats, process.name, f"1 {process.started}"))
    commands.append(("INCRBY", meta.version, 1))
    await store.write_all(commands)
    await wake(store)


async def note_health(store: Store, process: ProcessInfo) -> bool:
    """Write down what is `ill` in a process; False where it is not registered any more."""
    arguments = [pack_item(HealthItem(process.name)), _encode(process)]
    (answer,) = await store.call("note_health", [store.keys.meta.processes], pack(), arguments)
    return answer[0] == Code.OK.encode()


async def wake(store: Store) -> None:
    """Make a coordinator look at the registry and at its timers."""
    event = Event(EventKind.WAKE)
    for partition in store.keys.partitions:
        await push_event(store, partition, event)


async def push_event(store: Store, partition: Partition, event: Event) -> None:
    """Put an event into an inbox."""
    await store.write_all([("XADD", partition.inbox, "*", "e", _encode(event))])


async def unregister(store: Store, process: str) -> bool:
    """Forget a process but for its name, once its lease is over and it has nothing any more.

    False where it beats: the server lost the second in which its lease was ended. Its name is
    kept for the claims that nobody found, since their entries were lost.
    """
    meta = store.keys.meta
    keys = [meta.processes, meta.beats, meta.departed, meta.version, meta.cancels(process)]
    common = pack(process, MOST_DEPARTED, int(DEPARTED_TTL * 1000))
    answer = await store.call("forget_process", keys, common)
    return answer[0] == Code.OK.encode()


async def end_lease(store: Store, process: str) -> None:
    """End the lease of a process that is known to be dead, at once."""
    await store.write_all([("HSET", store.keys.meta.beats, process, LEASE_OVER)])
    await wake(store)


async def end_silent_lease(store: Store, process: str, beat: int | None) -> bool:
    """End the lease of a process if its beat is still `beat` (None: it has none); whether it is."""
    item = pack_item(LeaseItem(process, "" if beat is None else str(beat)))
    (answer,) = await store.call("end_leases", [store.keys.meta.beats], pack(), [item])
    return answer[0] == Code.OK.encode()


async def processes(store: Store) -> dict[str, ProcessInfo]:
    """Every registered process by name."""
    reply = await store.execute("HGETALL", store.keys.meta.processes)
    found = (_decode_process(value) for value in reply[1::2])
    return {process.name: process for process in found}


async def read_beats(store: Store) -> Beats:
    """The beats of all processes; a count of -1 where its supervisor ended its lease.

    A beat that cannot be read is left out, as if there were none.
    """
    reply, time = await store.execute_all([("HGETALL", store.keys.meta.beats), ("TIME",)])
    now = int(time[0]) + int(time[1]) / 1_000_000
    counts: dict[str, int] = {}
    ages: dict[str, float] = {}
    for raw, value in zip(reply[::2], reply[1::2], strict=True):
        count, _, at = value.partition(b" ")
        try:
            name, beat = str(raw, "utf-8"), int(count)
            age = max(0.0, now - int(at) / 1000) if at else 0.0
        except ValueError:
            log.warning("the beat of process %r cannot be read: %r", raw, value[:100])
            continue
        counts[name], ages[name] = beat, age
    return Beats(counts, ages, now)


async def beats(store: Store) -> dict[str, int]:
    """The count of each process's beats; -1 where its supervisor ended its lease."""
    return (await read_beats(store)).counts


class Ends(NamedTuple):
    """Of some processes those whose lease is over, and those of which nothing is known.

    The others live, as far as the server knows.
    """

    over: set[str]
    unknown: set[str]


async def ends_of(store: Store, names: Sequence[str]) -> Ends:
    """Which of these processes are dead for sure, and which may be.

    One that is unknown may live: it was registered in a second that the server lost, and hears so
    with its next beat.
    """
    found = Ends(set(), set())
    if not names:
        return found
    meta = store.keys.meta
    beats, departed = await store.execute_all(
        [("HMGET", meta.beats, *names), ("ZMSCORE", meta.departed, *names)]
    )
    over = str(LEASE_OVER).encode()
    for name, value, left in zip(names, beats, departed, strict=True):
        if value is None and left is None:
            found.unknown.add(name)
        elif value is None or value.split(b" ")[0] == over:
            found.over.add(name)
    return found


async def beat(
    store: Store, names: Sequence[str], told: Mapping[str, Sequence[str]] | None = None
) -> list[list[str] | None]:
    """Raise the beats; for each process the nodes to cancel, None where its lease is over.

    `told` has for a process the nodes of the beat before, of which it knows by now. Raises
    ServerReply where a beat could not be raised: that is no word on any lease.
    """
    meta = store.keys.meta
    cancels = [meta.cancels(name) for name in names]
    known = told or {}
    items = [pack_item(BeatItem(name, 3 + i, known.get(name, ()))) for i, name in enumerate(names)]
    reply = await store.call("beat", [meta.beats, meta.processes, *cancels], pack(), items)
    answers: list[list[str] | None] = []
    for code, *rest in reply:
        if code == Code.ERROR.encode():
            raise ServerReply(str(rest[0], "utf-8", "replace"))
        is_over = code == Code.GONE.encode()
        answers.append(None if is_over else [str(node, "utf-8", "replace") for node in rest])
    return answers


async def request_cancel(store: Store, wanted: Mapping[str, Sequence[str]]) -> None:
    """Ask processes to cancel nodes, named ``flow|seq.index|token``, at their next beat.

    Or, by `nodes.question`, whether they run them.
    """
    meta = store.keys.meta
    commands: list[Command] = []
    for process, nodes in wanted.items():
        key = meta.cancels(process)
        commands += [("SADD", key, *nodes), ("PEXPIRE", key, int(CANCEL_TTL * 1000))]
    await store.write_all(commands)


async def registry_version(store: Store) -> int:
    """Grows whenever a process comes or goes."""
    return int(await store.execute("GET", store.keys.meta.version) or 0)


async def offered_flows(store: Store) -> dict[str, FlowOffer]:
    """Every flow that was ever offered."""
    reply = await store.execute("HGETALL", store.keys.meta.flows)
    return {
        str(name, "utf-8"): _decode_offer(value)
        for name, value in zip(reply[::2], reply[1::2], strict=True)
    }


async def offered_flow(store: Store, name: str) -> FlowOffer | None:
    """The last offer of a flow."""
    value = await store.execute("HGET", store.keys.meta.flows, name)
    return _decode_offer(value) if value else None


async def load_plan(store: Store, plan_hash: str) -> Plan | None:
    """The plan of that hash, None where it is not stored."""
    data = await store.execute("HGET", store.keys.meta.plans, plan_hash)
    return decode_plan(data) if data else None


def tick_field(flow: str, index: int, plan: Plan) -> str:
    """Where the cursor of a schedule is kept; another expression is another schedule."""
    schedule = plan.schedules[index]
    return f"{flow}|{index}|{schedule.cron}|{schedule.timezone}"


async def tick_cursors(store: Store) -> dict[str, int]:
    """The last tick of each schedule that was started, in ms."""
    reply = await store.execute("HGETALL", store.keys.meta.ticks)
    return {
        str(name, "utf-8"): int(value) for name, value in zip(reply[::2], reply[1::2], strict=True)
    }


async def move_tick_cursor(store: Store, field: str, tick_ms: int) -> None:
    """Remember that a tick was started; a later one that was, too, stays remembered."""
    await store.call("move_cursor", [store.keys.meta.ticks], pack(field, tick_ms))
