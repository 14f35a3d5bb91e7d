"""The order in which lanes are read: shares, no starvation, no more than there are slots."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from resolute.priority import Priority, lane_of, lanes_of, priority_of
from resolute.store.keys import Keys
from resolute.store.reading import Found
from resolute.store.streams import Message
from resolute_worker.lanes import REMEMBERED, Lanes
from resolute_worker.turns import ROUND, Turns

HIGH, NORMAL, LOW = Priority
ENDLESS = 10_000


@given(st.lists(st.integers(0, 250)))
def test_of_any_ten_turns_that_follow_each_other_each_priority_has_its_share(sizes: list[int]):
    turns = Turns()
    had: Counter[Priority] = Counter()
    for size in sizes:
        taken = turns.take(size)
        assert sum(taken.values()) == size
        had.update(taken)
    rounds, rest = divmod(sum(sizes), 10)
    for priority, share in ((HIGH, 6), (NORMAL, 3), (LOW, 1)):
        assert had[priority] == rounds * share + ROUND[:rest].count(priority)


class Streams:
    """Stands for the reader of a group: streams in memory, and what was read of them."""

    def __init__(self, partitions: int, *, waiting: dict[Priority, int]) -> None:
        self.keys = Keys("ns", partitions)
        self.left: dict[str, int] = {}  # by stream, and how many were taken of it:
        self.gone: Counter[str] = Counter()
        self.taken: list[tuple[Priority, str]] = []
        self.reads = 0
        self.lanes = Lanes(cast("Any", self), self._deliver)
        for lane in lanes_of("q"):
            for partition in self.keys.partitions:
                stream = self.lanes.add(partition, lane)
                self.left[stream] = waiting.get(priority_of(lane), 0)

    async def read(self, streams: Sequence[str], count: int, block_ms: int | None) -> Found:
        del block_ms
        self.reads += 1
        found: Found = {}
        for stream in streams:
            first, size = self.gone[stream], min(count, self.left[stream])
            if size:
                found[stream] = [Message(f"{first + n}-0", b"") for n in range(size)]
                self.left[stream] -= size
                self.gone[stream] += size
        return found

    def _deliver(self, found: Found) -> None:
        for stream, messages in found.items():
            priority = priority_of(self.keys.partitions[0].queue_of(stream))
            self.taken += [(priority, f"{stream} {message.id}") for message in messages]

    def take(self, *sizes: int) -> Counter[Priority]:
        """Read for so many free slots, one time after the other; how many of each came."""
        before = len(self.taken)
        for size in sizes:
            asyncio.run(self.lanes.read(size))
        return Counter(priority for priority, _ in self.taken[before:])

    def put(self, priority: Priority, number: int = 0, count: int = 1) -> None:
        self.left[self.keys.partitions[number].queue(lane_of("q", priority))] += count


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=60)
EVERYTHING = {HIGH: ENDLESS, NORMAL: ENDLESS, LOW: ENDLESS}


@given(SIZES, st.integers(1, 5))
def test_while_all_wait_none_has_less_than_its_share(sizes: list[int], partitions: int):
    streams = Streams(partitions, waiting=EVERYTHING)
    had: Counter[Priority] = Counter()
    slots = 0
    for size in sizes:
        had += streams.take(size)
        slots += size
        assert had.total() == slots  # never more than there are free, and none is left free
        assert had[LOW] >= slots // 10
        assert had[NORMAL] >= 3 * (slots // 10)
        assert had[HIGH] >= 6 * (slots // 10)


@given(SIZES, st.integers(1, 5), st.sampled_from([HIGH, NORMAL]))
def test_low_nodes_in_one_partition_alone_have_their_share_too(
    sizes: list[int], partitions: int, flood: Priority
):
    streams = Streams(partitions, waiting={flood: ENDLESS})
    streams.put(LOW, partitions - 1, ENDLESS)
    had = streams.take(*sizes)
    assert had[LOW] >= sum(sizes) // 10
    assert had.total() == sum(sizes)


@given(SIZES, st.integers(1, 5))
def test_nodes_of_one_lane_and_partition_are_taken_in_their_order(
    sizes: list[int], partitions: int
):
    streams = Streams(partitions, waiting=EVERYTHING)
    streams.take(*sizes)
    last: dict[str, int] = {}
    for _, entry in streams.taken:
        stream, _, name = entry.partition(" ")
        number = int(name.removesuffix("-0"))
        assert number == last.get(stream, -1) + 1
        last[stream] = number


@given(st.integers(1, 40), st.integers(1, 5))
def test_what_one_priority_does_not_need_the_others_have(size: int, partitions: int):
    streams = Streams(partitions, waiting={LOW: ENDLESS, NORMAL: 3})
    had = streams.take(size, size, size)
    assert had.total() == 3 * size
    assert had[NORMAL] <= 3 * partitions


def test_of_what_others_leave_the_highest_has_most():
    streams = Streams(1, waiting={NORMAL: ENDLESS, LOW: ENDLESS})
    assert streams.take(10, *[1] * 10) == {NORMAL: 18, LOW: 2}


def test_with_nothing_but_normal_nodes_there_is_one_read_as_if_there_were_no_lanes():
    streams = Streams(1, waiting={NORMAL: ENDLESS})
    streams.take(10)  # a new process asks each lane
    streams.reads = 0
    for _ in range(20):
        streams.take(5)
    assert streams.reads == 20


def test_a_high_node_that_comes_alone_costs_a_read_more_for_a_while():
    streams = Streams(1, waiting={NORMAL: ENDLESS})
    streams.take(10)
    streams.put(HIGH)
    assert streams.take(5)[HIGH] == 1
    streams.take(*[5] * (REMEMBERED // 5))
    streams.reads = 0
    streams.take(5, 5, 5)
    assert streams.reads == 3


def test_where_one_read_brings_too_much_the_high_nodes_are_delivered_first():
    streams = Streams(1, waiting={NORMAL: ENDLESS})
    streams.take(10)
    for priority in (LOW, HIGH):
        streams.put(priority)
    streams.take(1)
    assert [priority for priority, _ in streams.taken[10:]] == [HIGH, NORMAL, LOW]


def test_lanes_that_were_never_seen_are_not_looked_at_for_what_is_pending():
    streams = Streams(2, waiting={NORMAL: ENDLESS})
    streams.take(4, 4)
    assert len(streams.lanes.used) == 2
    streams.put(LOW, 1)
    streams.take(4)
    assert len(streams.lanes.used) == 3
