"""Listing runs: the indexes of open and ended runs of all partitions, read as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from resolute.client.run import RunInfo
from resolute.errors import UnknownRun
from resolute.status import OPEN, TERMINAL, RunStatus
from resolute.store import runs
from resolute.store.store import Store

PAGE = 1000  # entries of an index that are read at a time, where many have one time


async def list_runs(
    store: Store, wanted: RunStatus | None, flow: str | None, limit: int, after: str | None
) -> list[RunInfo]:
    """At most `limit` runs, newest first, that come after the run `after`. Raises UnknownRun."""
    place = await _place(store, after)
    indexes = _indexes(store, wanted, flow)
    found: dict[str, RunInfo] = {}
    while len(found) < limit:
        rows = await _before(store, indexes, place, limit - len(found))
        if not rows:
            break
        for header in await runs.read_headers(store, [name for _, name in rows]):
            if isinstance(header, runs.Header) and (wanted is None or header.status == wanted):
                found.setdefault(header.id, RunInfo.of(header))
        place = rows[-1]
    return list(found.values())


async def _place(store: Store, after: str | None) -> tuple[float, str]:
    """Where in the order of a list the page begins: before this score and id."""
    if after is None:
        return math.inf, ""
    header = await runs.read_header(store, after)
    if header is None:
        raise UnknownRun(after)
    return float(round((header.ended or header.started) * 1000)), after


async def _before(
    store: Store, indexes: Sequence[str], place: tuple[float, str], count: int
) -> list[tuple[float, str]]:
    """The `count` runs that come next in the order: scores and ids, both descending."""
    found: dict[str, float] = {}
    for index in indexes:
        # A run that ends meanwhile is in two indexes: the later place counts.
        for score, name in await _before_in(store, index, place, count):
            found[name] = max(score, found.get(name, -math.inf))
    rows = sorted(((score, name) for name, score in found.items()), reverse=True)
    return rows[:count]


async def _before_in(
    store: Store, index: str, place: tuple[float, str], count: int
) -> list[tuple[float, str]]:
    """As `_before`, of one index. Runs of one millisecond are in the order of their ids."""
    ceiling = "+inf" if place[0] == math.inf else str(round(place[0]))
    found: list[tuple[float, str]] = []
    offset, batch = 0, count + 1
    while len(found) < count:
        rows = await store.execute(
            "ZRANGE", index, ceiling, "-inf", "BYSCORE", "REV", "LIMIT", offset, batch,
            "WITHSCORES",
        )  # fmt: skip
        pairs = zip(rows[::2], rows[1::2], strict=True)
        read = [(float(score), str(name, "utf-8")) for name, score in pairs]
        found += [row for row in read if row < place]
        if len(read) < batch:
            break
        offset, batch = offset + batch, max(batch, PAGE)
    return found[:count]


def _indexes(store: Store, status: RunStatus | None, flow: str | None) -> list[str]:
    wanted = [status] if status is not None else [RunStatus.RUNNING, *TERMINAL]
    found: list[str] = []
    for partition in store.keys.partitions:
        for one in wanted:
            if one in OPEN:
                found.append(partition.open_of(flow) if flow else partition.open)
            else:
                found.append(partition.ended(one, flow or ""))
    return found


def check_status(status: RunStatus | str | None) -> RunStatus | None:
    """Raises ValueError for what is none."""
    try:
        return RunStatus(status) if status is not None else None
    except ValueError:
        known = ", ".join(one.value for one in RunStatus)
        raise ValueError(f"status: expected one of {known}, got {status!r}") from None
