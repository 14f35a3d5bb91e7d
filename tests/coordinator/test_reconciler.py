"""The hash is the truth: whatever a stream or a timer set lost is written anew from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from resolute.coordinator import reconciler as module
from resolute.coordinator.reconciler import Reconciler
from resolute.engine.run import PAGE
from resolute.model.flow import Flow
from resolute.status import NodeStatus
from resolute.store import nodes, registry, runs, transitions
from tests.support.flows import builder, chain, chain_of, either, fan, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NIL, NO_UNDO_INPUT, RETENTION_MS, Stage, forget

FLOW = chain("a", "b")
WORKER = "stage:1:worker"


def everybody(_: str) -> bool:
    return True


def nobody(_: str) -> bool:
    return False


def reconciler(
    stage: Stage, *, lease: float = 0.0, is_over: Callable[[str], bool] = nobody
) -> Reconciler:
    """A reconciler for which every run has been unmoved for long enough."""
    return Reconciler(stage.store, stage.catalog, lease, is_over)


async def lose(stage: Stage, *what: str, run_id: str = "run") -> None:
    """Delete streams or timers of a run's partition: "inbox", "timers" or a queue."""
    partition = stage.of(run_id)
    keys = {"inbox": partition.inbox, "timers": partition.timers}
    await stage.store.execute("DEL", *(keys.get(name) or partition.queue(name) for name in what))


# What a live process has claimed.


