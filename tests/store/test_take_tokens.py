"""Token buckets: never more than burst + refill, first come first served, and nothing wasted."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolute.model.node_plans import limit_plan
from resolute.model.plan import LimitPlan
from resolute.model.policies import RateLimit
from resolute.store import limits
from resolute.store.limits import HORIZON_US, IDLE_TTL_MS, Ask, Grant
from resolute.store.store import Store
from tests.conftest import Run
from tests.support.examples import examples

SECOND = 1_000_000
pytestmark = pytest.mark.parametrize("partitions", [1], indirect=True)

LIMIT = LimitPlan("api", interval_us=SECOND, burst=3)  # 3 at once, then one each second
SLOW = LimitPlan("slow", interval_us=4 * SECOND, burst=1)
NEW = (Ask.NEW, 0, 0)


async def take(store: Store, count: int = 1, limit: LimitPlan = LIMIT) -> list[Grant]:
    """Ask for so many newcomers at once."""
    return await limits.take(store, limit, "", [NEW] * count)


async def shift(store: Store, by: int, limit: LimitPlan = LIMIT) -> None:
    """Let Redis's clock go back by so many µs, as the bucket sees it; or on, if below 0."""
    key = store.keys.meta.bucket(limit.bucket)
    names = ("tat", "line", "opens", "seen")
    for name, value in zip(names, await store.execute("HMGET", key, *names), strict=True):
        await store.execute("HSET", key, name, int(value) + by)


def waits(grants: list[Grant]) -> list[float]:
    """How far off each granted start is, in seconds to the nearest tenth."""
    return [round((grant.time - grant.now) / SECOND, 1) for grant in grants]


async def test_a_full_bucket_starts_its_burst_at_once_and_then_one_an_interval(store: Store):
    grants = await take(store, 7)
    assert all(grant.granted for grant in grants)
    assert waits(grants) == [0, 0, 0, 1, 2, 3, 4]


async def test_a_start_is_reserved_no_further_ahead_than_the_horizon(store: Store):
    grants = await take(store, 30)
    granted = [grant for grant in grants if grant.granted]
    assert waits(granted)[-1] == HORIZON_US / SECOND
    assert len(granted) == 3 + HORIZON_US / SECOND


async def test_who_must_come_back_is_told_when_in_the_order_of_asking(store: Store):
    grants = await take(store, 30)
    later = [grant.time for grant in grants if not grant.granted]
    assert len(later) == 17
    assert later == sorted(later)
    gaps = {after - before for before, after in itertools.pairwise(later)}
    assert gaps == {SECOND}
    # They come half a horizon before their turn, so that it can be reserved then.
    assert grants[-1].now + HORIZON_US / 2 <= later[0] <= grants[-1].now + HORIZON_US


async def test_a_newcomer_goes_behind_those_who_wait(store: Store):
    first = await take(store, 30)
    (late,) = await take(store)
    assert not late.granted
    assert late.time > max(grant.time for grant in first)


async def test_who_comes_back_from_the_line_is_served_before_newcomers(store: Store):
    await take(store, 20)
    await shift(store, -6 * SECOND)
    back, new = await limits.take(store, LIMIT, "", [(Ask.RETURNING, 0, 0), NEW])
    assert (back.granted, new.granted) == (True, False)


async def test_a_reservation_is_confirmed_as_it_was_made(store: Store):
    grant = (await take(store, 6))[-1]
    ask = (Ask.CONFIRM, grant.time, grant.shift)
    before = await tat(store)
    (confirmed,) = await limits.take(store, LIMIT, "", [ask])
    assert (confirmed.granted, confirmed.time) == (True, grant.time)
    assert await tat(store) == before


async def tat(store: Store, limit: LimitPlan = LIMIT) -> int:
    return int(await store.execute("HGET", store.keys.meta.bucket(limit.bucket), "tat"))


