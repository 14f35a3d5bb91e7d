from __future__ import annotations

from typing import Any

import pytest

from resolute.model.flow import Flow
from resolute.model.policies import RetryPolicy
from resolute.status import NodeStatus
from resolute.store.nodes import Held
from tests.store.test_retry_flow import retry
from tests.support.flows import builder, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import Stage

FLOW = builder("paged").then(step("pages", retry=RetryPolicy(max_attempts=3))).build()


async def begun(stage: Stage, flow: Flow[Any, Any] = FLOW) -> Held:
    await stage.begin_run(flow)
    return await stage.claim_one("w")


async def pages_of(stage: Stage, run_id: str = "run") -> dict[str, bytes]:
    return {name: v for name, v in (await stage.hash(run_id)).items() if name.startswith("p:")}


async def test_a_page_is_kept_and_its_node_handed_out_again_with_new_attempts(stage: Stage):
    held = await begun(stage)
    await stage.fail("w", held, 1)
    await stage.make_due(held.partition)
    assert await stage.release(held.partition) == ["OK"]
    held = await stage.claim_one("w")
    assert held.entry.attempt == 2
    assert await stage.turn_page("w", held, 0, b"\x91\x01", b"next") == "OK"
    assert await pages_of(stage) == {"p:1.0": b"next", "p:1.0.0": b"\x91\x01"}
    again = await stage.take_one("w")
    assert (again.entry.attempt, again.entry.crashes) == (1, 0)
    assert (await stage.begin("w", again, ["p:1.0"])).values == [b"next"]
    assert await stage.complete("w", again, b"\x91\x01", pages=1) == "OK"
    assert await pages_of(stage) == {}
    await stage.coordinate()
    assert await stage.status() == "completed"


@pytest.mark.parametrize("count", [1, 1000, 2500])
async def test_all_pages_go_with_the_completion(stage: Stage, count: int):
    held = await begun(stage)
    key = stage.of("run").flow("run")
    fields = [part for n in range(count) for part in (f"p:1.0.{n}", "x")]
    await stage.store.execute("HSET", key, "p:1.0", "next", "p:1.1", "another's", *fields)
    assert await stage.complete("w", held, pages=count) == "OK"
    assert await pages_of(stage) == {"p:1.1": b"another's"}
    await stage.coordinate()


async def test_who_does_not_hold_the_node_keeps_no_page(stage: Stage):
    held = await begun(stage)
    before = await stage.hash()
    assert await stage.turn_page("other", held, 0, b"\x90", b"next") == "STALE"
    assert await stage.hash() == before
    # That took the entry, as a late commit of any kind does; the claim is in the record.
    assert await stage.complete("w", held) == "OK"
    assert await stage.turn_page("w", held, 0, b"\x90", b"next") == "STALE"
    await stage.coordinate()


async def test_a_page_that_is_sent_twice_is_kept_once(stage: Stage):
    held = await begun(stage)
    assert await stage.turn_page("w", held, 0, b"\x90", b"next", "usd|5") == "OK"
    before = await snapshot(stage.store)
    assert await stage.turn_page("w", held, 0, b"\x91\x05", b"other", "usd|5") == "OK"
    assert await snapshot(stage.store) == before


async def test_a_page_of_a_run_that_fails_settles_its_node(stage: Stage):
    held = await begun(stage)
    await stage.stop("run")
    assert await stage.turn_page("w", held, 0, b"\x90", b"next") == "OK"
    record = await stage.record(held)
    assert record is not None
    assert record.status is NodeStatus.SKIPPED
    assert await pages_of(stage) == {}
    await stage.coordinate()
    assert await stage.status() == "cancelled"


@pytest.mark.leaves_keys("the index rows of a run whose hash was deleted under it")
async def test_a_page_of_a_run_that_is_gone_is_dropped(stage: Stage):
    held = await begun(stage)
    await stage.store.execute("DEL", stage.of("run").flow("run"))
    assert await stage.turn_page("w", held, 0, b"\x90", b"next") == "GONE"


async def test_a_retried_run_has_the_pages_of_the_step_that_failed(stage: Stage):
    held = await begun(stage)
    assert await stage.turn_page("w", held, 0, b"\x91\x01", b"next") == "OK"
    await stage.fail("w", await stage.claim_one("w"))
    await stage.coordinate()
    assert await stage.status() == "failed"
    assert await retry(stage, flow=FLOW) == "OK"
    assert await pages_of(stage, "run/~1") == {"p:1.0": b"next", "p:1.0.0": b"\x91\x01"}
    await stage.coordinate()
    assert await stage.complete("w", await stage.claim_one("w"), pages=1) == "OK"
    await stage.coordinate()
    assert await stage.status("run/~1") == "completed"


async def test_a_retried_run_has_no_pages_of_steps_that_come_later(stage: Stage):
    """The node before was compensated: what is fetched after it may be something else."""
    flow = builder("undone").then(undoable("first")).then(step("pages")).build()
    await stage.begin_run(flow)
    await stage.complete("w", await stage.claim_one("w"), undo=b"\x92\x00\xc0")
    await stage.coordinate()
    assert await stage.turn_page("w", await stage.claim_one("w"), 0, b"\x90", b"next") == "OK"
    await stage.fail("w", await stage.claim_one("w"))
    assert await stage.work() == 1
    assert await stage.status() == "failed"
    assert await retry(stage, flow=flow) == "OK"
    assert await pages_of(stage, "run/~1") == {}
