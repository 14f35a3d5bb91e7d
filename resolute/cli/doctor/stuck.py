"""Runs whose state is older than its clock: unmoved, and waiting for nothing that will come."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec

from resolute.cli.doctor.findings import Finding, Severity
from resolute.cli.doctor.queues import QueueRow
from resolute.cli.live import Situation
from resolute.cli.output import counted
from resolute.cli.show.snapshot import take_snapshot
from resolute.cli.show.waiting import Wait, WaitKind
from resolute.client import Client
from resolute.durations import humanize
from resolute.errors import DamagedRun, UnknownRun
from resolute.store import runs
from resolute.store.runs import Header
from resolute.store.store import Store

LEASES = 3
MAX_OPEN = 1000  # of the oldest open runs of a partition
MAX_LOOKS = 50
MAX_SAID = 5

# What a run may wait for as long as it takes: it has a name, or a clock. A timer that nobody fires
# is a wait for a coordinator.
_HEALTHY = {
    WaitKind.NODE, WaitKind.RETRY, WaitKind.RATE_LIMIT, WaitKind.CONCURRENCY, WaitKind.SIGNAL,
    WaitKind.TIME, WaitKind.CHILD, WaitKind.RUN, WaitKind.ALONE,
}  # fmt: skip


class StuckRun(msgspec.Struct, frozen=True):
    """A run that nothing will move; `unmoved` is in seconds."""

    id: str
    flow: str
    unmoved: float
    waits_for: str


async def oldest_open(store: Store) -> tuple[list[Header], list[DamagedRun]]:
    """The open runs that were started first, and those that cannot be read."""
    found: list[Header] = []
    damaged: list[DamagedRun] = []
    for partition in store.keys.partitions:
        ids = await store.execute("ZRANGE", partition.open, 0, MAX_OPEN - 1)
        headers = await runs.read_headers(store, [str(raw, "utf-8") for raw in ids])
        for header in headers:
            match header:
                case DamagedRun():
                    damaged.append(header)
                case Header() if not header.status.is_terminal:
                    found.append(header)
                case _:
                    pass
    return found, damaged


async def find_stuck(
    client: Client,
    opened: Sequence[Header],
    queues: Sequence[QueueRow],
    situation: Situation,
    lease: float,
) -> list[StuckRun]:
    """The open runs, unmoved for three leases, that wait for nothing but to be moved.

    Whose node is ready in a queue that has ready nodes waits for its turn.
    """
    busy = {row.queue for row in queues if row.ready and row.readers}
    found: list[StuckRun] = []
    limit = situation.now - LEASES * lease
    old = sorted((h for h in opened if h.moved < limit), key=lambda header: header.moved)
    for header in old[:MAX_LOOKS]:
        try:
            snapshot = await take_snapshot(client, header.id)
        except (UnknownRun, DamagedRun):
            continue
        if not (snapshot.is_over or any(_is_healthy(wait, busy) for wait in snapshot.waits)):
            unmoved = situation.now - header.moved
            why = snapshot.waits[0].text if snapshot.waits else ""
            found.append(StuckRun(header.id, header.flow, unmoved, why))
    return found


def _is_healthy(wait: Wait, busy: Collection[str]) -> bool:
    return wait.kind in _HEALTHY or (wait.kind is WaitKind.QUEUE and wait.queue in busy)


def check_damaged(damaged: Sequence[DamagedRun]) -> Iterator[Finding]:
    """Runs whose hash nobody can read, which therefore nobody moves."""
    for error in damaged[:MAX_SAID]:
        yield Finding("runs", Severity.PROBLEM, str(error), "delete its hash, or put it right")


def check_stuck(stuck: Sequence[StuckRun], opened: int) -> Iterator[Finding]:
    """One finding for each of the first few, and how many there are."""
    if not stuck:
        yield Finding("runs", Severity.OK, f"{counted(opened, 'open run')}, none stuck")
    for run in stuck[:MAX_SAID]:
        yield Finding(
            "runs",
            Severity.PROBLEM,
            f"{run.id} ({run.flow}) has not moved for {humanize(run.unmoved)}: {run.waits_for}",
            f"resolute show {run.id}",
        )
    if len(stuck) > MAX_SAID:
        more = f"{len(stuck) - MAX_SAID:,} more of {opened:,} open runs have not moved either"
        yield Finding("runs", Severity.PROBLEM, more, "resolute ls --status running")
