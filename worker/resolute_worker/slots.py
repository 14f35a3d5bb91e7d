"""Slots: how many nodes a process holds at once, from their delivery to their commit."""

from __future__ import annotations

import asyncio


class Slots:
    """Numbers 0 to size-1, taken and released; `wait` returns when one is free."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = list(range(size))
        self._changed = asyncio.Event()

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self) -> int | None:
        """A free slot, or None."""
        return self._free.pop() if self._free else None

    def release(self, slot: int) -> None:
        self._free.append(slot)
        self._changed.set()

    async def wait(self, at_least: int = 1) -> int:
        """Wait until so many are free; how many are."""
        while len(self._free) < at_least:
            self._changed.clear()
            await self._changed.wait()
        return len(self._free)
