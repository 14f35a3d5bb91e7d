"""What a worker does with nodes: begin, complete, fail, return; and taking them back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from resolute.model.messages import Entry
from resolute.priority import home_of, name_in
from resolute.status import Code
from resolute.store.keys import Partition
from resolute.store.script import Item, KeyList, pack, pack_item
from resolute.store.store import Store

MAX_ITEMS = 250  # of one call, so that no script holds the server for long
MAX_BYTES = 1024 * 1024
ITEMS = 400  # kept by one call; a script must not unpack 1,000 values
POISON = 3  # crashes

T = TypeVar("T")

_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Held(msgspec.Struct, frozen=True):
    """An entry as one process has it: where it came from, its id there, what it says."""

    partition: Partition
    queue: str  # the name that it goes by there: the lane, with "@plan" where it is one of those
    id: str
    entry: Entry

    @classmethod
    def read(cls, partition: Partition, stream: str, id: str, payload: bytes | None) -> Held:
        """An entry from the stream of that name. Raises ValueError for what is none."""
        entry = _decode_entry(payload or b"")
        return cls(partition, name_in(stream, entry.priority), id, entry)

    @property
    def stream(self) -> str:
        return self.partition.queue(self.queue)

    @property
    def lane(self) -> str:
        """The lane that it belongs to, wherever it waited, and is handed out on again."""
        return home_of(self.queue)


ASKED = "?"  # no id of a run begins with it


def question(held: Held) -> str:
    """What asks a process whether it runs a node that is claimed for it."""
    entry = held.entry
    place = f"{entry.seq}.{entry.index}"
    return f"{ASKED}{entry.flow}|{place}|{entry.token} {held.id} {held.queue}"


def asked(store: Store, name: str) -> Held | None:
    """The node that a process is asked for; None for what is no question."""
    if not name.startswith(ASKED):
        return None
    flow, place, rest = name.removeprefix(ASKED).split("|")
    seq, _, index = place.partition(".")
    token, entry_id, queue = rest.split(" ", 2)
    entry = Entry(flow, "", 0, int(seq), int(index), token)
    return Held(store.keys.of(flow), queue, entry_id, entry)


class BeginItem(Item):
    flow_key: int
    flow: str
    entry: str
    seq: str
    index: str
    token: str
    fields: Sequence[str]


class CompleteItem(Item):
    flow_key: int
    flow: str
    entry: str
    seq: str
    index: str
    token: str
    plan: str
    pc: str
    key: str
    undo: int
    arg: str
    costs: str
    pages: int


class PageItem(Item):
    flow_key: int
    target_key: int
    flow: str
    entry: str
    seq: int
    index: int
    token: str
    queue: str
    number: int
    costs: str


class ProgressItem(Item):
    flow_key: int
    flow: str
    seq: int
    index: int
    token: str


class StoreItem(Item):
    flow_key: int
    flow: str
    seq: int
    index: int
    token: str
    start: int
    count: int


class FailItem(Item):
    flow_key: int
    flow: str
    entry: str
    seq: int
    index: int
    token: str
    key: str
    queue: str
    final: int
    best_effort: int
    delay: int
    costs: str


class ReturnItem(Item):
    flow_key: int
    target_key: int
    flow: str
    entry: str
    seq: int
    index: int
    token: str
    queue: str
    delay: int
    hold: str
    costs: str


class ReclaimItem(Item):
    flow_key: int
    from_key: int
    to_key: int
    flow: str
    entry: str
    seq: int
    index: int
    token: str
    process: str
    queue: str
    best_effort: int
    key: str


@dataclass(slots=True)
class Begun:
    """The answer to one begin. `values` are the fields asked for; `now` is Redis's time in µs."""

    code: str
    now: int = 0
    rev: str = ""
    hold: str = ""
    values: Sequence[bytes | None] = ()


@dataclass(slots=True)
class Completion:
    """A result to commit. `undo_input` is the encoded input of its compensation, if it has one.

    `costs` are the sums of what the attempt cost, as `Costs.packed` has them, here and below.
    `pages` are those that were kept before, and that the output has: 0 where only progress was,
    None where nothing.
    """

    held: Held
    key: str
    output: bytes
    undo_input: bytes | None = None
    arg: str = ""
    costs: str = ""
    pages: int | None = None


