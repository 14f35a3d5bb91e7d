"""Keys that starts share: runs with a unique key, and debounced ones."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from resolute.errors import ResoluteError
from resolute.ids import new_run_id
from resolute.status import Code
from resolute.store import runs
from resolute.store.keys import Keys, Partition
from resolute.store.nodes import code_of
from resolute.store.runs import Claim, Header, Seen, Start
from resolute.store.script import Item, KeyList, pack, pack_item
from resolute.store.store import Store

KEPT_MS = 86_400_000  # a debounced start with an id of its own is known for so long


class DebounceItem(Item):
    flow_key: int
    index_key: int
    pending_place: int
    call_place: int
    id: str
    flow: str
    queue: str
    nonce: str
    field: str
    pending: str
    wait: int
    most: int
    sender: str
    number: int


class Verdict(NamedTuple):
    """What a start with a unique key came to; `other` is the run that has the key, if TAKEN."""

    code: str
    other: str = ""


@dataclass(frozen=True, slots=True)
class Debounced:
    """A debounced start: of `start` what a new run would be, which begins `wait_ms` later.

    It begins `most_ms` after the first at the latest, 0: no matter. `sender` counts its calls in
    `number`, so that one that is sent again, or comes too late, changes nothing. `call` is an id of
    its own, '' for none: for a day it is one start, however often it comes.
    """

    start: Start
    claim: str
    wait_ms: int
    most_ms: int
    sender: str
    number: int
    call: str = ""


async def start(
    store: Store, partition: Partition, wanted: Start, claim: Claim, retention_ms: int
) -> Verdict:
    """Start a run with a unique key, or find out which run has it."""

    async def send(seen: Seen) -> Sequence[Any]:
        one = replace(wanted, claim=replace(claim, seen=seen))
        (answer,) = await runs.send_starts(store, partition, [one], retention_ms)
        return answer

    return await _judged(send)


async def retry(
    store: Store,
    source: Header,
    target: str,
    drop: Sequence[str],
    fields: Sequence[str | int],
    deadline_ms: int = 0,
) -> Verdict:
    """`runs.retry`, with the unique key that the source had, if it had one."""

    async def send(seen: Seen) -> Sequence[Any]:
        return await runs.send_retry(store, source, target, drop, fields, deadline_ms, seen)

    return await _judged(send)


async def _judged(send: Callable[[Seen], Awaitable[Sequence[Any]]]) -> Verdict:
    """Send it until the script could judge by the hashes of those that have the key.

    It is sent again only when another start or end has changed who that is.
    """
    seen = runs.NOBODY
    while True:
        answer = await send(seen)
        code = code_of(answer)
        if code != Code.TAKEN:
            return Verdict(code)
        holder, waiting, recent = (str(part, "utf-8") for part in answer[1:])
        now = Seen(holder, waiting)
        if recent or now == seen:
            return Verdict(code, recent or waiting or holder)
        seen = now


def placed_id(keys: Keys, partition: Partition, origin: str = "") -> str:
    """A run id that lies in a partition: a new one, or for the same `origin` always the same."""
    if not origin:
        drawn = (new_run_id() for _ in itertools.count())
    else:
        drawn = itertools.chain([origin], (f"{origin}.{k}" for k in itertools.count()))
    return next(run_id for run_id in drawn if keys.of(run_id) is partition)


async def may_begin(store: Store, header: Header) -> bool:
    """Whether a run waits for none that has its unique key. Once it may, it may for good."""
    if not header.replaces or not header.unique:
        return True
    claims = store.keys.of(header.id).claims
    return await store.execute("HGET", claims, header.unique) == header.id.encode()


async def debounce(store: Store, partition: Partition, wanted: Debounced) -> str:
    """Start a run later, or let one that has not begun be it; the id of that.

    Raises ResoluteError where what is stored cannot be read.
    """
    pending = ""
    while True:
        keys = KeyList(partition.inbox, partition.open, partition.timers, partition.claims)
        one = wanted.start
        item = DebounceItem(
            keys.index(partition.flow(one.id)),
            keys.index(partition.open_of(one.flow)),
            keys.index(partition.flow(pending)) if pending else 0,
            keys.index(partition.call(one.flow, wanted.call)) if wanted.call else 0,
            one.id,
            one.flow,
            one.queue,
            store.nonce(),
            wanted.claim,
            pending,
            wanted.wait_ms,
            wanted.most_ms,
            wanted.sender,
            wanted.number,
        )
        arguments = (pack_item(item), one.input)
        (answer,) = await store.call("debounce_flow", keys.keys, pack(KEPT_MS), arguments)
        found = str(answer[1], "utf-8", "replace")
        match code_of(answer):
            case Code.OK:
                return found
            case Code.TAKEN:
                pending = found
            case code:
                raise ResoluteError(f"run {one.id!r} was not started: {code} {found}")
