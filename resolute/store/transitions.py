"""What a coordinator writes: transitions, due timers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from resolute.errors import ErrorInfo
from resolute.model.messages import Event
from resolute.status import Code, RunStatus, TimerKind
from resolute.store.keys import Partition
from resolute.store.nodes import code_of
from resolute.store.script import Item, KeyList, pack, pack_item
from resolute.store.store import Store

TRIMMED = 500  # nodes of former turns that are forgotten by one call, of each run
# What a transition forgets itself of the turn before: of a list, of a step, and fields in all.
LISTED_AT_ONCE, NAMED_AT_ONCE, FORGOTTEN_AT_ONCE = 8, 100, 2000
BACKSTOP_MS = 3_600_000  # the TTL of an ended run outlasts its retention by this


_encode = msgspec.msgpack.encode


class CommitItem(Item):
    flow_key: int
    event: str
    expect: str
    rev: str
    seq: int
    fields: Sequence[str | int]
    step: str
    streams: Sequence[int]
    page: Sequence[str | int]
    skip: Sequence[str | int]
    ending: Sequence[str | int | Sequence[str]]
    waiting: Sequence[str]
    deadline: Sequence[str | int]
    page_from: int
    turn: Sequence[int | Sequence[int] | Sequence[str]]
    family: Sequence[Any]


class ReleaseItem(Item):
    flow_key: int
    stream_key: int
    member: str
    flow: str
    seq: int
    index: int
    token: str
    queue: str


class FireItem(Item):
    flow_key: int
    member: str
    kind: str
    flow: str
    seq: int
    index: int
    token: str


class TrimItem(Item):
    flow_key: int
    first: str
    most: int


class IndexedItem(Item):
    """A run, and an index of its flow in which it may be."""

    flow_key: int
    index_key: int
    id: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step that no worker runs. `until` is Unix time in ms, ``+`` and the ms from now, or ''."""

    kind: TimerKind
    name: str
    until: str
    signal: str = ""


LISTED = -1  # a width


@dataclass(frozen=True, slots=True)
class Turn:
    """The head of a loop is come by; `widths` are those of the steps of a turn, by their pc.

    LISTED is that of a list, which the run knows.
    `signals` are the names of those that the turn takes.
    """

    pc: int
    again: bool
    widths: Mapping[int, int]
    signals: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StartChildren:
    """Start runs of `flow`: `ids` are those from number `first` of the step on.

    `forgives` says that the step goes on without those that fail.
    """

    flow: str
    queue: str
    step: str
    forgives: bool
    first: int
    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class StopChildren:
    """Cancel the runs with these ids, or terminate them, those that have not ended."""

    ids: Sequence[str]
    error: ErrorInfo
    terminate: bool


@dataclass(frozen=True, slots=True)
class TellParent:
    """A run that `parent` has started ends; if it completed, it returned one of `results`.

    A result is the pc of the last step, "one", "map" or "list", and the output keys of it. A map
    and a list are put together from outputs, and may have `limit` bytes, unless they have values
    in them that are in the storage. `failure` says why it did not complete.

    `size` are the bytes of a list that was too long for the script, `made` is the list; b"" where
    it is over the limit.
    """

    parent: str
    results: Sequence[Sequence[int | str]]
    failure: str = ""
    limit: int = 0
    size: int | None = None
    made: bytes = b""


Family = StartChildren | StopChildren | TellParent


@dataclass(slots=True)
class Commit:
    """One transition to be written. `entries` are (queue, encoded entry) in order of index."""

    id: str
    event: str
    expect: str
    rev: str
    seq: int
    fields: list[str | int]
    step: str = ""
    entries: Sequence[tuple[str, bytes]] = ()
    page: Event | None = None
    skip: tuple[int, int, bool] | None = None
    ended: RunStatus | None = None
    flow: str = ""
    retention_ms: int | None = None  # of its flow, where that has its own
    waiting: Waiting | None = None
    page_from: int = -1  # the index from which a later page is dispatched
    turn: Turn | None = None
    family: Family | None = None
    deadline_ms: int = 0  # of a run that begins, 0 for none
    timers: Sequence[str] = ()  # of a run that ends: of no use any more
    size: int = field(default=0)


