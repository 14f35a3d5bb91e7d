"""Rate limits in memory: the arithmetic of `take_tokens.lua` and `push_back.lua` (GCRA)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from resolute.engine.admission import Bucket
from resolute.store.limits import HORIZON_US, Ask, Grant

LATE = 100_000  # µs after its time until which a reservation holds


@dataclass
class _State:
    """As in `lib_bucket.lua`; all in µs."""

    tat: int = 0
    line: int = 0
    opens: int = 0
    shift: int = 0


@dataclass
class MemoryBuckets:
    """All buckets of a tester; `now` is the virtual time in µs."""

    now: Callable[[], int]
    _states: dict[Bucket, _State] = field(default_factory=lambda: defaultdict(_State))

    def take(self, bucket: Bucket, ask: tuple[Ask, int, int]) -> Grant:
        """The answer to one ask: (what, time, shift), the last two of an earlier grant."""
        state, now = self._state(bucket), self.now()
        kind, time, shift = ask
        if kind is not Ask.NEW:
            time += state.shift - shift
        match kind:
            case Ask.GIVE_BACK:
                self._give_back(bucket, time)
                return Grant(True, 0, state.shift, now)
            case Ask.CONFIRM if now - time <= LATE:
                return Grant(True, max(time, state.opens), state.shift, now)
            case Ask.RETURNING if shift != state.shift and time > now:
                return Grant(False, time, state.shift, now)
            case _:
                return self._reserve(bucket, state, now, is_new=kind is Ask.NEW)

    def push_back(self, bucket: Bucket, pause: float) -> None:
        """Close a bucket for `pause` seconds; all times that it gave out move by as much."""
        state, now = self._state(bucket), self.now()
        opens = now + round(pause * 1_000_000)
        moved = max(0, opens - max(now, state.opens))
        if state.line > now:
            state.line += moved
        state.opens = max(state.opens, opens)
        limit, _ = bucket
        state.tat = max(state.tat + moved, state.opens + limit.interval_us * (limit.burst - 1))
        state.shift += moved

    def _reserve(self, bucket: Bucket, state: _State, now: int, *, is_new: bool) -> Grant:
        limit, _ = bucket
        tat = max(state.tat, now) + limit.interval_us
        start = max(now, tat - limit.interval_us * limit.burst)
        if start - now > HORIZON_US or (is_new and state.line > now):
            behind = state.line + limit.interval_us if state.line > now else now
            state.line = max(behind, start - HORIZON_US // 2)
            return Grant(False, state.line, state.shift, now)
        state.tat = tat
        return Grant(True, start, state.shift, now)

    def _give_back(self, bucket: Bucket, time: int) -> None:
        state, (limit, _) = self._state(bucket), bucket
        if time > self.now() and state.tat - limit.interval_us * limit.burst == time:
            state.tat -= limit.interval_us

    def _state(self, bucket: Bucket) -> _State:
        return self._states[bucket]
