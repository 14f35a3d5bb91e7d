"""Starts that share a key: with a unique key, or debounced.

What shares a key is in one partition, so that one script can judge it. A run's id says in which it
is; so the id of such a run is drawn, or made from that of its sender, until it lies there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resolute.client.confirming import naming
from resolute.client.directory import choose_queue, encode_input
from resolute.client.run import FlowRun
from resolute.errors import AlreadyRunning, IdConflict, ResoluteError
from resolute.model.claims import Debounce, Unique, key_of
from resolute.model.codec import DEFAULT_MAX_PAYLOAD
from resolute.model.flow import Flow
from resolute.priority import Priority, lane_of
from resolute.status import Code
from resolute.store import claims
from resolute.store.keys import debounce_claim, unique_claim
from resolute.store.runs import Claim, Start
from resolute.store.store import Store

if TYPE_CHECKING:
    from resolute.client.client import Client


@dataclass(frozen=True)
class Wanted:
    """A start as it was asked for; `origin` is a run id made from the sender's own id of it, or ''.

    `store` is the one whose calls are as durable as was asked for.
    """

    flow: Flow[Any, Any] | str
    input: Any
    store: Store
    queue: str | None = None
    priority: Priority = Priority.NORMAL
    delay_ms: int = 0
    at_ms: int = 0
    origin: str = ""

    @property
    def name(self) -> str:
        return self.flow.name if isinstance(self.flow, Flow) else self.flow

    @property
    def result_type(self) -> Any:
        return self.flow.result_type if isinstance(self.flow, Flow) else Any

    @property
    def max_payload(self) -> int:
        return self.flow.max_payload if isinstance(self.flow, Flow) else DEFAULT_MAX_PAYLOAD


async def start_unique(client: Client, wanted: Wanted, unique: Unique) -> FlowRun[Any]:
    """Start a run with a unique key. Raises AlreadyRunning, ValueError, and what a start does."""
    name, key = wanted.name, key_of(wanted.name, unique.key, wanted.input)
    if unique.if_running == "replace" and (wanted.delay_ms or wanted.at_ms):
        raise ValueError(
            'start: what replaces a run begins when that has ended: no delay or at with "replace"'
        )
    start = await _start_of(client, wanted, key, client.objects.most)
    partition = client.store.keys.of(start.id)
    claim = Claim(unique_claim(name, key), unique.if_running, unique.period_ms)
    is_large = len(start.input) > wanted.max_payload
    if is_large:
        await client.objects.keep_input(start)
    try:
        with naming([start.id]):
            code, other = await claims.start(wanted.store, partition, start, claim, 0)
    finally:
        if is_large:
            await client.objects.clean(start)
    match code:
        case Code.OK | Code.EXISTS:
            return FlowRun(client, start.id, wanted.result_type)
        case Code.TAKEN if unique.if_running == "existing":
            return FlowRun(client, other, wanted.result_type)
        case Code.TAKEN:
            raise AlreadyRunning(name, key, other)
        case Code.CONFLICT:
            raise IdConflict(start.id)
        case _:
            raise ResoluteError(f"run {start.id!r} was not started: {code}")


async def start_debounced(
    client: Client, wanted: Wanted, debounce: Debounce, sender: str, number: int
) -> FlowRun[Any]:
    """Start a run later, or give its input to the one that has not begun yet.

    `sender` is this client and counts its calls in `number`. Raises ValueError, and what a start
    does; PayloadTooLarge also where there is a storage.
    """
    if wanted.delay_ms or wanted.at_ms:
        raise ValueError("start: a debounced run has its own time: no delay or at")
    name, key = wanted.name, key_of(wanted.name, debounce.key, wanted.input)
    start = await _start_of(client, wanted, key, 0)
    one = claims.Debounced(
        start,
        debounce_claim(name, key),
        debounce.wait_ms,
        debounce.most_ms,
        sender,
        number,
        wanted.origin,
    )
    with naming([start.id]):
        found = await claims.debounce(wanted.store, client.store.keys.of(start.id), one)
    return FlowRun(client, found, wanted.result_type)


async def _start_of(client: Client, wanted: Wanted, key: str, most: int) -> Start:
    """The run that may come of it, in the partition of its key."""
    name = wanted.name
    offered = await client.directory.offered(name)
    queue = lane_of(choose_queue(name, offered, wanted.queue), wanted.priority)
    data = encode_input(wanted.flow, offered, wanted.input, most)
    keys = client.store.keys
    run_id = claims.placed_id(keys, keys.of_key(name, key), wanted.origin)
    return Start(run_id, name, queue, data, delay=wanted.delay_ms, at=wanted.at_ms)
