"""Workers and coordinators: who is registered, and whose beat moves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from resolute.cli.doctor.findings import Finding, Severity
from resolute.cli.live import Situation
from resolute.cli.output import counted
from resolute.durations import humanize
from resolute.store import registry
from resolute.store.registry import ProcessInfo
from resolute.store.store import Store

LOOK_PERIOD = 0.1  # s
MARGIN = 1.0  # s that a beat may be late


class ProcessRow(msgspec.Struct, frozen=True):
    """A registered process; `age` (s) is since it registered, `beats` whether its beat moved.

    `ill` is what the health checks of its providers say.
    """

    name: str
    kind: str
    host: str
    pid: int
    queue: str
    age: float
    slots: int
    flows: int
    beats: bool
    providers: dict[str, str] = {}
    ill: dict[str, str] = {}


async def find_silent(store: Store, processes: Sequence[ProcessInfo]) -> set[str]:
    """Those whose beat stands still for the third of a lease in which it must move."""
    first = await registry.beats(store)
    silent = {process.name for process in processes}
    allowed = max((process.lease / 3 + MARGIN for process in processes), default=0.0)
    deadline = time.monotonic() + allowed
    while silent and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_PERIOD)
        beats = await registry.beats(store)
        # One that has gone meanwhile is not silent: it said goodbye.
        silent = {name for name in silent if name in beats and beats[name] == first.get(name)}
    return silent


def rows_of(situation: Situation, silent: set[str]) -> list[ProcessRow]:
    """Coordinators first, then workers by queue."""
    return [
        ProcessRow(
            p.name,
            p.kind,
            p.host,
            p.pid,
            p.queue,
            max(0.0, situation.now - p.started / 1000),
            p.concurrency,
            len(p.flows),
            p.name not in silent,
            p.providers,
            p.ill,
        )
        for p in (*situation.coordinators, *situation.workers)
    ]


def check_processes(rows: Sequence[ProcessRow], has_flows: bool) -> Iterator[Finding]:
    """Whether somebody moves runs along, and somebody runs their nodes."""
    yield _coordinators([row for row in rows if row.kind == "coordinator"])
    yield _workers([row for row in rows if row.kind == "worker"], has_flows)
    yield from _providers([row for row in rows if row.beats])
    yield from _health([row for row in rows if row.beats])
    for row in rows:
        if not row.beats:
            yield Finding(
                "lease",
                Severity.WARNING,
                f"{row.kind} {row.name} is registered, but its beat stands still: it was killed,"
                " or cannot reach the server",
                "a coordinator takes its nodes back after a lease; look at its log",
            )


def _coordinators(rows: Sequence[ProcessRow]) -> Finding:
    live = [row for row in rows if row.beats]
    if not live:
        text = "no coordinator lives: no run begins, goes on, or is retried"
        return Finding("coordinators", Severity.PROBLEM, text, "start resolute-coord")
    oldest = humanize(max(row.age for row in live))
    text = f"{counted(len(live), 'coordinator')}, registered up to {oldest} ago"
    return Finding("coordinators", Severity.OK, text)


def _providers(rows: Sequence[ProcessRow]) -> Iterator[Finding]:
    """Each provider that is offered, and on which queues; several versions are worth a look."""
    pairs = {(name, version) for row in rows for name, version in row.providers.items()}
    for name in sorted({name for name, _ in pairs}):
        versions = sorted(version for one, version in pairs if one == name)
        queues = ", ".join(sorted({row.queue for row in rows if name in row.providers}))
        if len(versions) == 1:
            text = f"version {versions[0]} on {queues}"
            yield Finding(f"provider {name}", Severity.OK, text)
        else:
            text = f"versions {', '.join(versions)} live side by side on {queues}"
            advice = "during a deployment that is fine; else end the workers of the old one"
            yield Finding(f"provider {name}", Severity.WARNING, text, advice)


def _health(rows: Sequence[ProcessRow]) -> Iterator[Finding]:
    """Each provider whose health check says that it is ill, and in how many processes."""
    for name in sorted({name for row in rows for name in row.ill}):
        offering = [row for row in rows if name in row.providers]
        said = [row.ill[name] for row in rows if name in row.ill]
        usual, _ = Counter(said).most_common(1)[0]
        processes = f"{len(said)} of {counted(len(offering), 'process')}"
        yield Finding(
            f"health of {name}",
            Severity.PROBLEM,
            f"ill in {processes}: {usual}",
            "its nodes run and are retried all the same; look whether the service is up, and"
            " reached from there, and whether the workers have its credentials",
        )


def _workers(rows: Sequence[ProcessRow], has_flows: bool) -> Finding:
    live = [row for row in rows if row.beats]
    if not live:
        known = "" if has_flows else ", and no flow was ever offered"
        text = f"no worker lives{known}: nothing is run"
        advice = "start resolute-worker --queue NAME --app APP"
        return Finding("workers", Severity.PROBLEM, text, advice)
    oldest = humanize(max(row.age for row in live))
    queues = ", ".join(
        f"{name} ({n})" for name, n in sorted(Counter(r.queue for r in live).items())
    )
    text = f"{counted(len(live), 'worker process')}, registered up to {oldest} ago: {queues}"
    return Finding("workers", Severity.OK, text)