async def test_who_has_claimed_a_node_without_an_entry_is_asked_whether_it_runs(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.offer(FLOW, process=WORKER)
    held = await stage.claim_one(WORKER)
    await reconciler(stage).run_once()
    assert await registry.beat(stage.store, [WORKER]) == [[]]
    await lose(stage, "q")
    await reconciler(stage).run_once()
    (questions,) = await registry.beat(stage.store, [WORKER])
    assert questions is not None
    (question,) = questions
    asked = nodes.asked(stage.store, question)
    assert asked is not None
    assert (asked.id, asked.queue, asked.partition) == (held.id, held.queue, held.partition)
    assert (asked.entry.flow, asked.entry.seq, asked.entry.index, asked.entry.token) == (
        "run", held.entry.seq, held.entry.index, held.entry.token
    )  # fmt: skip
    assert await stage.complete(WORKER, held) == "OK"


# What is lost from a queue.


@pytest.mark.parametrize("width", [1, 40])
async def test_a_deleted_queue_stream_is_filled_again(stage: Stage, width: int):
    await stage.begin_run(fan(width))
    await lose(stage, "q")
    assert await reconciler(stage).run_once() == width
    assert await stage.work() == width + 1
    assert await stage.status() == "completed"


async def test_an_entry_of_another_run_under_the_same_id_is_no_entry_of_this_one(stage: Stage):
    """A stream that is deleted gives its ids out again, if the clock stands still."""
    await stage.begin_run(FLOW, "run")
    partition = stage.of("run")
    stream = partition.queue("q")
    ((entry_id, entry),) = await stage.entries("run")
    another = msgspec.msgpack.encode(msgspec.structs.replace(entry, flow="another"))
    await lose(stage, "q")
    await stage.store.execute("XADD", stream, entry_id, "e", another)
    assert await reconciler(stage).run_once() == 1
    assert {found.flow for _, found in await stage.entries("run")} == {"another", "run"}


async def test_only_what_is_lost_is_written_anew(stage: Stage):
    await stage.begin_run(fan(6))
    entries = await stage.entries()
    for entry_id, _ in entries[::2]:
        await stage.store.execute("XDEL", stage.of("run").queue("q"), entry_id)
    assert await reconciler(stage).run_once() == 3
    indices = [entry.index for _, entry in await stage.entries()]
    assert sorted(indices) == list(range(6))
    assert await stage.work() == 7


async def test_each_node_comes_back_to_its_own_queue(stage: Stage):
    await stage.begin_run(fan(6, queues=("", "gpu", "disk")))
    await lose(stage, "gpu")
    assert await reconciler(stage).run_once() == 2
    assert [entry.index for _, entry in await stage.entries(queue="gpu")] == [1, 4]
    assert await stage.work(queues=("q", "gpu", "disk")) == 7


async def test_every_page_of_a_wide_step_is_known(stage: Stage):
    width = PAGE + 20
    await stage.begin_run(fan(width, queues=("", "gpu")))
    gpu = await stage.entries(queue="gpu")
    for entry_id, _ in gpu[-5:]:
        await stage.store.execute("XDEL", stage.of("run").queue("gpu"), entry_id)
    assert await reconciler(stage).run_once() == 5
    await lose(stage, "q")
    assert await reconciler(stage).run_once() == width // 2


async def test_what_was_handed_out_anew_is_looked_for_where_it_is_now(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.give_back("worker", one)
    await stage.give_back("worker", two, queue=f"q@{two.entry.plan}")
    assert await reconciler(stage).run_once() == 0
    await lose(stage, f"q@{two.entry.plan}")
    assert await reconciler(stage).run_once() == 1
    assert await stage.work() == 3


async def test_a_lost_compensation_is_handed_out_again(stage: Stage):
    await stage.begin_run(chain_of(undoable("a"), step("b")))
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    await lose(stage, "q")
    assert await reconciler(stage).run_once() == 1
    undo = await stage.claim_one("worker")
    assert (undo.entry.undo, stage.node(undo).name) == (1, "undo-a")
    await stage.complete("worker", undo)
    await stage.coordinate()
    assert await stage.status() == "failed"


# What is lost from the inbox.


async def test_a_lost_start_is_made_up_for(stage: Stage):
    await stage.offer(FLOW)
    await stage.start(FLOW)
    await lose(stage, "inbox")
    assert await reconciler(stage).run_once() == 1
    assert await stage.work() == 2


async def test_a_run_that_nobody_offers_waits_until_somebody_does(stage: Stage):
    await stage.start(FLOW)
    await stage.coordinate()
    one = reconciler(stage)
    assert await one.run_once() == 0
    await stage.offer(FLOW)
    assert await one.run_once() == 1
    assert await stage.work() == 2


@pytest.mark.parametrize("settled", [1, 2])
async def test_a_lost_event_of_a_settled_step_is_made_up_for(stage: Stage, settled: int):
    await stage.begin_run(FLOW)
    for number in range(settled):
        await stage.complete("worker", await stage.claim_one("worker"))
        if number < settled - 1:
            await stage.coordinate()
    await lose(stage, "inbox")
    assert await reconciler(stage).run_once() == 1
    assert await stage.work() == 2 - settled
    assert await stage.status() == "completed"


@pytest.mark.parametrize("answer", [True, False])
async def test_the_answer_of_a_branch_is_not_lost_with_its_event(stage: Stage, answer: bool):
    await stage.begin_run(either())
    await stage.complete("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    held = await stage.claim_one("worker")
    await stage.complete("worker", held, msgspec.msgpack.encode(answer), arg=str(int(answer)))
    await lose(stage, "inbox")
    await reconciler(stage).run_once()
    await stage.coordinate()
    held = await stage.claim_one("worker")
    assert stage.node(held).name == ("yes" if answer else "no")


async def test_a_lost_page_is_dispatched(stage: Stage):
    await stage.offer(fan(PAGE + 3))
    await stage.start("fan")
    partition = stage.of("run")
    await stage.dispatcher.handle(partition, await stage.read_inbox(partition))
    await lose(stage, "inbox")
    assert await reconciler(stage).run_once() == 1
    await stage.coordinate()
    assert len(await stage.entries()) == PAGE + 3


async def test_a_lost_page_of_skips_is_made_up_for(stage: Stage):
    await stage.offer(fan(2 * PAGE))
    await stage.start("fan")
    await stage.coordinate()
    held = (await stage.take("worker", count=1))[0]
    await stage.begin("worker", held)
    await stage.fail("worker", held)
    partition = stage.of("run")
    await stage.dispatcher.handle(partition, await stage.read_inbox(partition))
    assert await stage.status() == "failing"
    await lose(stage, "inbox")
    assert await reconciler(stage).run_once() == 1
    await stage.coordinate()
    assert await stage.status() == "failed"


@pytest.mark.parametrize(("terminate", "status"), [(False, "cancelled"), (True, "terminated")])
@pytest.mark.parametrize("is_begun", [True, False])
async def test_a_stop_is_not_lost_with_its_event(
    stage: Stage, terminate: bool, status: str, is_begun: bool
):
    await stage.start(FLOW)
    if is_begun:
        await stage.offer(FLOW)
        await stage.coordinate()
    assert await stage.stop("run", terminate=terminate) == "OK"
    await lose(stage, "inbox")
    assert await reconciler(stage).run_once() == 1
    await stage.coordinate()
    assert await stage.status() == status


async def test_a_failure_is_not_lost_with_its_event(stage: Stage):
    await stage.begin_run(fan(3))
    held = (await stage.claim("worker"))[0]
    await stage.fail("worker", held)
    await lose(stage, "inbox")
    assert await reconciler(stage).run_once() == 1
    await stage.coordinate()
    assert (await stage.header()).skip == 3


# Timers and claims.


async def test_a_lost_timer_is_put_back(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    await stage.fail("worker", held, 60_000)
    await lose(stage, "timers")
    assert await reconciler(stage).run_once() == 1
    assert await stage.release(held.partition) == ["OK"]
    assert await stage.work() == 2


async def test_what_a_vanished_process_claimed_is_taken_back(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("vanished")
    await lose(stage, "q")
    assert await reconciler(stage, is_over=nobody).run_once() == 0
    assert await reconciler(stage, is_over=everybody).run_once() == 1
    again = await stage.claim_one("worker")
    assert again.entry.crashes == 1
    assert await stage.complete("vanished", held) == "STALE"


async def test_what_a_process_claimed_that_was_cleared_away_is_taken_back_at_once(stage: Stage):
    """By a coordinator that has just begun, too, and has watched nobody for a lease."""
    await stage.begin_run(FLOW)
    await stage.offer(process=WORKER)
    held = await stage.claim_one(WORKER)
    await lose(stage, "q")
    await registry.end_lease(stage.store, WORKER)
    await forget(stage.store, WORKER)
    assert await reconciler(stage).run_once() == 1
    assert (await stage.claim_one("another")).entry.crashes == 1
    assert await stage.complete(WORKER, held) == "STALE"


async def test_what_a_process_claimed_that_was_registered_since_is_its_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """Since the reconciler read who is there."""

    async def unchanged() -> None:
        pass

    await stage.begin_run(FLOW)
    held = await stage.claim_one(WORKER)
    await lose(stage, "q")
    await stage.catalog.refresh()
    monkeypatch.setattr(stage.catalog, "refresh", unchanged)
    await stage.offer(process=WORKER)
    assert await reconciler(stage, is_over=everybody).run_once() == 0
    assert await stage.complete(WORKER, held) == "OK"


async def test_what_a_registered_process_claimed_is_its_own_even_if_the_entry_is_lost(
    stage: Stage,
):
    """Its lease decides about it, and nothing else."""
    await stage.begin_run(FLOW)
    held = await stage.claim_one("stage:0:offers")
    await lose(stage, "q")
    assert await reconciler(stage, is_over=everybody).run_once() == 0
    assert await stage.complete("stage:0:offers", held) == "OK"
    assert await stage.work() == 1


# What is well is left alone.


async def healthy(stage: Stage) -> None:
    """Runs whose nodes are, in turn, unread, read, claimed, waiting, and of a later step."""
    flow = fan(4)
    await stage.begin_run(flow)
    one, two, three, _ = await stage.take("stage:0:offers")
    await stage.begin("stage:0:offers", one)
    await stage.begin("stage:0:offers", two)
    await stage.fail("stage:0:offers", two, 60_000)
    assert three.entry.index == 2


async def test_a_healthy_run_is_left_as_it_is(stage: Stage):
    await healthy(stage)
    before = await snapshot(stage.store)
    assert await reconciler(stage, is_over=everybody).run_once() == 0
    assert await snapshot(stage.store) == before


async def test_a_run_that_moved_within_a_lease_is_not_looked_at(stage: Stage):
    await stage.begin_run(FLOW)
    await lose(stage, "q", "inbox")
    assert await reconciler(stage, lease=3600).run_once() == 0
    assert await stage.entries() == []


async def test_a_run_that_moved_before_the_clock_was_set_back_is_looked_at(stage: Stage):
    """Else it is repaired when the clock has passed that time again, however long that takes."""
    await stage.begin_run(FLOW)
    moved = await registry.server_ms(stage.store) + 3_600_000
    await stage.store.execute("HSET", stage.of("run").flow("run"), "moved", moved)
    await lose(stage, "q")
    assert await reconciler(stage, lease=60.0).run_once() == 1
    assert len(await stage.entries()) == 1


async def test_two_coordinators_repair_once(stage: Stage):
    await stage.begin_run(fan(20))
    await lose(stage, "q")
    await asyncio.gather(*(reconciler(stage).run_once() for _ in range(3)))
    codes = [(await stage.begin("worker", held)).code for held in await stage.take("worker")]
    assert codes.count("OK") == 20


async def test_repairing_again_and_again_ends_in_peace(stage: Stage):
    await stage.begin_run(fan(5))
    await lose(stage, "q")
    one = reconciler(stage)
    assert [await one.run_once() for _ in range(3)] == [5, 0, 0]


async def test_after_everything_but_the_hashes_was_lost_all_runs_come_to_their_end(stage: Stage):
    flows: list[Flow[Any, Any]] = [
        FLOW,
        fan(7, queues=("", "gpu")),
        chain_of(undoable("a"), step("b"), flow="saga"),
    ]
    await stage.offer(*flows)
    ids = [f"run-{n}" for n in range(9)]
    for number, run_id in enumerate(ids):
        await stage.start(flows[number % 3], run_id)
    await stage.coordinate()
    for held in (await stage.claim("worker"))[::2]:
        await stage.complete("worker", held, undo=NO_UNDO_INPUT if held.entry.seq == 9 else None)
    for partition in stage.store.keys.partitions:
        await stage.store.execute(
            "DEL", partition.inbox, partition.timers, partition.queue("q"), partition.queue("gpu")
        )
    one = reconciler(stage, is_over=everybody)
    for _ in range(10):
        await one.run_once()
        await stage.work("another", ("q", "gpu"))
    assert {str(await stage.status(run_id)) for run_id in ids} == {"completed"}


# Going round.


async def test_every_open_run_is_looked_at_even_if_all_started_in_one_moment(stage: Stage):
    await stage.offer(FLOW)
    ids = stage.ids(2 * module.CHUNK + 50)
    starts = [runs.Start(run_id, "chain", "q", NIL) for run_id in ids]
    await runs.start(stage.store, stage.of(ids[0]), starts, RETENTION_MS)
    partition = stage.of(ids[0])
    for run_id in ids:
        await stage.store.execute("ZADD", partition.open, 1_000, run_id)
    await lose(stage, "inbox", run_id=ids[0])
    assert await reconciler(stage).run_once() == len(ids)
    assert await stage.work() == 2 * len(ids)


async def test_a_run_in_the_index_that_is_none_is_taken_out_of_it(stage: Stage):
    await stage.begin_run(FLOW)
    partition = stage.of("run")
    await stage.store.execute("DEL", partition.flow("run"))
    assert await reconciler(stage).run_once() == 1
    assert await stage.store.execute("EXISTS", partition.open, partition.open_of("chain")) == 0


async def test_an_ended_run_is_taken_out_of_the_index_of_open_ones(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.work()
    partition = stage.of("run")
    for index in (partition.open, partition.open_of("chain")):
        await stage.store.execute("ZADD", index, 1, "run")
    assert await reconciler(stage).run_once() == 1
    assert await stage.store.execute("EXISTS", partition.open, partition.open_of("chain")) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "rXnning"), ("seq", "x"), ("pending", ""), ("pc", "77"), ("plan", "x"),
     ("n:1.0", "garbage"), ("pages", "garbage"), ("error", "\xc1")],
)  # fmt: skip
async def test_a_damaged_run_does_not_keep_others_from_being_repaired(
    stage: Stage, field: str, value: str
):
    await stage.offer(FLOW)
    one, two, three = stage.ids(3)
    for run_id in (one, two, three):
        await stage.start(FLOW, run_id)
    await stage.coordinate()
    await lose(stage, "q", run_id=one)
    key = stage.of(two).flow(two)
    kept = await stage.store.execute("HGET", key, field)
    await stage.store.execute("HSET", key, field, value)
    await reconciler(stage).run_once()
    found = {entry.flow for _, entry in await stage.entries(one)}
    assert found >= {one, three}
    if kept is None:
        await stage.store.execute("HDEL", key, field)
    else:
        await stage.store.execute("HSET", key, field, kept)


async def test_a_node_that_is_settled_needs_nothing(stage: Stage):
    await stage.begin_run(fan(2))
    one, _ = await stage.claim("stage:0:offers")
    await stage.complete("stage:0:offers", one)
    assert await reconciler(stage, is_over=everybody).run_once() == 0
    record = await stage.record(one)
    assert record is not None
    assert record.status is NodeStatus.COMPLETED


async def test_an_unregistered_worker_s_flows_can_still_be_repaired(stage: Stage):
    await stage.begin_run(FLOW)
    await forget(stage.store, "stage:0:offers")
    await lose(stage, "q")
    assert await reconciler(stage).run_once() == 1


@pytest.mark.parametrize("status", ["running", "failing", "compensating"])
async def test_a_run_that_is_open_stays_in_the_index(stage: Stage, status: str):
    await stage.begin_run(chain("a"))
    partition = stage.of("run")
    await stage.store.execute("HSET", partition.flow("run"), "status", status)
    assert not await transitions.unlist(stage.store, partition, "run", ["chain"])
    for index in (partition.open, partition.open_of("chain")):
        assert await stage.store.execute("ZSCORE", index, "run") is not None
    await stage.store.execute("HSET", partition.flow("run"), "status", "running")


async def compensating(stage: Stage) -> None:
    """A run whose second node failed; of the first step the second node is undone, on "gpu"."""
    undone = step("b").on_error(step("undo-b", queue="gpu"))
    flow = builder("saga").then_parallel("both", step("a"), undone).then(step("c")).build()
    await stage.begin_run(flow)
    for held in await stage.claim("worker"):
        undo = NO_UNDO_INPUT if stage.node(held).compensation else None
        await stage.complete("worker", held, undo=undo)
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    assert await stage.status() == "compensating"


async def test_a_compensation_is_looked_for_in_its_own_queue_and_comes_back_to_it(stage: Stage):
    await compensating(stage)
    assert await reconciler(stage).run_once() == 0
    await lose(stage, "gpu")
    assert await reconciler(stage).run_once() == 1
    undo = await stage.claim_one("worker", "gpu")
    assert (undo.entry.undo, undo.entry.index, stage.node(undo).name) == (1, 1, "undo-b")


async def test_a_terminate_of_a_compensating_run_is_not_lost_with_its_event(stage: Stage):
    await compensating(stage)
    assert await stage.stop("run", terminate=True) == "OK"
    await lose(stage, "inbox")
    assert await reconciler(stage).run_once() == 1
    await stage.coordinate()
    assert await stage.status() == "terminated"


async def test_a_failing_step_that_was_not_dispatched_whole_is_left_alone(stage: Stage):
    width = PAGE + 3
    await stage.offer(fan(width))
    await stage.start("fan")
    partition = stage.of("run")
    await stage.dispatcher.handle(partition, await stage.read_inbox(partition))
    one, two = await stage.take("stage:0:offers", count=2)
    for held in (one, two):
        await stage.begin("stage:0:offers", held)
    await stage.fail("stage:0:offers", one)
    await stage.coordinate()
    header = await stage.header()
    assert (header.status, header.page, header.skip) == ("failing", PAGE, width)
    assert await reconciler(stage, is_over=everybody).run_once() == 0


async def test_records_are_read_in_parts(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "WIDE", 10)
    await stage.begin_run(fan(25))
    await lose(stage, "q")
    assert await reconciler(stage).run_once() == 25


async def test_a_sweep_is_two_looks_without_pauses_also_when_a_coordinator_starts(stage: Stage):
    one = reconciler(stage)
    looks: asyncio.Queue[float] = asyncio.Queue(1)

    async def look(pause: float = 0.0) -> int:
        await looks.put(pause)
        return 0

    one.run_once = look
    running = asyncio.create_task(one.run())
    assert [await looks.get() for _ in range(4)] == [0.0, 0.0, module.PAUSE, module.PAUSE]
    one.sweep()
    found = [await looks.get() for _ in range(6)]
    assert found.count(0.0) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("field", ["token", "n:1.0"])
async def test_a_token_that_no_script_can_count_is_damage_that_whoever_looks_is_told_of(
    stage: Stage, field: str, caplog: pytest.LogCaptureFixture
):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("gone")
    value = (await stage.hash())[field]
    base, _, count = held.entry.token.rpartition(".")
    wrong = value.replace(f"{base}.{count}".encode(), f"{base}n{count}".encode())
    await stage.store.execute("HSET", held.partition.flow("run"), field, wrong)
    assert await reconciler(stage, is_over=everybody).run_once() == 0
    assert "is damaged: a token is <rev>.<count>" in caplog.text
    await stage.store.execute("HSET", held.partition.flow("run"), field, value)
