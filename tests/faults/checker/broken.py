"""What the checker says: which invariant does not hold, of which run, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """An invariant that does not hold."""

    invariant: str
    run: str
    why: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.run}: {self.why}"