async def commit(
    store: Store, partition: Partition, commits: Sequence[Commit], retention_ms: int
) -> list[tuple[str, str]]:
    """Write transitions of one partition; (code, text) for each.

    The text is that of an error; after OK it is what `trim` has to begin with, if anything; after
    LONG the key of the list that `TellParent.made` is to be.
    """
    keys = KeyList(
        partition.inbox, partition.timers, partition.open, partition.folders, partition.claims
    )
    arguments: list[bytes] = []
    for change in commits:
        streams = [keys.index(partition.queue(queue)) for queue, _ in change.entries]
        item = CommitItem(
            keys.index(partition.flow(change.id)),
            change.event,
            change.expect,
            change.rev,
            change.seq,
            change.fields,
            change.step,
            streams,
            _page(change.page),
            (*change.skip[:2], int(change.skip[2]), change.id) if change.skip else (),
            _ending(change, change.ended, partition, keys, _ttl(change, retention_ms)),
            _waiting(change),
            (change.deadline_ms, deadline_timer(change.id)) if change.deadline_ms else (),
            change.page_from,
            _turn(change.turn),
            _family(change, partition, keys),
        )
        arguments.append(pack_item(item))
        arguments += [blob for _, blob in change.entries]
        if isinstance(change.family, TellParent) and change.family.made:
            arguments.append(change.family.made)
    reply = await store.call("commit_transition", keys.keys, pack(), arguments)
    return [(code_of(answer), _text(answer)) for answer in reply]


async def trim(store: Store, partition: Partition, firsts: Mapping[str, str]) -> dict[str, str]:
    """Forget some more of the former turns of runs.

    `firsts` has for each what to begin with; the answer what to go on with, where there is more.
    """
    items = [pack_item(TrimItem(n, first, TRIMMED)) for n, first in enumerate(firsts.values(), 1)]
    reply = await store.call("trim_turns", [partition.flow(i) for i in firsts], pack(), items)
    left = {i: _text(answer) for i, answer in zip(firsts, reply, strict=True)}
    return {i: first for i, first in left.items() if first}


def _turn(turn: Turn | None) -> Sequence[int | Sequence[int] | Sequence[str]]:
    if turn is None:
        return ()
    widths = [number for pair in turn.widths.items() for number in pair]
    return (
        turn.pc, int(turn.again), widths, turn.signals,
        LISTED_AT_ONCE, NAMED_AT_ONCE, FORGOTTEN_AT_ONCE,
    )  # fmt: skip


def _family(change: Commit, partition: Partition, keys: KeyList) -> Sequence[Any]:
    """What `lib_child.lua` takes."""

    def places(ids: Sequence[str]) -> list[int | str]:
        return [part for i in ids for part in (keys.index(partition.flow(i)), i)]

    match change.family:
        case None:
            return ()
        case StartChildren() as start:
            index = keys.index(partition.open_of(start.flow))
            forgives = int(start.forgives)
            return (
                "start", change.id, start.flow, start.queue, start.step, forgives, index,
                start.first, places(start.ids),
            )  # fmt: skip
        case StopChildren() as stop:
            error = stop.error
            return ("stop", int(stop.terminate), error.type, error.message, places(stop.ids))
        case TellParent() as tell:
            parent = keys.index(partition.flow(tell.parent))
            made = () if tell.size is None else (tell.size, int(tell.made != b""))
            return ("end", parent, tell.failure, tell.results, tell.limit, made)


def _waiting(change: Commit) -> Sequence[str]:
    waiting = change.waiting
    if waiting is None:
        return ()
    return (change.id, waiting.kind, waiting.name, waiting.until, waiting.signal)


def start_timer(flow_id: str) -> str:
    """The timer of a run that begins later."""
    return f"{TimerKind.START}||{flow_id}|0|0|"


def deadline_timer(flow_id: str) -> str:
    """The timer of a run's deadline."""
    return f"{TimerKind.DEADLINE}||{flow_id}|0|0|"


def wait_timer(kind: TimerKind, step: str, flow_id: str, seq: int, token: str) -> str:
    """The timer of a gate or a sleep."""
    return f"{kind}|{step}|{flow_id}|{seq}|0|{token}"


