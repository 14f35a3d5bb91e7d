"""Concurrency limits in memory: what the scripts of `lib_places.lua` do, in one process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from resolute.store.places import Ask, Seat, Spot

Wake = Callable[[str], bool]


@dataclass
class _Line:
    """Who runs, as (node, token), and who waits, by ticket; `woken` have a place kept for them."""

    held: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    waiting: dict[str, int] = field(default_factory=dict[str, int])
    woken: set[str] = field(default_factory=set[str])


@dataclass
class MemoryPlaces:
    """All limits of a tester. `now` is the virtual time in µs; `wake` hands a node out that waits.

    It says whether the node will come; one that will not leaves the line.
    """

    now: Callable[[], int]
    wake: Wake
    _lines: dict[Spot, _Line] = field(default_factory=lambda: defaultdict(_Line))

    def take(self, spot: Spot, ask: Ask) -> Seat:
        """The answer to one that asks for a place."""
        line = self._lines[spot]
        ticket = line.waiting.get(ask.node) or ask.ticket or self._ticket(line)
        before = sum(other < ticket for other in line.waiting.values())
        if (ask.node, ask.token) in line.held:
            return Seat(True, ticket)
        line.woken.discard(ask.node)
        if before < spot.limit.n - len(line.held):
            line.held.add((ask.node, ask.token))
            line.waiting.pop(ask.node, None)
            return Seat(True, ticket)
        line.waiting.setdefault(ask.node, ticket)
        return Seat(False, ticket, before)

    def leave(self, spot: Spot, node: str, token: str) -> None:
        """Give a place back; who comes next is woken."""
        line = self._lines[spot]
        line.held.discard((node, token))
        free = spot.limit.n - len(line.held)
        for name in sorted(line.waiting, key=lambda one: line.waiting[one]):
            if free < 1:
                return
            if name not in line.woken and not self.wake(name):
                del line.waiting[name]
                continue
            line.woken.add(name)
            free -= 1

    def _ticket(self, line: _Line) -> int:
        return max(self.now(), *(ticket + 1 for ticket in line.waiting.values()), 1)
