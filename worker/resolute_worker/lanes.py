"""The order in which the lanes of a queue are read: high nodes first, and none starves.

A read of several streams can only be told how many entries it may bring of each. So as long as
there is nothing but normal nodes one read asks for all streams, as if there were no priorities, and
wakes for each of them. When others are there too, and more wait than there are slots, each lane is
asked by itself for its share (`turns.py`); else what one read brings too much would have to be
handed back, to the end of its lane.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from resolute.priority import Priority, priority_of
from resolute.store.keys import Partition
from resolute.store.reading import Found, GroupReader
from resolute_worker.turns import ROUND, Turns

ORDER = {priority: at for at, priority in enumerate(Priority)}
BLOCK_MS = 5_000
REMEMBERED = 500  # slots, for which lanes are asked by themselves after one but the normal had some


class Lanes:
    """Reads the streams that were added, for as many nodes as there are free slots.

    `deliver` is called with what each read brings, before there is another one: so a read that
    fails loses nothing that one before it found.
    """

    def __init__(self, source: GroupReader, deliver: Callable[[Found], None]) -> None:
        self._source = source
        self._deliver = deliver
        self._turns = Turns()
        self._streams: dict[str, tuple[Priority, int]] = {}  # the partition's number beside it
        self._parts: dict[Priority, dict[int, list[str]]] = {one: {} for one in Priority}
        self._next: dict[Priority, deque[int]] = {one: deque() for one in Priority}
        self._all: dict[int, list[str]] = {}
        self._turn = 0
        self._used: set[str] = set()
        # A new process may find any number of nodes in every lane, so it begins by asking each.
        self._remembered = len(ROUND)
        self._is_crowded = True

    def add(self, partition: Partition, name: str) -> str:
        """Read the stream of that name too; its key."""
        stream, priority, number = partition.queue(name), priority_of(name), partition.number
        self._streams[stream] = priority, number
        self._parts[priority].setdefault(number, []).append(stream)
        self._all.setdefault(number, []).append(stream)
        if number not in self._next[priority]:
            self._next[priority].append(number)
        return stream

    @property
    def used(self) -> list[str]:
        """The streams that can have something pending here: no other has ever brought anything."""
        return [
            stream
            for stream, (priority, _) in self._streams.items()
            if priority is Priority.NORMAL or stream in self._used
        ]

    async def read(self, free: int) -> None:
        """Deliver new entries for `free` slots; where there are none, wait for some."""
        by_turn, seen = self._is_crowded, 0
        self._remembered -= free
        if by_turn:
            seen = await self._read_by_turn(free)
        if not seen:
            seen = await self._read_all(free)
        # What left no slot free was perhaps not all. What did not has emptied every lane.
        self._is_crowded = seen >= free and self._remembered > 0

    async def _read_by_turn(self, free: int) -> int:
        """Each lane's share, then what others left of theirs; how many entries there were."""
        shares = self._turns.take(free)
        empty: set[Priority] = set()
        spare = free
        for priority, share in shares.items():
            spare -= await self._read_lane(priority, share, empty)
        for priority in Priority:
            if spare > 0 and priority not in empty:
                spare -= await self._read_lane(priority, spare, empty)
        return free - spare

    async def _read_lane(self, priority: Priority, count: int, empty: set[Priority]) -> int:
        """At most `count` entries of one lane, from all partitions alike; how many there were."""
        order = self._next[priority]
        waiting = set(order)
        left = count
        while left > 0 and waiting:
            asked = [number for number in order if number in waiting][:left]
            each = left // len(asked)
            for number in asked:  # they are the last ones next time
                order.remove(number)
                order.append(number)
            streams = [stream for number in asked for stream in self._parts[priority][number]]
            found = await self._take(streams, each, None)
            left -= sum(found.values())
            waiting -= {number for number in asked if found[number] < each}
        if not waiting:
            empty.add(priority)
        return count - left

    async def _read_all(self, free: int) -> int:
        """Entries of any lane. COUNT is per stream, so it is shared out by partitions."""
        groups = len(self._all)
        if free < groups:
            # Fewer slots than partitions: they take turns, and only if all are empty we block.
            for _ in range(math.ceil(groups / free)):
                found = await self._take(self._next_turn(free), 1, None)
                if found:
                    return sum(found.values())
        found = await self._take(list(self._streams), max(1, free // groups), BLOCK_MS)
        return sum(found.values())

    def _next_turn(self, size: int) -> list[str]:
        """The streams of the next `size` partitions, round and round."""
        numbers = {(self._turn + i) % len(self._all) for i in range(size)}
        self._turn += size
        return [stream for stream, (_, number) in self._streams.items() if number in numbers]

    async def _take(
        self, streams: Sequence[str], count: int, block_ms: int | None
    ) -> Mapping[int, int]:
        """Read and deliver; how many entries there were, by the number of their partition."""
        found = await self._source.read(streams, count, block_ms)
        seen: dict[int, int] = defaultdict(int)
        for stream, messages in found.items():
            priority, number = self._streams[stream]
            seen[number] += len(messages)
            if priority is not Priority.NORMAL:
                self._used.add(stream)
                self._remembered = REMEMBERED
        if found:  # a high node gets the slot, where one read brought more than there are
            first = sorted(found, key=lambda stream: ORDER[self._streams[stream][0]])
            self._deliver({stream: found[stream] for stream in first})
        return seen