async def test_a_reservation_from_too_long_ago_is_made_anew(store: Store):
    (grant, *_) = await take(store, 3)
    before = await tat(store)
    late = (Ask.CONFIRM, grant.time - 200_000, grant.shift)
    (again,) = await limits.take(store, LIMIT, "", [late])
    assert again.time > grant.time
    assert await tat(store) == before + SECOND


async def test_a_reservation_made_before_a_push_back_is_moved_by_it(store: Store):
    grant = (await take(store, 5))[-1]
    await limits.push_back(store, LIMIT, "", 3.0)
    (again,) = await limits.take(store, LIMIT, "", [(Ask.CONFIRM, grant.time, grant.shift)])
    assert again.granted
    assert again.time == grant.time + 3 * SECOND


async def test_a_node_that_is_told_twice_at_once_waits_once(store: Store):
    grant = (await take(store, 5))[-1]
    for _ in range(5):
        await limits.push_back(store, LIMIT, "", 3.0)
    (again,) = await limits.take(store, LIMIT, "", [(Ask.CONFIRM, grant.time, grant.shift)])
    assert again.time - grant.time < 3.5 * SECOND


async def test_after_a_push_back_nobody_starts_before_its_end_and_then_one_an_interval(
    store: Store,
):
    await limits.push_back(store, LIMIT, "", 3.0)
    assert waits(await take(store, 3)) == [3, 4, 5]


async def test_a_push_back_sends_newcomers_away_until_its_end(store: Store):
    await limits.push_back(store, LIMIT, "", 3.0)
    (grant,) = await take(store)
    assert grant.time >= grant.now + 2.9 * SECOND


async def test_a_push_back_does_not_let_newcomers_overtake_a_longer_line(store: Store):
    first = await take(store, 30)
    await limits.push_back(store, LIMIT, "", 0.0)
    (late,) = await take(store)
    assert late.time > max(grant.time for grant in first)


async def test_a_shorter_push_back_does_not_open_what_a_longer_one_closed(store: Store):
    await limits.push_back(store, LIMIT, "", 8.0)
    await limits.push_back(store, LIMIT, "", 1.0)
    (grant,) = await limits.take(store, LIMIT, "", [(Ask.RETURNING, 0, 2)])
    assert waits([grant]) == [8]


async def test_the_last_reservation_can_be_given_back(store: Store):
    grant = (await take(store, 5))[-1]
    before = await tat(store)
    await limits.take(store, LIMIT, "", [(Ask.GIVE_BACK, grant.time, grant.shift)])
    assert await tat(store) == before - SECOND
    assert waits(await take(store)) == [2]


async def test_an_earlier_reservation_cannot_be_given_back(store: Store):
    """Somebody reserved after it: those behind it keep their times, so nothing is won."""
    *_, earlier, _last = await take(store, 6)
    before = await tat(store)
    await limits.take(store, LIMIT, "", [(Ask.GIVE_BACK, earlier.time, earlier.shift)])
    assert await tat(store) == before


async def test_a_start_that_may_have_been_used_cannot_be_given_back(store: Store):
    (grant,) = await take(store)
    before = await tat(store)
    await limits.take(store, LIMIT, "", [(Ask.GIVE_BACK, grant.time, grant.shift)])
    assert await tat(store) == before


async def test_giving_back_twice_is_giving_back_once(store: Store):
    grant = (await take(store, 5))[-1]
    ask = (Ask.GIVE_BACK, grant.time, grant.shift)
    await limits.take(store, LIMIT, "", [ask])
    before = await tat(store)
    await limits.take(store, LIMIT, "", [ask])
    assert await tat(store) == before


@pytest.mark.parametrize("hours", [1, 24])
async def test_a_clock_that_goes_back_does_not_close_the_bucket(store: Store, hours: int):
    await take(store, 5)
    await shift(store, hours * 3600 * SECOND)
    grants = await limits.take(store, LIMIT, "", [NEW, NEW])
    assert waits(grants) == [3, 4]


