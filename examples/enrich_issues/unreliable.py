"""What makes the three services real: they are slow, they fail, and they refuse too many calls.

All of it is reproducible. Which call of a path fails depends on the seed, the path and how often
it was called before; never on the time or on what other callers do.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from examples.enrich_issues.wire import ServiceStats

MOST_FAILURES_IN_A_ROW = 2
"""After this many 503s in a row, the next call of the same path succeeds."""

Clock = Callable[[], float]


class RateAllowed(msgspec.Struct, frozen=True):
    """A service admits `burst` calls at once and `per_second` of them in the long run."""

    per_second: float
    burst: int


class Conditions(msgspec.Struct, frozen=True):
    """How a service treats its callers; `latency` in seconds, `error_rate` from 0 to 1."""

    allowed: RateAllowed
    latency: float = 0.0
    error_rate: float = 0.0
    seed: int = 0


class TokenBucket:
    """Admits calls at a rate; starts full."""

    def __init__(self, allowed: RateAllowed, clock: Clock) -> None:
        self._allowed = allowed
        self._clock = clock
        self._tokens = float(allowed.burst)
        self._filled_at = clock()

    def take(self) -> float:
        """Take a token: 0.0 if there was one, else the seconds until there will be."""
        now = self._clock()
        refill = (now - self._filled_at) * self._allowed.per_second
        self._tokens = min(self._allowed.burst, self._tokens + refill)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._allowed.per_second
        self._tokens -= 1
        return 0.0


class Faults:
    """Decides which calls fail."""

    def __init__(self, seed: int, error_rate: float) -> None:
        self._seed = seed
        self._error_rate = error_rate
        self._calls: defaultdict[str, int] = defaultdict(int)
        self._in_a_row: defaultdict[str, int] = defaultdict(int)

    def strikes(self, call: str) -> bool:
        """Whether this call fails. Calls with equal names are counted together."""
        nth = self._calls[call]
        self._calls[call] += 1
        unlucky = _fraction(f"fault:{self._seed}:{call}:{nth}") < self._error_rate
        if unlucky and self._in_a_row[call] < MOST_FAILURES_IN_A_ROW:
            self._in_a_row[call] += 1
            return True
        self._in_a_row[call] = 0
        return False


class Peak:
    """The most calls that any one second has seen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_second: deque[float] = deque()
        self.most = 0

    def count(self) -> None:
        now = self._clock()
        self._last_second.append(now)
        while self._last_second[0] <= now - 1.0:
            self._last_second.popleft()
        self.most = max(self.most, len(self._last_second))


class Gatekeeper:
    """Stands before the endpoints of one service: admits, delays or refuses, and counts."""

    def __init__(self, conditions: Conditions, clock: Clock = time.monotonic) -> None:
        self._conditions = conditions
        self._clock = clock
        self._bucket = TokenBucket(conditions.allowed, clock)
        self._faults = Faults(conditions.seed, conditions.error_rate)
        self._reset_counters()

    async def admit(self, request: Request) -> Response | None:
        """None once the call may be answered, else the refusal to send instead.

        A call refused with 429 is not counted among those of its path: how many there are depends
        on the time, and the 503s must not.
        """
        self._calls += 1
        self._peak.count()
        wait = self._bucket.take()
        if wait > 0:
            self._http_429 += 1
            return _refusal(429, "too many requests", {"Retry-After": str(math.ceil(wait))})

        body = (await request.body()).decode(errors="replace")
        call = f"{request.method} {request.url.path} {body}"
        unavailable = self._faults.strikes(call)
        if self._conditions.latency > 0:
            await asyncio.sleep(self._conditions.latency * (0.5 + _fraction(f"latency:{call}")))
        if unavailable:
            self._http_503 += 1
            return _refusal(503, "service unavailable", {})
        return None

    def stats(self) -> ServiceStats:
        return ServiceStats(
            calls=self._calls,
            http_503=self._http_503,
            http_429=self._http_429,
            peak=self._peak.most,
            per_second=self._conditions.allowed.per_second,
            burst=self._conditions.allowed.burst,
        )

    def take_stats(self) -> ServiceStats:
        """The stats so far; they begin anew."""
        stats = self.stats()
        self._reset_counters()
        return stats

    def _reset_counters(self) -> None:
        self._calls = self._http_503 = self._http_429 = 0
        self._peak = Peak(self._clock)


def _fraction(name: str) -> float:
    """A number from 0 to 1 that looks random and is always the same for the same name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _refusal(status: int, error: str, headers: dict[str, str]) -> Response:
    return Response(
        msgspec.json.encode({"error": error}),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )
