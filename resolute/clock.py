"""Two clocks with two names, injected so that tests can hold them still.

`monotonic` measures spans inside one process. `wall` is for people to read. Neither decides
anything between processes: there, only the time of Redis counts.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a component needs to know of time, in seconds."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