async def test_a_push_back_after_the_clock_went_back_does_not_close_the_bucket(store: Store):
    await take(store, 5)
    await shift(store, 3600 * SECOND)
    await limits.push_back(store, LIMIT, "", 2.0)
    (grant,) = await limits.take(store, LIMIT, "", [(Ask.RETURNING, 0, 1)])
    # Five were taken, so the next is three seconds off, and two for the push-back.
    assert waits([grant]) == [5]


async def test_a_clock_that_goes_back_gives_no_burst_away(store: Store):
    await take(store, 3)
    await shift(store, 3600 * SECOND)
    assert waits(await take(store, 2)) == [1, 2]


async def test_a_bucket_is_forgotten_when_it_has_long_been_full_and_not_before(store: Store):
    await take(store, 6)
    key = store.keys.meta.bucket("api")
    left = await store.execute("PTTL", key)
    assert IDLE_TTL_MS <= left <= IDLE_TTL_MS + 6_000 + 10
    await limits.push_back(store, LIMIT, "", 100.0)
    assert await store.execute("PTTL", key) > 100_000 + IDLE_TTL_MS


async def test_a_line_that_is_longer_than_the_idle_time_is_not_forgotten(store: Store):
    grants = await take(store, 200)
    left = await store.execute("PTTL", store.keys.meta.bucket("api"))
    assert left >= (grants[-1].time - grants[-1].now) / 1000


async def test_buckets_of_different_keys_have_nothing_to_do_with_each_other(store: Store):
    for tenant in ("a", "b", "{c}:é"):
        (grant,) = await limits.take(store, SLOW, tenant, [NEW])
        assert waits([grant]) == [0]
    (grant,) = await limits.take(store, SLOW, "a", [NEW])
    assert waits([grant]) == [4]


# The bound.


class Crowd:
    """Nodes that ask, wait, come back, confirm and start.

    No time is waited for: what passes is taken off the bucket instead, which is the same to it.
    All times are µs since the beginning.
    """

    def __init__(self, store: Store, limit: LimitPlan, rng: random.Random, late: int) -> None:
        self.store, self.limit, self.rng, self.late = store, limit, rng, late
        self.base = 0  # the beginning by the server's clock
        self.passed = 0
        self.now = 0
        self.line: list[tuple[int, int, tuple[Ask, int, int]]] = []  # due, number, what to ask
        self.starts: list[tuple[int, int]] = []  # time, number
        self.numbers = itertools.count()

    async def arrive(self, count: int) -> None:
        """So many nodes ask for the first time."""
        await self.ask([(next(self.numbers), NEW) for _ in range(count)])

    async def ask(self, asks: list[tuple[int, tuple[Ask, int, int]]]) -> None:
        sent = [(k, t + self.base - self.passed if t else 0, moved) for _, (k, t, moved) in asks]
        grants = await limits.take(self.store, self.limit, "", sent)
        self.base = self.base or grants[0].now
        self.now = grants[0].now - self.base + self.passed
        for (number, (kind, reserved, _)), grant in zip(asks, grants, strict=True):
            time = grant.time - self.base + self.passed
            if not grant.granted:
                bisect.insort(self.line, (time, number, (Ask.RETURNING, time, grant.shift)))
            elif time - self.now <= 50_000:
                # A start more than 100 ms after its time is given up.
                late = self.now - reserved if kind is Ask.CONFIRM else 0
                slack = 100_000 - late if 0 < late <= 100_000 else 100_000
                self.starts.append((time + self.lateness(slack), number))
            else:
                ask = (Ask.CONFIRM, time, grant.shift)
                bisect.insort(self.line, (time - 50_000, number, ask))

    def lateness(self, most: int) -> int:
        return self.rng.randrange(most + 1) if self.late else 0

    async def pass_time(self, span: int) -> None:
        """Let time pass. Who is due comes back, some of them late."""
        end = self.now + span
        while self.line and self.line[0][0] <= end:
            await self.move(max(self.now, self.line[0][0]) + self.lateness(self.late))
            due: list[tuple[int, tuple[Ask, int, int]]] = []
            while self.line and self.line[0][0] <= self.now and len(due) < 50:
                _, number, ask = self.line.pop(0)
                due.append((number, ask))
            await self.ask(due)
        await self.move(end)

    async def move(self, to: int) -> None:
        if to > self.now:
            await shift(self.store, self.now - to, self.limit)
            self.passed += to - self.now
            self.now = to

    async def push_back(self, pause: float) -> None:
        await limits.push_back(self.store, self.limit, "", pause)

    def most_over(self, bound: Callable[[int], float]) -> float:
        """By how much the starts of the worst window exceed what `bound(its length)` allows."""
        times = sorted(time for time, _ in self.starts)
        windows = itertools.combinations_with_replacement(range(len(times)), 2)
        return max((j - i + 1 - bound(times[j] - times[i]) for i, j in windows), default=0.0)


def allowed(limit: LimitPlan) -> Callable[[int], float]:
    """burst + refill × (w + 100 ms)"""
    return lambda window: limit.burst + (window + 100_000) / limit.interval_us


rates = st.sampled_from(
    [
        LimitPlan("l", interval_us=SECOND, burst=1),
        LimitPlan("l", interval_us=SECOND, burst=10),
        LimitPlan("l", interval_us=20_000, burst=5),
        LimitPlan("l", interval_us=333_333, burst=3),
        limit_plan("f", "n", RateLimit(50, "1m")),
        limit_plan("f", "n", RateLimit(1000, "1h")),
    ]
)
at_random = examples(15)


@at_random
@given(limit=rates, seed=st.integers(0, 2**32))
def test_at_random_no_window_sees_more_starts_than_burst_and_refill(
    store: Store, run: Run[None], limit: LimitPlan, seed: int
):
    async def scenario() -> None:
        rng = random.Random(seed)
        await store.execute("DEL", store.keys.meta.bucket(limit.bucket))
        crowd = Crowd(store, limit, rng, late=rng.choice([0, 20_000, 300_000]))
        for _ in range(25):
            await crowd.arrive(rng.choice([1, 1, 2, 5, 30]))
            if rng.random() < 0.2:
                await crowd.push_back(rng.uniform(0, 5))
            await crowd.pass_time(rng.choice([0, 10_000, SECOND, 7 * SECOND]))
        assert crowd.most_over(allowed(limit)) <= 1e-6

    run(scenario())


@at_random
@given(seed=st.integers(0, 2**32))
def test_at_random_a_strict_limit_sees_no_more_than_n_in_any_period(
    store: Store, run: Run[None], seed: int
):
    limit = limit_plan("f", "n", RateLimit(50, "10s", strict=True))

    async def scenario() -> None:
        rng = random.Random(seed)
        await store.execute("DEL", store.keys.meta.bucket(limit.bucket))
        crowd = Crowd(store, limit, rng, late=20_000)
        for _ in range(10):
            await crowd.arrive(rng.choice([1, 5, 40]))
            await crowd.pass_time(rng.choice([0, SECOND, 7 * SECOND]))
        times = sorted(time for time, _ in crowd.starts)
        for at, time in enumerate(times):
            assert bisect.bisect_left(times, time + 10 * SECOND) - at <= 50

    run(scenario())


async def test_all_are_served_in_the_order_they_came_in(store: Store):
    limit = LimitPlan("l", interval_us=200_000, burst=4)
    crowd = Crowd(store, limit, random.Random(1), late=0)
    for count in (100, 1, 7, 30, 1, 1):
        await crowd.arrive(count)
        await crowd.pass_time(2 * SECOND)
    await crowd.pass_time(60 * SECOND)
    assert [number for _, number in crowd.starts] == list(range(140))


