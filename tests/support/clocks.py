"""Clocks that stand still until they are told."""

from __future__ import annotations


class FakeClock:
    """Both clocks of a component; each look at the monotonic one moves it on by `tick` s."""

    def __init__(self, now: float = 1_000.0, tick: float = 0.0) -> None:
        self.now = now
        self.tick = tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now

    def wall(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
