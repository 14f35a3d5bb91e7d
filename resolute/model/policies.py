"""How often, how fast, how long: the policies a node carries."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from resolute.durations import Duration, milliseconds
from resolute.ids import check_name
from resolute.model.functions import check_count, check_number, check_plain


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed attempt is followed by another.

    The n-th retry waits `initial_interval` × `backoff_coefficient`^(n-1), at most
    `maximum_interval`, each ± `jitter` (a fraction). `max_attempts` counts the first attempt too.
    An exception of a type in `non_retryable` is final at once.
    """

    initial_interval: Duration = "1s"
    backoff_coefficient: float = 2.0
    maximum_interval: Duration = "1m"
    max_attempts: int = 3
    jitter: float = 0.1
    non_retryable: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        check_number("backoff_coefficient", self.backoff_coefficient)
        check_number("jitter", self.jitter)
        check_count("max_attempts", self.max_attempts)
        _check_errors(self.non_retryable)
        if milliseconds(self.initial_interval) > milliseconds(self.maximum_interval):
            raise ValueError(
                f"retry: expected a maximum_interval of at least the initial_interval"
                f" {self.initial_interval!r}, got {self.maximum_interval!r}"
            )
        if self.backoff_coefficient < 1:
            raise ValueError(
                f"backoff_coefficient: expected 1 or more, got {self.backoff_coefficient}"
            )
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter: expected a fraction from 0 to 1, got {self.jitter}")


def _check_errors(given: object) -> None:
    types = cast("tuple[object, ...]", given) if isinstance(given, tuple) else None
    if types is None or not all(
        isinstance(one, type) and issubclass(one, BaseException) for one in types
    ):
        raise TypeError(
            "non_retryable: expected a tuple of exception types such as (ValueError,), got"
            f" {given!r}"
        )


LONGEST_RETENTION = 36_500 * 86_400_000  # ms


@dataclass(frozen=True)
class RetentionPolicy:
    """How long a flow's ended runs are kept: for `after`, and no more than `keep_last` of them.

    What is None is as the coordinators have it: their time, and however many.
    """

    after: Duration | None = None
    keep_last: int | None = None

    def __post_init__(self) -> None:
        if self.after is None and self.keep_last is None:
            raise ValueError("retention: expected a duration, keep_last, or both")
        if self.after is not None and not 0 < self.after_ms() <= LONGEST_RETENTION:
            raise ValueError(
                f"retention: expected a duration above 0 and up to 36500d, got {self.after!r}"
            )
        if self.keep_last is not None and (
            not isinstance(self.keep_last, int) or self.keep_last < 1  # pyright: ignore[reportUnnecessaryIsInstance]
        ):
            raise ValueError(
                f"retention: expected a keep_last of 1 or more, got {self.keep_last!r}"
            )

    def after_ms(self) -> int:
        """The time in milliseconds; 0 where it is not set."""
        try:
            return milliseconds(self.after) if self.after is not None else 0
        except (TypeError, ValueError) as error:
            raise ValueError(f"retention: {error}") from None


MOST_PLACES = 10_000  # of a concurrency limit

_RATE = re.compile(r"\s*(\d+)\s*/\s*(\S+)\s*")


@dataclass(frozen=True)
class RateLimit:
    """At most `n` starts per `per`, counted over all processes: a token bucket.

    The bucket holds `burst` tokens (default `n`) and starts full, so a window of `per` can see up
    to 2n starts; `strict` trades the burst away so that no window sees more than n.
    `key` splits the bucket by a text computed from the node's input.
    """

    n: int
    per: Duration = "1s"
    burst: int | None = None
    strict: bool = False
    key: Callable[[Any], str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_count("rate limit: starts", self.n)
        if milliseconds(self.per) < 1:
            raise ValueError(f"rate limit: expected a period above 0, got {self.per!r}")
        if self.burst is not None:
            check_count("rate limit: burst", self.burst)
        if self.strict and self.burst is not None and self.burst > self.n:
            raise ValueError(
                f"strict rate limit: expected a burst of at most {self.n}, got {self.burst}"
            )
        if self.key is not None:
            check_plain("rate limit: key", self.key)

    @classmethod
    def parse(cls, text: str) -> RateLimit:
        """``"50/1m"``, ``"1000/1h"``, ``"10/s"``. Raises ValueError."""
        match = _RATE.fullmatch(text)
        if not match:
            raise ValueError(f'rate limit: expected "N/PERIOD" such as "50/1m", got {text!r}')
        period = match[2]
        return cls(int(match[1]), period if period[0].isdigit() else f"1{period}")


@dataclass(frozen=True)
class SharedRateLimit:
    """One rate limit for every node, flow and process of the namespace that names it."""

    name: str
    n: int
    per: Duration = "1s"
    burst: int | None = None
    strict: bool = False
    key: Callable[[Any], str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_name("shared rate limit", self.name)
        self.rate()

    def rate(self) -> RateLimit:
        """The limit without its name."""
        return RateLimit(self.n, self.per, self.burst, self.strict, self.key)


Limit = RateLimit | SharedRateLimit
Limits = str | Limit | tuple[Limit, ...] | None


@dataclass(frozen=True)
class ConcurrencyLimit:
    """At most `n` executions at one time of all nodes of the namespace that name this limit.

    They are counted over all flows, processes and machines. Who waits is served in the order of
    asking, and holds no slot meanwhile. `key` splits the limit by a text computed from the node's
    input: `n` for each of them.
    """

    name: str
    n: int
    key: Callable[[Any], str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_name("concurrency limit", self.name)
        # A caller without a type checker gives what it likes.
        is_number = isinstance(self.n, int)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not is_number or isinstance(self.n, bool) or not 1 <= self.n <= MOST_PLACES:
            raise ValueError(
                f"concurrency limit {self.name!r}: expected 1 to {MOST_PLACES:,} executions, got"
                f" {self.n!r}"
            )
        if self.key is not None:
            check_plain(f"concurrency limit {self.name!r}: key", self.key)


ConcurrencyLimits = ConcurrencyLimit | tuple[ConcurrencyLimit, ...] | None


def as_concurrency(value: ConcurrencyLimits) -> tuple[ConcurrencyLimit, ...]:
    """What was given as ``concurrency=``, as a tuple. Raises TypeError, ValueError."""
    limits = value if isinstance(value, tuple) else () if value is None else (value,)
    for limit in limits:
        # As above: a number alone would say nothing of whom it is shared with.
        if not isinstance(limit, ConcurrencyLimit):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"concurrency: expected ConcurrencyLimit(name, n), got {limit!r}")
    names = [limit.name for limit in limits]
    if len(set(names)) < len(names):
        raise ValueError(f"concurrency: one limit is there twice, got {names}")
    return limits


def as_limits(value: Limits) -> tuple[Limit, ...]:
    """What was given as ``rate_limit=``, as a tuple. Raises TypeError, ValueError."""
    limits = value if isinstance(value, tuple) else () if value is None else (value,)
    return tuple(_as_limit(limit) for limit in limits)


def _as_limit(limit: object) -> Limit:
    match limit:
        case str():
            return RateLimit.parse(limit)
        case RateLimit() | SharedRateLimit():
            return limit
        case _:
            raise TypeError(
                f'rate_limit: expected "50/1m", a RateLimit or a SharedRateLimit, got {limit!r}'
            )
