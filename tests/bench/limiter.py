"""Whether starts kept to a limit: in every window w, at most burst + rate × (w + 100 ms)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SLACK = 0.1  # s


@dataclass(frozen=True)
class Verdict:
    """`worst_excess` is how many starts the worst window had above the bound (negative: below).

    `used` is the fraction of the refill that was used once the burst was gone.
    """

    starts: int
    worst_excess: float
    used: float


def read_starts(folder: Path) -> list[float]:
    """The start times that every process wrote down, sorted."""
    lines = (line for path in folder.glob("*.starts") for line in path.read_text().split())
    return sorted(map(float, lines))


def judge(starts: Sequence[float], rate: float, burst: float, seconds: float) -> Verdict:
    """Judge sorted start times (s) of a limiter that was saturated for `seconds`.

    A window from start i to start j holds j - i + 1 starts; the worst is found in one pass, since
    the bound is linear in the window: the excess is (j - rate × t_j) - (i - rate × t_i) + 1 - ….
    """
    worst = float("-inf")
    lowest = float("inf")
    for number, at in enumerate(starts):
        level = number - rate * at
        lowest = min(lowest, level)
        worst = max(worst, level - lowest + 1 - burst - rate * SLACK)
    first = starts[0] if starts else 0.0
    counted = sum(1 for at in starts if at - first <= seconds)
    return Verdict(len(starts), worst, max(0.0, counted - burst) / (rate * seconds))
