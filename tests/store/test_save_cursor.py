"""Cursors: what a newer run saved stays, whoever comes back late."""

from __future__ import annotations

from resolute.model.cursors import SavedBy
from resolute.store import cursors
from resolute.store.store import Store
from tests.support.keyspace import snapshot

ONE, TWO, THREE = b"\x01", b"\x02", b"\x03"


async def test_what_was_saved_is_read(store: Store):
    assert await cursors.read(store, "f", "c") is None
    assert await cursors.save(store, "f", "c", SavedBy(1000, "run", 2), ONE) == "OK"
    assert await cursors.read(store, "f", "c") == ONE
    assert await cursors.read(store, "f", "other") is None
    assert await cursors.read(store, "g", "c") is None


async def test_an_older_run_does_not_move_it_back_and_a_newer_one_moves_it(store: Store):
    await cursors.save(store, "f", "c", SavedBy(1000, "run", 2), ONE)
    assert await cursors.save(store, "f", "c", SavedBy(999, "older", 9), TWO) == "STALE"
    assert await cursors.read(store, "f", "c") == ONE
    assert await cursors.save(store, "f", "c", SavedBy(1001, "newer", 1), THREE) == "OK"
    assert await cursors.read(store, "f", "c") == THREE


async def test_an_earlier_step_of_the_run_does_not_move_it_back(store: Store):
    await cursors.save(store, "f", "c", SavedBy(1_764_000_000_000, "run", 5), ONE)
    assert await cursors.save(store, "f", "c", SavedBy(1_764_000_000_000, "run", 4), TWO) == "STALE"
    assert await cursors.save(store, "f", "c", SavedBy(1_764_000_000_000, "run", 6), THREE) == "OK"


async def test_the_same_again_changes_nothing(store: Store):
    await cursors.save(store, "f", "c", SavedBy(1000, "run", 2), ONE)
    before = await snapshot(store)
    assert await cursors.save(store, "f", "c", SavedBy(1000, "run", 2), ONE) == "OK"
    assert await snapshot(store) == before


async def test_somebody_may_put_it_anywhere_and_any_run_moves_it_after_that(store: Store):
    await cursors.save(store, "f", "c", SavedBy(5000, "run", 2), ONE)
    await cursors.put(store, "f", "c", TWO)
    assert await cursors.read(store, "f", "c") == TWO
    assert await cursors.save(store, "f", "c", SavedBy(999, "older", 1), THREE) == "OK"
    await cursors.put(store, "f", "c", None)
    assert await cursors.read(store, "f", "c") is None