@dataclass(slots=True)
class PageTurn:
    """A page to keep, of a node that goes on with the next one, on `queue`."""

    held: Held
    queue: str
    number: int
    page: bytes
    progress: bytes
    costs: str = ""


@dataclass(slots=True)
class Failure:
    """A failed attempt; `delay` (ms) is until the next one, None where it was the last."""

    held: Held
    key: str
    queue: str
    error: bytes
    delay: int | None
    best_effort: bool
    costs: str = ""


@dataclass(slots=True)
class Return:
    """A node to hand back, to `queue`, now or after `delay` ms."""

    held: Held
    queue: str
    delay: int = 0
    hold: str = ""
    costs: str = ""


@dataclass(slots=True)
class Reclaim:
    """A node to take back. `held` has the entry ('' as id: lost); `process` is the dead one.

    `child` is the run that it waits for, which seems to be gone.
    """

    held: Held
    process: str
    queue: str
    key: str
    best_effort: bool
    error: bytes
    child: str = ""


def chunks(
    items: Iterable[T], size: Callable[[T], int] | None = None, most: int = MAX_ITEMS
) -> Iterator[list[T]]:
    """Batches of at most `most` and, by `size(item)` in bytes, about MAX_BYTES."""
    batch: list[T] = []
    total = 0
    for item in items:
        weight = size(item) if size else 0
        if batch and (len(batch) >= most or total + weight > MAX_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += weight
    if batch:
        yield batch


def code_of(reply: Sequence[Any]) -> str:
    """The result code of one item's reply."""
    return str(reply[0], "ascii")


async def begin(
    store: Store, process: str, wanted: Sequence[tuple[Held, Sequence[str]]]
) -> list[Begun]:
    """Claim nodes that go by one name; each with the hash fields to read."""
    first = wanted[0][0]
    keys = KeyList(first.stream)
    flow_of = first.partition.flow
    items = [
        pack_item(
            BeginItem(
                keys.index(flow_of(held.entry.flow)),
                held.entry.flow,
                held.id,
                str(held.entry.seq),
                str(held.entry.index),
                held.entry.token,
                fields,
            )
        )
        for held, fields in wanted
    ]
    reply = await store.call("begin_nodes", keys.keys, pack(process, first.queue), items)
    now = int(reply[0])
    return [_begun(answer, now) for answer in reply[1:]]


def _begun(answer: list[Any], now: int) -> Begun:
    code = code_of(answer)
    if code != Code.OK:
        return Begun(code)
    try:
        rev, hold = str(answer[1], "ascii"), str(answer[2], "ascii")
    except UnicodeDecodeError:
        return Begun(Code.ERROR)  # this run is damaged; the others of the batch are not
    return Begun(code, now, rev, hold, answer[3:])


async def complete(store: Store, process: str, results: Sequence[Completion]) -> list[str]:
    """Commit results of nodes of one stream; a code for each."""
    first = results[0].held
    keys = KeyList(first.partition.inbox, first.partition.stats, first.stream)
    arguments: list[bytes] = []
    for result in results:
        held = result.held
        entry = held.entry
        item = CompleteItem(
            keys.index(held.partition.flow(entry.flow)),
            entry.flow,
            held.id,
            str(entry.seq),
            str(entry.index),
            entry.token,
            entry.plan,
            str(entry.pc),
            result.key,
            0 if result.undo_input is None else 1,
            result.arg,
            result.costs,
            -1 if result.pages is None else result.pages,
        )
        arguments += (pack_item(item), result.output, result.undo_input or b"")
    reply = await store.call("complete_nodes", keys.keys, pack(process), arguments)
    return [code_of(answer) for answer in reply]


async def turn_pages(store: Store, process: str, turns: Sequence[PageTurn]) -> list[str]:
    """Keep pages of nodes of one stream, and hand the nodes out again; a code for each."""
    first = turns[0].held
    partition = first.partition
    keys = KeyList(partition.inbox, partition.stats, first.stream)
    arguments: list[bytes] = []
    for turn in turns:
        entry = turn.held.entry
        item = PageItem(
            keys.index(partition.flow(entry.flow)),
            keys.index(partition.queue(turn.queue)),
            entry.flow,
            turn.held.id,
            entry.seq,
            entry.index,
            entry.token,
            turn.queue,
            turn.number,
            turn.costs,
        )
        arguments += (pack_item(item), turn.page, turn.progress)
    reply = await store.call("turn_page", keys.keys, pack(process), arguments)
    return [code_of(answer) for answer in reply]


async def keep_progress(store: Store, process: str, held: Held, progress: bytes) -> str:
    """Keep how far a node has come, for its next attempt; a code."""
    entry = held.entry
    keys = KeyList()
    flow_key = keys.index(held.partition.flow(entry.flow))
    item = ProgressItem(flow_key, entry.flow, entry.seq, entry.index, entry.token)
    arguments = (pack_item(item), progress)
    return code_of((await store.call("keep_progress", keys.keys, pack(process), arguments))[0])


async def store_items(
    store: Store, process: str, held: Held, start: int, items: Sequence[bytes]
) -> str:
    """Keep encoded items of the next step, at most ITEMS of them, from number `start` on."""
    entry = held.entry
    keys = KeyList()
    item = StoreItem(
        keys.index(held.partition.flow(entry.flow)),
        entry.flow,
        entry.seq,
        entry.index,
        entry.token,
        start,
        len(items),
    )
    arguments = (pack_item(item), *items)
    return code_of((await store.call("store_items", keys.keys, pack(process), arguments))[0])


async def fail(store: Store, process: str, failures: Sequence[Failure]) -> list[str]:
    """Record failed attempts of nodes of one stream; a code for each."""
    first = failures[0].held
    partition = first.partition
    keys = KeyList(partition.inbox, partition.stats, first.stream, partition.timers)
    arguments: list[bytes] = []
    for failure in failures:
        entry = failure.held.entry
        item = FailItem(
            keys.index(partition.flow(entry.flow)),
            entry.flow,
            failure.held.id,
            entry.seq,
            entry.index,
            entry.token,
            failure.key,
            failure.queue,
            1 if failure.delay is None else 0,
            1 if failure.best_effort else 0,
            failure.delay or 0,
            failure.costs,
        )
        arguments += (pack_item(item), failure.error)
    reply = await store.call("fail_nodes", keys.keys, pack(process, store.nonce()), arguments)
    return [code_of(answer) for answer in reply]


async def give_back(store: Store, process: str, returns: Sequence[Return]) -> list[str]:
    """Hand nodes of one stream back; a code for each."""
    first = returns[0].held
    partition = first.partition
    keys = KeyList(partition.inbox, partition.stats, first.stream, partition.timers)
    items = [
        pack_item(
            ReturnItem(
                keys.index(partition.flow(back.held.entry.flow)),
                keys.index(partition.queue(back.queue)),
                back.held.entry.flow,
                back.held.id,
                back.held.entry.seq,
                back.held.entry.index,
                back.held.entry.token,
                back.queue,
                back.delay,
                back.hold,
                back.costs,
            )
        )
        for back in returns
    ]
    reply = await store.call("return_nodes", keys.keys, pack(process), items)
    return [code_of(answer) for answer in reply]


async def reclaim(store: Store, partition: Partition, lost: Sequence[Reclaim]) -> list[str]:
    """Take nodes of one partition back from a dead process; a code for each."""
    keys = KeyList(partition.inbox, partition.stats, partition.timers)
    arguments: list[bytes] = []
    for item in lost:
        entry = item.held.entry
        packed = ReclaimItem(
            keys.index(partition.flow(entry.flow)),
            keys.index(item.held.stream),
            keys.index(partition.flow(item.child) if item.child else partition.queue(item.queue)),
            entry.flow,
            item.held.id,
            entry.seq,
            entry.index,
            entry.token,
            item.process,
            item.queue,
            1 if item.best_effort else 0,
            item.key,
        )
        arguments += (pack_item(packed), item.error)
    common = pack(store.nonce(), POISON)
    reply = await store.call("reclaim_nodes", keys.keys, common, arguments)
    return [code_of(answer) for answer in reply]