async def test_a_limit_that_many_wait_for_is_used_up_nearly_whole(store: Store):
    limit = LimitPlan("l", interval_us=100_000, burst=10)
    crowd = Crowd(store, limit, random.Random(1), late=20_000)
    await crowd.arrive(1000)
    await crowd.pass_time(60 * SECOND)
    assert len(crowd.starts) >= 0.98 * 600


async def test_with_a_line_waiting_hardly_anything_is_asked(store: Store):
    """No polling: each node asks once to be told when, once to reserve, once to confirm."""
    limit = LimitPlan("l", interval_us=100_000, burst=1)
    crowd = Crowd(store, limit, random.Random(1), late=0)
    asked = 0
    original = crowd.ask

    async def counting(asks: list[tuple[int, tuple[Ask, int, int]]]) -> None:
        nonlocal asked
        asked += len(asks)
        await original(asks)

    crowd.ask = counting
    await crowd.arrive(400)
    await crowd.pass_time(60 * SECOND)
    assert len(crowd.starts) == 400
    assert asked <= 3 * 400


async def test_who_waits_keeps_the_place_over_a_long_push_back(store: Store):
    limit = LimitPlan("l", interval_us=200_000, burst=4)
    crowd = Crowd(store, limit, random.Random(1), late=0)
    await crowd.arrive(150)
    await crowd.pass_time(2 * SECOND)
    started = len(crowd.starts)
    await crowd.push_back(25.0)
    await crowd.arrive(10)
    await crowd.pass_time(120 * SECOND)
    assert len(crowd.starts) == 160
    order = [number for _, number in crowd.starts[started:]]
    assert order == sorted(order)


async def test_a_clock_that_goes_back_does_not_keep_a_pushed_back_bucket_closed(store: Store):
    await limits.push_back(store, LIMIT, "", 2.0)
    await shift(store, 3600 * SECOND)
    await limits.push_back(store, LIMIT, "", 5.0)
    (grant,) = await limits.take(store, LIMIT, "", [(Ask.RETURNING, 0, 1)])
    assert waits([grant]) == [5]


async def test_who_comes_back_after_the_clock_went_back_does_not_wait_for_it(store: Store):
    told = (await take(store, 20))[-1]
    await shift(store, 3600 * SECOND)
    ask = (Ask.RETURNING, told.time + 3600 * SECOND, told.shift)
    (grant,) = await limits.take(store, LIMIT, "", [ask])
    assert grant.time - grant.now < 60 * SECOND


async def test_a_short_push_back_between_two_long_ones_does_not_count(store: Store):
    grant = (await take(store, 5))[-1]
    for pause in (8.0, 1.0, 8.0):
        await limits.push_back(store, LIMIT, "", pause)
    (again,) = await limits.take(store, LIMIT, "", [(Ask.CONFIRM, grant.time, grant.shift)])
    assert again.time - grant.time < 8.5 * SECOND


async def test_the_start_that_emptied_the_bucket_cannot_be_given_back_either(store: Store):
    *_, grant = await take(store, 3)
    before = await tat(store)
    await limits.take(store, LIMIT, "", [(Ask.GIVE_BACK, grant.time, grant.shift)])
    assert await tat(store) == before


async def test_a_reservation_holds_for_a_moment_after_its_time(store: Store):
    *_, grant = await take(store, 3)
    await shift(store, -20_000)
    before = await tat(store)
    ask = (Ask.CONFIRM, grant.time - 20_000, grant.shift)
    (again,) = await limits.take(store, LIMIT, "", [ask])
    assert (again.granted, again.time) == (True, grant.time - 20_000)
    assert await tat(store) == before


async def test_a_start_that_is_a_little_late_waits_for_the_end_of_a_push_back(store: Store):
    *_, grant = await take(store, 3)
    await limits.push_back(store, LIMIT, "", 3.0)
    ask = (Ask.CONFIRM, grant.time - 20_000, grant.shift)
    (again,) = await limits.take(store, LIMIT, "", [ask])
    opens = await store.execute("HGET", store.keys.meta.bucket(LIMIT.bucket), "opens")
    assert again.time == int(opens)
