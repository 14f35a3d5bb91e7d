from __future__ import annotations

import asyncio

import msgspec

from resolute.status import NodeStatus, RunStatus
from resolute.store.nodes import POISON, Held
from tests.support.flows import builder, chain, chain_of, fan, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NIL, NO_UNDO_INPUT, Stage

FLOW = chain("a")


async def test_what_a_dead_process_ran_comes_again_with_a_crash_behind_it(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("dead")
    assert await stage.reclaim(held, "dead") == "OK"
    record = await stage.record(held)
    assert record is not None
    assert (record.status, record.process, record.crashes) == (NodeStatus.READY, "", 1)
    ((entry_id, entry),) = await stage.entries()
    assert entry_id == record.entry != held.id
    assert (entry.token, entry.attempt, entry.crashes) == (record.token, 1, 1)
    assert (await stage.stats())["reclaimed"] == 1
    assert await stage.complete("dead", held) == "STALE"
    assert await stage.complete("other", await stage.claim_one("other")) == "OK"


async def test_what_a_dead_process_had_read_and_not_begun_comes_again_without_a_crash(
    stage: Stage,
):
    await stage.begin_run(FLOW)
    held = await stage.take_one("dead")
    assert await stage.reclaim(held, "dead") == "OK"
    again = await stage.claim_one("other")
    assert again.entry.crashes == 0


async def crash(stage: Stage, times: int) -> tuple[str, Held]:
    """Let processes die on the only node; what the last reclaim answered."""
    code = ""
    held = None
    for number in range(times):
        held = await stage.claim_one(f"dead-{number}")
        code = await stage.reclaim(held, f"dead-{number}")
    assert held is not None
    return code, held


async def test_the_node_that_ends_its_process_for_the_third_time_is_poison(stage: Stage):
    await stage.begin_run(FLOW)
    assert (await crash(stage, POISON - 1))[0] == "OK"
    code, held = await crash(stage, 1)
    assert code == "SKIP"
    record = await stage.record(held)
    assert record is not None
    assert (record.status, record.crashes) == (NodeStatus.FAILED, 3)
    header = await stage.header()
    assert header.status is RunStatus.FAILING
    assert header.error is not None
    assert (header.error.type, header.error.node) == ("Poison", "a")
    assert "dead-0" in header.error.message
    await stage.coordinate()
    assert await stage.status() == "failed"
    assert await stage.entries() == []


async def test_a_poisonous_best_effort_node_fails_alone(stage: Stage):
    await stage.begin_run(chain_of(step("a").best_effort(), step("b")))
    assert (await crash(stage, POISON))[0] == "SKIP"
    await stage.coordinate()
    header = await stage.header()
    assert (header.status, header.pc) == (RunStatus.RUNNING, 1)
    assert "x:a" in await stage.hash()


async def test_of_a_poisonous_best_effort_node_no_former_output_stays(stage: Stage):
    await stage.begin_run(chain_of(step("a").best_effort(), step("b")))
    await stage.store.execute("HSET", stage.of("run").flow("run"), "o:a", NIL)
    await crash(stage, POISON)
    assert "o:a" not in await stage.hash()


async def test_a_poisonous_compensation_stops_no_other(stage: Stage):
    await stage.begin_run(chain_of(undoable("a"), undoable("b"), step("c")))
    for _ in range(2):
        await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
        await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"), message="why")
    await stage.coordinate()
    assert (await crash(stage, POISON))[0] == "SKIP"
    assert "ux:2" in await stage.hash()
    assert await stage.work() == 1
    header = await stage.header()
    assert header.status is RunStatus.FAILED
    assert header.error is not None
    assert header.error.message == "why"


async def test_crashes_do_not_use_up_attempts_nor_attempts_crashes(stage: Stage):
    await stage.begin_run(FLOW)
    await crash(stage, 1)
    await stage.fail("worker", await stage.claim_one("worker"), 0)
    await stage.release(stage.of("run"))
    await crash(stage, 1)
    again = await stage.claim_one("worker")
    assert (again.entry.attempt, again.entry.crashes) == (2, 2)


async def test_in_a_failing_run_what_a_dead_process_had_is_skipped(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("dead")
    await stage.fail("dead", one)
    assert await stage.reclaim(two, "dead") == "OK"
    record = await stage.record(two)
    assert record is not None
    assert record.status is NodeStatus.SKIPPED
    await stage.coordinate()
    assert await stage.status() == "failed"


async def test_what_another_process_holds_is_not_taken_from_it(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("alive")
    before = await stage.hash()
    assert await stage.reclaim(held, "dead") == "STALE"
    assert await stage.reclaim(held, "") == "STALE"
    assert await stage.hash() == before
    assert await stage.complete("alive", held) == "OK"


async def test_two_coordinators_take_a_node_back_once(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("dead")
    codes = await asyncio.gather(*(stage.reclaim(held, "dead") for _ in range(5)))
    assert sorted(codes) == ["OK", "STALE", "STALE", "STALE", "STALE"]
    assert len(await stage.entries()) == 1


async def test_a_node_whose_entry_was_lost_gets_another(stage: Stage):
    await stage.begin_run(FLOW)
    ((entry_id, entry),) = await stage.entries()
    partition = stage.of("run")
    await stage.store.execute("XDEL", partition.queue("q"), entry_id)
    assert await stage.reclaim(Held(partition, "q", "", entry)) == "OK"
    assert (await stage.claim_one("worker")).entry.crashes == 0


async def test_a_waiting_node_gets_its_lost_timer_again_and_is_due(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    await stage.fail("worker", held, 60_000)
    partition = stage.of("run")
    await stage.store.execute("DEL", partition.timers)
    record = await stage.record(held)
    assert record is not None
    waiting = Held(partition, "q", "", msgspec.structs.replace(held.entry, token=record.token))
    assert await stage.reclaim(waiting) == "OK"
    assert await stage.release(partition) == ["OK"]
    assert (await stage.claim_one("worker")).entry.attempt == 2


async def test_a_waiting_node_that_has_its_timer_is_left_alone(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    await stage.fail("worker", held, 60_000)
    record = await stage.record(held)
    assert record is not None
    before = await snapshot(stage.store)
    waiting = Held(held.partition, "q", "", msgspec.structs.replace(held.entry, token=record.token))
    assert await stage.reclaim(waiting) == "OK"
    assert await snapshot(stage.store) == before


async def test_a_node_of_another_queue_goes_back_to_that_queue(stage: Stage):
    flow = builder("f").then(step("a", queue="gpu")).build()
    await stage.begin_run(flow)
    held = await stage.claim_one("dead", "gpu")
    assert await stage.reclaim(held, "dead") == "OK"
    assert await stage.entries(queue="q") == []
    await stage.claim_one("worker", "gpu")


async def test_a_node_that_had_to_move_to_its_plan_s_queue_goes_back_to_the_plain_one(
    stage: Stage,
):
    """Workers of every version read that one; who lacks the plan moves it again."""
    await stage.begin_run(FLOW)
    held = await stage.take_one("worker")
    queue = f"q@{held.entry.plan}"
    await stage.give_back("worker", held, queue=queue)
    held = await stage.claim_one("dead", queue)
    assert await stage.reclaim(held, "dead") == "OK"
    await stage.claim_one("worker", "q")


async def test_the_new_entry_may_have_the_id_of_the_one_that_was_lost(stage: Stage):
    """The stream was deleted, and made anew in the same millisecond."""
    await stage.begin_run(chain("a"))
    ((_, entry),) = await stage.entries()
    partition = stage.of("run")
    stream, far = partition.queue("q"), 1 << 50
    await stage.store.execute("DEL", stream)
    await stage.store.execute("XADD", stream, f"{far}-4", "e", "x")
    await stage.store.execute("XDEL", stream, f"{far}-4")
    assert await stage.reclaim(Held(partition, "q", f"{far}-5", entry)) == "OK"
    assert [entry_id for entry_id, _ in await stage.entries()] == [f"{far}-5"]


async def test_an_entry_from_before_a_wait_says_nothing_of_the_wait(stage: Stage):
    await stage.begin_run(chain("a"))
    held = await stage.claim_one("dead")
    await stage.fail("dead", held, 60_000)
    await stage.store.execute("DEL", held.partition.timers)
    assert await stage.reclaim(held, "dead") == "STALE"
    assert await stage.store.execute("EXISTS", held.partition.timers) == 0
