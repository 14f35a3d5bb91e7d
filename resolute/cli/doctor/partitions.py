"""What a partition keeps beside its queues: events, timers, dead letters."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from resolute.cli.doctor.findings import Finding, Severity
from resolute.cli.live import OVERDUE, SLOW_EVENT, Situation
from resolute.cli.output import counted
from resolute.durations import humanize
from resolute.store.store import Store


class Backlog(msgspec.Struct, frozen=True):
    """Counts over all partitions. Ages are in seconds; `dead_letter` says why the newest died."""

    events: int
    event_age: float
    timers: int
    timer_delay: float
    dead_letters: int
    dead_letter: str


async def read_backlog(store: Store, situation: Situation) -> Backlog:
    """Look at inbox, timers and dead letters of every partition."""
    events = timers = dead_letters = 0
    delay, dead_letter = 0.0, ""
    for partition in store.keys.partitions:
        inbox, waiting, first, dead, newest = await store.execute_all(
            [
                ("XLEN", partition.inbox),
                ("ZCARD", partition.timers),
                ("ZRANGE", partition.timers, 0, 0, "WITHSCORES"),
                ("XLEN", partition.dead),
                ("XREVRANGE", partition.dead, "+", "-", "COUNT", 1),
            ]
        )
        events += inbox
        timers += waiting
        dead_letters += dead
        if first:
            delay = max(delay, situation.now - float(first[1]) / 1000)
        if newest:
            fields = dict(zip(newest[0][1][::2], newest[0][1][1::2], strict=False))
            dead_letter = str(fields.get(b"why", b""), "utf-8", "replace")
    return Backlog(events, situation.event_age, timers, max(0.0, delay), dead_letters, dead_letter)


def check_backlog(backlog: Backlog) -> Iterator[Finding]:
    """What only coordinators work off, and what nobody can."""
    advice = "start resolute-coord, or more of them, and look at their logs"
    events = f"{counted(backlog.events, 'event')} to be handled"
    if backlog.events and backlog.event_age > SLOW_EVENT:
        text = f"{events}, the oldest for {humanize(backlog.event_age)}"
        yield Finding("events", Severity.PROBLEM, text, advice)
    else:
        yield Finding("events", Severity.OK, events)
    timers = f"{counted(backlog.timers, 'timer')} set"
    if backlog.timer_delay > OVERDUE:
        text = f"{timers}, the first is overdue by {humanize(backlog.timer_delay)}"
        yield Finding("timers", Severity.PROBLEM, text, advice)
    else:
        yield Finding("timers", Severity.OK, timers)
    if backlog.dead_letters:
        yield Finding(
            "dead letters",
            Severity.PROBLEM,
            f"{counted(backlog.dead_letters, 'dead letter')}: what nobody could use;"
            f" the newest: {backlog.dead_letter}",
            "look with `resolute dead ls`, then `resolute dead retry` or `resolute dead drop` them",
        )
    else:
        yield Finding("dead letters", Severity.OK, "none")
