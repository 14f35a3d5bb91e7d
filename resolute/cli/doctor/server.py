"""The server: version, durability, eviction, memory, distance."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from resolute.cli.doctor.findings import Finding, Severity
from resolute.durations import humanize
from resolute.store.connection import Link
from resolute.store.server import KEEPS_ALL, ServerInfo

PINGS = 15
SLOW, VERY_SLOW = 0.01, 0.1  # s of a round trip
FULL, VERY_FULL = 0.75, 0.9  # of maxmemory


async def round_trip(link: Link) -> float:
    """The median of some round trips, in seconds."""
    spans: list[float] = []
    for _ in range(PINGS):
        started = time.perf_counter()
        await link.execute("PING")
        spans.append(time.perf_counter() - started)
    return statistics.median(spans)


def check_server(info: ServerInfo, address: str, latency: float) -> Iterator[Finding]:
    """Findings from what the server says of itself."""
    problems = info.problems()
    text = f"{info.kind} {info.version} at {address}, {info.role}, {info.clients} clients"
    yield Finding("server", Severity.OK, text)
    for problem in problems:
        what, _, advice = problem.partition(": ")
        yield Finding("server", Severity.UNSUITABLE, what, advice)
    yield _persistence(info)
    if info.eviction in (None, KEEPS_ALL):
        yield Finding(
            "eviction", Severity.OK, f"maxmemory-policy {info.eviction or 'not readable'}"
        )
    yield _memory(info)
    yield _latency(latency)


def _persistence(info: ServerInfo) -> Finding:
    name = "persistence"
    if info.appendonly is False:
        return Finding(
            name,
            Severity.WARNING,
            "no append-only file: a restart of the server loses runs",
            "CONFIG SET appendonly yes, and in its configuration file",
        )
    if info.appendonly is None or info.appendfsync is None:
        return Finding(name, Severity.OK, "append-only file: its settings are not readable")
    cost = {
        "always": "every write is on disk before it is answered",
        "everysec": "a loss of power costs at most the last second",
    }.get(info.appendfsync)
    if cost is None:
        return Finding(
            name,
            Severity.WARNING,
            f"append-only file with appendfsync {info.appendfsync}: a loss of power costs what the"
            " operating system had not written",
            "CONFIG SET appendfsync everysec",
        )
    return Finding(name, Severity.OK, f"append-only file, fsync {info.appendfsync}: {cost}")


def _memory(info: ServerInfo) -> Finding:
    used = f"{info.used_memory / 2**20:,.1f} MiB used"
    if not info.max_memory:
        return Finding("memory", Severity.OK, f"{used}, no maxmemory")
    share = info.used_memory / info.max_memory
    text = f"{used}, {share:.0%} of maxmemory"
    if share < FULL:
        return Finding("memory", Severity.OK, text)
    severity = Severity.WARNING if share < VERY_FULL else Severity.PROBLEM
    advice = "raise maxmemory, or keep ended runs for less long: resolute-coord --retention"
    return Finding("memory", severity, f"{text}: when it is full no run can start", advice)


def _latency(latency: float) -> Finding:
    text = f"a round trip takes {humanize(latency)} from here"
    if latency < SLOW:
        return Finding("latency", Severity.OK, text)
    severity = Severity.WARNING if latency < VERY_SLOW else Severity.PROBLEM
    advice = (
        "if it is the same for workers and coordinators, move them closer or relieve the server"
    )
    return Finding("latency", severity, text, advice)
