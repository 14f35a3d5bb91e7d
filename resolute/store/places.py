"""The places of concurrency limits: taking them, giving them back, waking who waits for one.

A node is called `<flow>|<seq>|<index>|<queue>` there. Who has a place is written down with a
token, so that two hand-outs of a node, of which the older one may still run, count as two. No
process may use the token of another: who gives a place back would give back the other's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resolute.model.plan import PlacesPlan
from resolute.status import Code
from resolute.store.connection import ServerReply
from resolute.store.nodes import Held, chunks, code_of
from resolute.store.script import Item, KeyList, pack, pack_item
from resolute.store.servers import Epoch
from resolute.store.store import Store

SPARE_MS = 3_600_000  # that what a process has outlasts the timeouts of its nodes


class PlaceItem(Item):
    node: str
    token: str
    ticket: str


class LeaveItem(Item):
    node: str
    token: str


class WakeItem(Item):
    flow_key: int
    stream_key: int
    flow: str
    seq: int
    index: int


@dataclass(frozen=True)
class Spot:
    """One concurrency limit for one key; `key` is '' where it has none."""

    limit: PlacesPlan
    key: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a script of places must know beside the limit.

    After `lapse_ms` a place is not kept any longer for a node that was woken and has not come;
    `ttl_ms` is for how long the limit is remembered when nobody asks for it.
    """

    lapse_ms: int
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Seat:
    """A place, or not `granted` one in line with so many `before` it. `ticket` is when it asked."""

    granted: bool
    ticket: int
    before: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """A node that asks for a place; `ticket` is that of an earlier answer, else 0."""

    node: str
    token: str
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class Synced:
    """What was found: the processes that have places, and how many nodes wait."""

    processes: Sequence[str]
    waiting: int


def node_name(held: Held, queue: str) -> str:
    """How a node is called in the limits; `queue` is the one that it is handed out to."""
    entry = held.entry
    return f"{entry.flow}|{entry.seq}|{entry.index}|{queue}"


async def take(
    store: Store, process: str, round_: int, spot: Spot, terms: Terms, asks: Sequence[Ask]
) -> tuple[list[Seat], list[str]]:
    """Ask for places; the answers, and which nodes are to be woken. Raises ServerReply."""
    common = pack(process, round_, spot.limit.n, terms.lapse_ms, terms.ttl_ms)
    items = [pack_item(PlaceItem(ask.node, ask.token, str(ask.ticket))) for ask in asks]
    told, *answers = await store.call("take_places", _keys(store, spot), common, items)
    return [_seat(answer) for answer in answers], _texts(told)


def _seat(answer: Sequence[Any]) -> Seat:
    match code_of(answer):
        case Code.OK:
            return Seat(True, int(answer[1]))
        case Code.SKIP:
            return Seat(False, int(answer[1]), int(answer[2]))
        case _:
            raise ServerReply(str(answer[-1], "utf-8", "replace"))


async def leave(
    store: Store, spot: Spot, terms: Terms, gone: Sequence[tuple[str, str]]
) -> list[str]:
    """Give places back, each by (node, token), or with token '' leave the line; whom to wake."""
    common = pack(spot.limit.n, terms.lapse_ms, terms.ttl_ms)
    items = [pack_item(LeaveItem(node, token)) for node, token in gone]
    reply = await store.call("leave_places", _keys(store, spot), common, items)
    return _texts(reply[0])


async def sync(
    store: Store,
    process: str,
    round_: int,
    spot: Spot,
    terms: Terms,
    mine: Sequence[str],
    dead: Sequence[str] = (),
) -> tuple[Synced, list[str]]:
    """Say which places a process has, as <node>|<token>, and who is dead; whom to wake."""
    terms_of = (spot.limit.n, terms.lapse_ms, terms.ttl_ms)
    common = pack(process, round_, *terms_of, mine, dead)
    told, processes, waiting = await store.call("sync_places", _keys(store, spot), common)
    return Synced(_texts(processes), int(waiting[1])), _texts(told)


async def wake(store: Store, nodes: Sequence[str]) -> list[str]:
    """Hand nodes out that wait for a place; those that will never come.

    One of which the text is no name, since somebody damaged it, will not come either.
    """
    by_partition: dict[int, list[tuple[str, str, int, int, str]]] = defaultdict(list)
    never: list[str] = []
    for name in nodes:
        try:
            flow, seq, index, queue = name.split("|")
            found = (name, flow, int(seq), int(index), queue)
        except ValueError:
            never.append(name)
            continue
        by_partition[store.keys.of(flow).number].append(found)
    for number, some in by_partition.items():
        partition = store.keys.partitions[number]
        for batch in chunks(some):
            keys = KeyList(partition.timers)
            items = [
                pack_item(
                    WakeItem(
                        keys.index(partition.flow(flow)),
                        keys.index(partition.queue(queue)),
                        flow,
                        seq,
                        index,
                    )
                )
                for _, flow, seq, index, queue in batch
            ]
            reply = await store.call("wake_nodes", keys.keys, pack(), items)
            codes = map(code_of, reply)
            never += [
                one[0]
                for one, code in zip(batch, codes, strict=True)
                if code not in (Code.OK, Code.EXISTS)
            ]
    return never


def epoch_of(store: Store, spot: Spot) -> Epoch:
    """Which connection leads to the server that has a limit; a later one is another epoch."""
    return store.servers.epoch_of(_keys(store, spot)[0])


def _keys(store: Store, spot: Spot) -> tuple[str, str, str]:
    return store.keys.meta.places(spot.limit.name, spot.key)


def _texts(answer: Sequence[bytes]) -> list[str]:
    """What follows the code."""
    return [str(raw, "utf-8", "replace") for raw in answer[1:]]
