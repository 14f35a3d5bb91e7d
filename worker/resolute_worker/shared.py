"""The page of memory that a supervisor shares with one process.

The supervisor writes its last acknowledged beat, the process its slots: for each node that it
runs, the deadline and which entry it is. Each side reads the other's part without asking, so that
neither needs the other's loop to be free. All times are CLOCK_MONOTONIC, which both share.

    0   f64  last acknowledged beat          (supervisor)
    8   f64  lease in seconds                (supervisor)
    16  u64  1 once registered and reading   (process)
    24  u64  1 once it reads no more         (process)
    64  slots of 256 bytes: f64 deadline (0: free), u16 partition, u8 length, u8 1 where the
        deadline is that of its next heartbeat, "queue id"
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
import time
from dataclasses import dataclass

HEADER = 64
SLOT = 256
_TEXT = SLOT - 12
_DOUBLE = struct.Struct("<d")
_FLAG = struct.Struct("<Q")
_SLOT = struct.Struct("<dHBB")
_PULSE = 11  # where a slot says whose deadline it is


@dataclass(frozen=True)
class Overdue:
    """A slot whose deadline is past: which entry of which stream it is."""

    partition: int
    queue: str
    entry: str
    is_silent: bool = False  # the deadline was that of a heartbeat


class SharedPage:
    """One process's page; made by the supervisor, opened by the process from a descriptor."""

    def __init__(self, descriptor: int, slots: int) -> None:
        self.descriptor = descriptor
        self.slots = slots
        self._memory = mmap.mmap(descriptor, HEADER + slots * SLOT)

    @classmethod
    def create(cls, slots: int, lease: float) -> SharedPage:
        """A new page, in memory that has no name."""
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, HEADER + slots * SLOT)
        page = cls(descriptor, slots)
        _DOUBLE.pack_into(page._memory, 8, lease)
        page.record_beat(time.monotonic())
        return page

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)

    def record_beat(self, at: float) -> None:
        """Remember when a beat that Redis acknowledged was sent."""
        _DOUBLE.pack_into(self._memory, 0, at)

    def beat_age(self) -> float:
        """Seconds since that beat."""
        return time.monotonic() - _DOUBLE.unpack_from(self._memory, 0)[0]

    @property
    def lease(self) -> float:
        return _DOUBLE.unpack_from(self._memory, 8)[0]

    @property
    def is_fenced(self) -> bool:
        """Whether so much of the lease is over that nothing may be begun or go on."""
        return self.beat_age() > self.lease * 2 / 3

    @property
    def is_registered(self) -> bool:
        return bool(_FLAG.unpack_from(self._memory, 16)[0])

    @is_registered.setter
    def is_registered(self, value: bool) -> None:
        _FLAG.pack_into(self._memory, 16, int(value))

    @property
    def is_drained(self) -> bool:
        return bool(_FLAG.unpack_from(self._memory, 24)[0])

    @is_drained.setter
    def is_drained(self, value: bool) -> None:
        _FLAG.pack_into(self._memory, 24, int(value))

    def occupy(self, slot: int, deadline: float, partition: int, label: bytes) -> None:
        """Say what runs in a slot and when it must be over. `label` is "queue id"."""
        at = HEADER + slot * SLOT
        label = label[:_TEXT]
        self._memory[at + 12 : at + 12 + len(label)] = label
        _SLOT.pack_into(self._memory, at, deadline, partition, len(label), 0)

    def extend(self, slot: int, deadline: float, *, is_pulse: bool) -> None:
        """Say of what runs in a slot when it must be over, or must have given a heartbeat."""
        at = HEADER + slot * SLOT
        self._memory[at + _PULSE] = int(is_pulse)
        _DOUBLE.pack_into(self._memory, at, deadline)

    def release(self, slot: int) -> None:
        _DOUBLE.pack_into(self._memory, HEADER + slot * SLOT, 0.0)

    @property
    def is_busy(self) -> bool:
        """Whether any node runs."""
        slots = range(HEADER, HEADER + self.slots * SLOT, SLOT)
        return any(_DOUBLE.unpack_from(self._memory, at)[0] for at in slots)

    def overdue(self, grace: float) -> list[Overdue]:
        """What runs longer than its deadline and `grace` seconds more."""
        latest = time.monotonic() - grace
        found: list[Overdue] = []
        for at in range(HEADER, HEADER + self.slots * SLOT, SLOT):
            deadline, partition, length, is_pulse = _SLOT.unpack_from(self._memory, at)
            if 0.0 < deadline < latest:
                text = str(self._memory[at + 12 : at + 12 + length], "utf-8")
                queue, _, entry = text.rpartition(" ")
                found.append(Overdue(partition, queue, entry, bool(is_pulse)))
        return found


def _anonymous_file() -> int:
    """A descriptor of memory where the system has that, else of a file without a name."""
    if sys.platform == "linux":
        return os.memfd_create("resolute-worker")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
