"""Starting runs: what a start says of its time and its key, and sending many in few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from resolute.client.confirming import naming
from resolute.client.objects import Objects
from resolute.durations import Duration, milliseconds
from resolute.errors import IdConflict, ResoluteError
from resolute.model.claims import Debounce, Unique, as_unique
from resolute.status import Code
from resolute.store import runs
from resolute.store.durable import DurableStore
from resolute.store.keys import Partition
from resolute.store.nodes import chunks
from resolute.store.store import Store


async def start_encoded(
    store: Store, objects: Objects, wanted: Sequence[runs.Start], limit: int
) -> None:
    """Start runs whose inputs are encoded; those above `limit` bytes go to the storage.

    Raises IdConflict, and what `store`, which is as durable as was asked for, does.
    """
    starts: dict[int, list[runs.Start]] = {}
    for start in wanted:
        starts.setdefault(store.keys.of(start.id).number, []).append(start)
    large = [one for several in starts.values() for one in several if len(one.input) > limit]
    await _all(objects.keep_input(start) for start in large)
    try:
        await _start_all(store, starts, [start.id for start in wanted])
    finally:
        await _all(objects.clean(start) for start in large)


async def _start_all(
    store: Store, starts: Mapping[int, Sequence[runs.Start]], names: Sequence[str]
) -> None:
    """Start runs by their partition, in few calls."""
    batches = (
        (store.keys.partitions[number], batch)
        for number, several in starts.items()
        for batch in chunks(several, lambda start: len(start.input))
    )
    if not isinstance(store, DurableStore):
        for partition, batch in batches:
            await _send(store, partition, batch)
    else:
        with naming(names):
            await _all(_send(store, partition, batch) for partition, batch in batches)


def begins(delay: Duration | None, at: datetime | None) -> tuple[int, int]:
    """`delay` and `at` in ms, 0 where not given. Raises TypeError, ValueError."""
    if delay is not None and at is not None:
        raise ValueError("start: expected a delay or a time to start at, got both")
    if at is not None and not isinstance(cast("object", at), datetime):
        raise TypeError(f"start: expected a datetime with a time zone as at=, got {at!r}")
    if at is not None and at.tzinfo is None:
        raise ValueError(f"start: expected at= with a time zone, got {at!r}")
    at_ms = max(1, round(at.timestamp() * 1000)) if at is not None else 0
    return (milliseconds(delay) if delay is not None else 0), at_ms


def sharing_of(unique: Unique | str | None, debounce: Debounce | None) -> Unique | Debounce:
    """The one that is given. Raises ValueError."""
    if unique is not None and debounce is not None:
        raise ValueError("start: expected a unique key or a debounce, got both")
    if debounce is not None:
        return debounce
    return as_unique(unique or "")


async def _send(store: Store, partition: Partition, starts: Sequence[runs.Start]) -> None:
    codes = await runs.start(store, partition, starts, 0)
    for start, code in zip(starts, codes, strict=True):
        if code == Code.CONFLICT:
            raise IdConflict(start.id)
        if code not in (Code.OK, Code.EXISTS):
            raise ResoluteError(f"run {start.id!r} was not started: {code}")


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do it together, so that one wait serves all; the first error is raised when all is done."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
