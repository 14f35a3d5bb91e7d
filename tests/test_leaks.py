"""The look for leaked keys finds them: else all the tests that end in it prove nothing."""

from __future__ import annotations

import pytest

from resolute.store.store import Store
from tests.support.flows import chain
from tests.support.leaks import find_leaks
from tests.support.stage import Stage

pytestmark = pytest.mark.leaves_keys("it is what these tests are about")

FLOW = chain("a", "b")


async def test_a_namespace_in_which_all_came_to_its_end_is_clean(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.work()
    assert await find_leaks(stage.store) == []


async def test_what_is_open_is_brought_to_its_end_first(stage: Stage):
    """An unread entry, a claim, a waiting node, and a run that nobody has begun."""
    await stage.offer(FLOW)
    for run_id in ("unread", "claimed", "waiting"):
        await stage.start(FLOW, run_id)
    await stage.coordinate()
    for held in await stage.take("worker"):
        if held.entry.flow != "unread":
            await stage.begin("worker", held)
        if held.entry.flow == "waiting":
            await stage.fail("worker", held, 60_000)
    await stage.start("nobody offers it", "unpinned")
    assert await find_leaks(stage.store) == []


async def test_a_key_that_nobody_knows_is_a_leak(store: Store):
    key = f"{store.keys.partitions[0].tag}:forgotten"
    await store.execute("SET", key, "x")
    assert await find_leaks(store) == [f"{key}: string"]


async def test_an_ended_run_without_a_time_to_live_is_a_leak(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.work()
    key = stage.of("run").flow("run")
    await stage.store.execute("PERSIST", key)
    assert f"{key}: completed, without a TTL" in await find_leaks(stage.store)


async def test_an_open_run_that_no_index_knows_is_a_leak(stage: Stage):
    await stage.begin_run(FLOW)
    partition = stage.of("run")
    await stage.store.execute("ZREM", partition.open, "run")
    assert any("still running" in leak for leak in await find_leaks(stage.store))


async def test_an_ended_run_that_no_index_knows_is_a_leak(stage: Stage):
    """Retention would never find it."""
    await stage.begin_run(FLOW)
    await stage.work()
    partition = stage.of("run")
    for key in await stage.store.execute("KEYS", f"{partition.tag}:x:*"):
        await stage.store.execute("DEL", key)
    assert await find_leaks(stage.store) == [f"{partition.flow('run')}: hash"]


async def test_an_entry_that_no_worker_would_take_away_is_a_leak(stage: Stage):
    partition = stage.of("run")
    await stage.store.execute("XADD", f"{partition.tag}:other", "*", "e", "x")
    assert await find_leaks(stage.store) == [f"{partition.tag}:other: 1 entries"]


async def test_a_bucket_without_a_time_to_live_is_a_leak(store: Store):
    key = store.keys.meta.bucket("api")
    await store.execute("HSET", key, "tat", 1)
    assert await find_leaks(store) == [f"{key}: hash without a TTL"]
