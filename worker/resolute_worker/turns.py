"""Whose turn it is: how the slots of a process are shared out while every priority waits.

Slots are given in turns of ten. The turn of a priority is offered to it first; what it does not
need goes to the others, the highest first. So of any ten slots that follow each other one is for
low nodes, as long as such wait, and three are for normal ones, however many high ones there are.
"""

from __future__ import annotations

from collections import Counter

from resolute.priority import Priority

H, N, L = Priority.HIGH, Priority.NORMAL, Priority.LOW
ROUND = (H, N, H, H, N, H, H, N, H, L)


class Turns:
    """Goes round and round."""

    def __init__(self) -> None:
        self._at = 0

    def take(self, slots: int) -> dict[Priority, int]:
        """Whose turns the next `slots` turns are, the highest priority first."""
        rounds, rest = divmod(slots, len(ROUND))
        following = Counter(ROUND[(self._at + i) % len(ROUND)] for i in range(rest))
        self._at = (self._at + rest) % len(ROUND)
        return {one: rounds * ROUND.count(one) + following[one] for one in Priority}