def _ttl(change: Commit, retention_ms: int) -> int:
    own = change.retention_ms
    return (retention_ms if own is None else own) + BACKSTOP_MS


def _text(answer: Sequence[Any]) -> str:
    return str(answer[1], "utf-8", "replace") if len(answer) > 1 else ""


def _page(event: Event | None) -> Sequence[str | int]:
    if event is None:
        return ()
    return (
        event.kind, event.flow, event.plan, event.pc, event.seq, event.rev, event.queue, event.arg,
    )  # fmt: skip


def _ending(
    change: Commit, status: RunStatus | None, partition: Partition, keys: KeyList, ttl: int
) -> Sequence[str | int | Sequence[str]]:
    if status is None:
        return ()
    return (
        change.id,
        status.value,
        keys.index(partition.open_of(change.flow)),
        keys.index(partition.ended(status)),
        keys.index(partition.ended(status, change.flow)),
        partition.channel(change.id),
        ttl,
        change.timers,
    )


@dataclass(slots=True)
class DueTimer:
    """A timer's member, taken apart. `queue` is the step's name where it is of a gate or sleep."""

    member: bytes
    kind: TimerKind
    queue: str
    flow: str
    seq: int
    index: int
    token: str


async def due_timers(
    store: Store, partition: Partition, limit: int = 500
) -> tuple[list[DueTimer], list[bytes], float | None]:
    """Timers that are due by Redis's time, members that are no timers, and seconds to the next."""
    wait, *due = await store.call("due_timers", [partition.timers], pack(limit))
    timers: list[DueTimer] = []
    strange: list[bytes] = []
    for raw in due:
        timer = _parse_timer(raw)
        if timer is None:
            strange.append(raw)
        else:
            timers.append(timer)
    return timers, strange, wait / 1000 if wait >= 0 else None


def _parse_timer(raw: bytes) -> DueTimer | None:
    """A timer from its member; None where it is none."""
    try:
        kind, queue, flow, seq, index, token = str(raw, "utf-8").split("|")
        return DueTimer(raw, TimerKind(kind), queue, flow, int(seq), int(index), token)
    except ValueError:  # too few parts, no such kind, no numbers, or no UTF-8
        return None


async def release_due(store: Store, partition: Partition, timers: Sequence[DueTimer]) -> list[str]:
    """Move nodes whose timer is due to their streams; a code for each."""
    keys = KeyList(partition.timers)
    items = [
        pack_item(
            ReleaseItem(
                keys.index(partition.flow(timer.flow)),
                keys.index(partition.queue(timer.queue)),
                str(timer.member, "utf-8"),
                timer.flow,
                timer.seq,
                timer.index,
                timer.token,
                timer.queue,
            )
        )
        for timer in timers
    ]
    reply = await store.call("release_due", keys.keys, pack(), items)
    return [code_of(answer) for answer in reply]


async def fire(
    store: Store, partition: Partition, timers: Sequence[tuple[DueTimer, ErrorInfo]]
) -> list[str]:
    """Do what due timers of runs are for, with the error of a run that fails of it."""
    keys = KeyList(partition.inbox, partition.timers, partition.claims)
    arguments: list[bytes] = []
    for timer, error in timers:
        item = FireItem(
            keys.index(partition.flow(timer.flow)),
            str(timer.member, "utf-8"),
            timer.kind,
            timer.flow,
            timer.seq,
            timer.index,
            timer.token,
        )
        arguments += (pack_item(item), _encode(error))
    reply = await store.call("fire_timers", keys.keys, pack(store.nonce()), arguments)
    return [code_of(answer) for answer in reply]


async def unlist(store: Store, partition: Partition, flow_id: str, flows: Sequence[str]) -> bool:
    """Take a run that is not open out of the indexes of open ones; whether it was in any.

    `flows` are those whose index it may be in: of a hash that is gone nobody knows the flow.
    """
    keys = KeyList(partition.open)
    indexes = [partition.open_of(flow) for flow in flows] or [partition.open]
    items = [
        pack_item(IndexedItem(keys.index(partition.flow(flow_id)), keys.index(index), flow_id))
        for index in indexes
    ]
    reply = await store.call("unlist_flows", keys.keys, pack(), items)
    return any(code_of(answer) == Code.OK for answer in reply)
