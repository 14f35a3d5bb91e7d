"""How far a node has come is kept by its holder alone, and goes when it is of no use."""

from __future__ import annotations

import pytest

from resolute.engine.progress import TOLD
from resolute.model.policies import RetryPolicy
from resolute.store.nodes import POISON
from tests.store.test_retry_flow import retry
from tests.support.flows import chain_of, step
from tests.support.stage import Stage

HALF, MORE = TOLD + b"\x05", TOLD + b"\xc4\x02\xff\xff"  # binary, which no script can read
TWICE = RetryPolicy(max_attempts=2)
FIELD = "p:1.0"


async def progress(stage: Stage, run_id: str = "run") -> bytes | None:
    return (await stage.hash(run_id)).get(FIELD)


async def test_the_next_attempt_finds_it_and_the_completion_drops_it(stage: Stage):
    await stage.begin_run(chain_of(step("a", retry=TWICE), step("b")))
    held = await stage.claim_one("w")
    assert await stage.keep_progress("w", held, HALF) == "OK"
    assert await stage.keep_progress("w", held, MORE) == "OK"
    await stage.fail("w", held, 1)
    await stage.make_due(held.partition)
    await stage.release(held.partition)
    again = await stage.take_one("v")
    assert (await stage.begin("v", again, [FIELD])).values == [MORE]
    assert await stage.complete("v", again, pages=0) == "OK"
    assert await progress(stage) is None


async def test_who_does_not_hold_the_node_keeps_nothing(stage: Stage):
    await stage.begin_run(chain_of(step("a")))
    held = await stage.claim_one("w")
    assert await stage.keep_progress("other", held, HALF) == "STALE"
    assert await stage.give_back("w", held) == "OK"
    assert await stage.keep_progress("w", held, HALF) == "STALE"
    again = await stage.claim_one("w")
    assert await stage.keep_progress("w", held, HALF) == "STALE"  # of its hand-out before
    assert await stage.complete("w", again) == "OK"
    assert await stage.keep_progress("w", again, HALF) == "STALE"
    assert await progress(stage) is None


@pytest.mark.leaves_keys("the index rows of a run whose hash was deleted under it")
async def test_of_a_run_that_is_gone_nothing_is_kept(stage: Stage):
    await stage.begin_run(chain_of(step("a")))
    held = await stage.claim_one("w")
    await stage.store.execute("DEL", stage.of("run").flow("run"))
    assert await stage.keep_progress("w", held, HALF) == "GONE"
    assert await stage.store.execute("EXISTS", stage.of("run").flow("run")) == 0


async def test_a_run_goes_on_without_the_progress_of_a_node_that_may_fail(stage: Stage):
    await stage.begin_run(chain_of(step("a").best_effort(), step("b")))
    held = await stage.claim_one("w")
    await stage.keep_progress("w", held, MORE)
    await stage.fail("w", held, best_effort=True)
    assert await progress(stage) is None


async def test_nor_with_the_pages_that_it_had(stage: Stage):
    await stage.begin_run(chain_of(step("a").best_effort(), step("b")))
    for number in range(2):
        held = await stage.claim_one("w")
        next_one = b"\x92" + bytes([number + 1]) + b"\xa1c"
        assert await stage.turn_page("w", held, number, b"\x90", next_one) == "OK"
    held = await stage.claim_one("w")
    await stage.fail("w", held, best_effort=True)
    assert not [name for name in await stage.hash() if name.startswith("p:")]


async def test_a_node_that_is_poison_and_may_fail_leaves_none_either(stage: Stage):
    await stage.begin_run(chain_of(step("a").best_effort(), step("b")))
    for _ in range(POISON):
        held = await stage.claim_one("dead")
        assert await stage.keep_progress("dead", held, HALF) == "OK"
        await stage.reclaim(held, "dead")
    assert await progress(stage) is None


async def test_a_retried_run_has_the_progress_of_the_node_that_failed(stage: Stage):
    flow = chain_of(step("a"), step("b"))
    await stage.begin_run(flow)
    held = await stage.claim_one("w")
    await stage.keep_progress("w", held, HALF)
    await stage.fail("w", held)
    await stage.coordinate()
    assert await stage.status() == "failed"
    assert await retry(stage, flow=flow) == "OK"
    assert await progress(stage, "run/~1") == HALF
