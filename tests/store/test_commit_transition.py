from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from resolute import Flow
from resolute.engine.run import PAGE
from resolute.model.messages import Event
from resolute.status import EventKind, NodeStatus, RunStatus
from resolute.store import runs, transitions
from resolute.store.connection import Link
from resolute.store.registry import server_ms
from resolute.store.script import GROUP_COORDINATORS
from resolute.store.transitions import BACKSTOP_MS, Commit
from tests.support import tour
from tests.support.flows import chain, fan
from tests.support.keyspace import snapshot
from tests.support.stage import NIL, RETENTION_MS, Stage


async def read_event(stage: Stage, run_id: str = "run") -> str:
    """Take the events of a run's partition as a coordinator; the id of the only one of the run."""
    found = [
        message.id
        for message in await stage.read_inbox(stage.of(run_id))
        if msgspec.msgpack.decode(message.payload or b"", type=Event).flow == run_id
    ]
    (event_id,) = found
    return event_id


async def a_commit(stage: Stage, event: str, **changes: Any) -> Commit:
    """A commit that dispatches nothing and only marks the run."""
    header = await stage.header()
    fields: dict[str, Any] = {
        "id": "run", "event": event, "expect": header.rev, "rev": "7-new", "seq": header.seq,
        "fields": ["mark", "made"], "flow": header.flow,
    }  # fmt: skip
    return Commit(**{**fields, **changes})


async def commit(stage: Stage, *commits: Commit) -> list[str]:
    """The codes of one call."""
    found = await transitions.commit(stage.store, stage.of(commits[0].id), commits, RETENTION_MS)
    return [code for code, _ in found]


async def pending_events(stage: Stage) -> list[str]:
    """The events that coordinators have read and not acknowledged."""
    rows = await stage.store.execute(
        "XPENDING", stage.of("run").inbox, GROUP_COORDINATORS, "-", "+", 100
    )
    return [str(row[0], "ascii") for row in rows]


# Dispatching.


async def test_the_first_commit_pins_the_plan_and_dispatches_the_first_step(stage: Stage):
    flow = chain("a")
    await stage.begin_run(flow)
    header = await stage.header()
    assert (header.plan, header.pc, header.seq, header.pending) == (flow.plan_hash, 0, 1, 1)
    assert header.token == f"{header.rev}.0"
    ((entry_id, entry),) = await stage.entries()
    assert (entry.flow, entry.plan, entry.pc, entry.seq, entry.index) == (
        "run", flow.plan_hash, 0, 1, 0,
    )  # fmt: skip
    assert (entry.token, entry.attempt, entry.crashes, entry.undo) == (header.token, 1, 0, 0)
    found = await stage.hash()
    assert found["s:1"].startswith(b"0|0|")
    stream = stage.of("run").queue("q")
    assert found["pages"] == f"{entry_id} 1 {stream}\n".encode()


async def test_a_commit_acknowledges_its_event(stage: Stage):
    await stage.begin_run(chain("a"))
    assert await pending_events(stage) == []
    assert await stage.events() == []


async def test_ids_of_a_page_follow_each_other_in_each_of_its_streams(stage: Stage):
    await stage.begin_run(fan(7, queues=("", "gpu", "")))
    lines = (await stage.hash())["pages"].decode().splitlines()
    partition = stage.of("run")
    expected = {"q": [0, 2, 3, 5, 6], "gpu": [1, 4]}
    for line, (queue, indices) in zip(lines, expected.items(), strict=True):
        first, count, stream = line.split(" ")
        assert (int(count), stream) == (len(indices), partition.queue(queue))
        entries = await stage.entries(queue=queue)
        assert [entry.index for _, entry in entries] == indices
        ms, _, start = first.partition("-")
        assert [entry_id for entry_id, _ in entries] == [
            f"{ms}-{int(start) + at}" for at in range(len(indices))
        ]


async def test_a_wide_step_comes_in_pages_each_remembered_with_its_first_id(stage: Stage):
    width = 2 * PAGE + 7
    await stage.offer(fan(width))
    await stage.start("fan")
    dispatched: list[int] = []
    for _ in range(3):
        messages = await stage.read_inbox(stage.of("run"))
        await stage.dispatcher.handle(stage.of("run"), messages)
        dispatched.append(len(await stage.entries()))
    assert dispatched == [PAGE, 2 * PAGE, width]
    header = await stage.header()
    assert (header.pending, header.page) == (width, width)
    entries = await stage.entries()
    assert [entry.index for _, entry in entries] == list(range(width))
    assert {entry.token for _, entry in entries} == {header.token}
    lines = [line.split(" ") for line in (await stage.hash())["pages"].decode().splitlines()]
    assert [(line[0], int(line[1])) for line in lines] == [
        (entries[at][0], count) for at, count in ((0, PAGE), (PAGE, PAGE), (2 * PAGE, 7))
    ]


async def test_a_new_step_forgets_the_pages_of_the_one_before(stage: Stage):
    await stage.begin_run(chain("a", "b"))
    await stage.complete("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    ((entry_id, _),) = await stage.entries()
    assert (await stage.hash())["pages"].decode().splitlines() == [
        f"{entry_id} 1 {stage.of('run').queue('q')}"
    ]


async def test_a_compensation_is_dispatched_alone_and_says_what_it_undoes(stage: Stage):
    await stage.begin_run(tour.FLOW)
    await stage.complete("worker", await stage.claim_one("worker"), undo=NIL)
    await stage.coordinate()
    (left,) = await stage.claim("worker")
    await stage.fail("worker", left)
    await stage.coordinate()
    undo = await stage.claim_one("worker")
    header = await stage.header()
    assert (header.status, header.undoing, header.pending) == (RunStatus.COMPENSATING, 1, 1)
    assert (undo.entry.undo, undo.entry.pc, undo.entry.seq) == (1, 0, 3)


# Comparing.


async def test_a_commit_that_lost_the_race_writes_nothing_and_keeps_its_event(stage: Stage):
    await stage.begin_run(chain("a"))
    await stage.stop("run")
    event = await read_event(stage)
    before = await snapshot(stage.store)
    assert await commit(stage, await a_commit(stage, event, expect="1-other")) == ["CONFLICT"]
    assert await snapshot(stage.store) == before
    assert await pending_events(stage) == [event]
    await stage.store.execute("XACK", stage.of("run").inbox, GROUP_COORDINATORS, event)


async def test_a_commit_sent_again_is_found_done(stage: Stage):
    await stage.begin_run(chain("a"))
    made = await a_commit(stage, "")
    assert await commit(stage, made) == ["OK"]
    before = await snapshot(stage.store)
    made.fields = ["mark", "made"]
    assert await commit(stage, made) == ["OK"]
    assert await snapshot(stage.store) == before


async def test_of_commits_that_race_one_wins(stage: Stage):
    await stage.begin_run(chain("a"))
    made = [await a_commit(stage, "", rev=f"7-{n}", fields=["mark", str(n)]) for n in range(8)]
    codes = await asyncio.gather(*(commit(stage, one) for one in made))
    assert sorted(code for (code,) in codes) == ["CONFLICT"] * 7 + ["OK"]
    winner = [n for n, (code,) in enumerate(codes) if code == "OK"]
    assert (await stage.hash())["mark"] == str(winner[0]).encode()


async def test_an_event_of_a_run_that_is_gone_goes_too(stage: Stage):
    await stage.begin_run(chain("a"))
    made = await a_commit(stage, "", id="nobody")
    partition = stage.of("nobody")
    before = await snapshot(stage.store)
    found = await transitions.commit(stage.store, partition, [made], RETENTION_MS)
    assert [code for code, _ in found] == ["GONE"]
    assert await snapshot(stage.store) == before


async def test_two_coordinators_with_the_same_event_dispatch_once(stage: Stage):
    """A copy of each event, and another coordinator that read it too."""
    await stage.offer(chain("a", "b"))
    await stage.start("chain")
    other = Stage(stage.store, name="stage:1:coordinator")
    messages = await stage.read_inbox(stage.of("run"))
    partition = stage.of("run")
    await asyncio.gather(
        *(one.dispatcher.handle(partition, messages) for one in (stage, other, stage))
    )
    assert len(await stage.entries()) == 1
    await stage.complete("worker", await stage.claim_one("worker"))
    messages = await stage.read_inbox(partition)
    await asyncio.gather(
        *(one.dispatcher.handle(partition, messages) for one in (other, stage, other))
    )
    assert [entry.pc for _, entry in await stage.entries()] == [1]
    assert (await stage.header()).seq == 2


# Skipping.


async def test_what_nobody_claimed_of_a_failed_step_is_skipped_and_what_runs_is_waited_for(
    stage: Stage,
):
    await stage.begin_run(fan(4))
    one, two, three, four = await stage.take("worker")
    for held in (one, two, three):
        await stage.begin("worker", held)
    await stage.fail("worker", two, 60_000)
    await stage.fail("worker", one)
    await stage.coordinate()
    statuses = [(await stage.record_of("run", 1, index)) for index in range(4)]
    assert [record.status if record else None for record in statuses] == [
        NodeStatus.FAILED, NodeStatus.SKIPPED, NodeStatus.RUNNING, NodeStatus.SKIPPED,
    ]  # fmt: skip
    assert await stage.store.execute("ZCARD", stage.of("run").timers) == 0
    assert (await stage.header()).pending == 1
    assert (await stage.begin("worker", four)).code == "STALE"
    await stage.complete("worker", three)
    await stage.coordinate()
    assert await stage.status() == "failed"


async def test_a_failed_step_that_nobody_works_on_any_more_is_over_at_once(stage: Stage):
    await stage.begin_run(fan(3))
    one, _, _ = await stage.take("worker")
    await stage.begin("worker", one)
    await stage.fail("worker", one)
    await stage.coordinate()
    assert await stage.status() == "failed"


async def test_a_wide_failed_step_is_skipped_page_by_page_with_what_was_never_dispatched(
    stage: Stage,
):
    width = 2 * PAGE + 7
    await stage.offer(fan(width))
    await stage.start("fan")
    partition = stage.of("run")
    await stage.dispatcher.handle(partition, await stage.read_inbox(partition))
    held = (await stage.take("worker", count=1))[0]
    await stage.begin("worker", held)
    await stage.fail("worker", held)
    await stage.coordinate()
    assert await stage.status() == "failed"
    assert len(await stage.entries()) <= PAGE
    found = await stage.hash()
    settled = [value for name, value in found.items() if name.startswith("n:1.")]
    assert len(settled) == width
    assert sum(value.startswith(b"skipped|") for value in settled) == width - 1


# Ending.


async def test_an_ended_run_moves_from_the_open_indexes_to_those_of_its_status(stage: Stage):
    await stage.begin_run(chain("a"))
    await stage.work()
    partition = stage.of("run")
    header = await stage.header()
    assert header.ended is not None
    for index in (partition.open, partition.open_of("chain")):
        assert await stage.store.execute("ZSCORE", index, "run") is None
    for index in (
        partition.ended(RunStatus.COMPLETED),
        partition.ended(RunStatus.COMPLETED, "chain"),
    ):
        assert float(await stage.store.execute("ZSCORE", index, "run")) == header.ended * 1000


async def test_an_ended_run_has_a_time_to_live_beyond_its_retention(stage: Stage):
    await stage.begin_run(chain("a"))
    key = stage.of("run").flow("run")
    assert await stage.store.execute("PTTL", key) == -1
    await stage.work()
    left = await stage.store.execute("PTTL", key)
    assert RETENTION_MS + BACKSTOP_MS - 10_000 < left <= RETENTION_MS + BACKSTOP_MS


async def test_the_end_of_a_run_is_published(stage: Stage):
    heard: asyncio.Queue[list[Any]] = asyncio.Queue()
    link = Link(stage.store.link.address, on_push=heard.put_nowait)
    connection = await link.connection()
    connection.post(("SUBSCRIBE", stage.of("run").channel("run")))
    assert (await heard.get())[0] == b"subscribe"
    await stage.begin_run(chain("a"))
    await stage.work()
    message = await heard.get()
    assert message[2] == b"completed"
    await link.close()


@pytest.mark.parametrize("width", [1, 3])
async def test_the_result_of_a_run_is_the_step_before_its_end(stage: Stage, width: int):
    flow = chain("a") if width == 1 else fan(width)
    await stage.begin_run(flow)
    await stage.work()
    header = await stage.header()
    assert header.previous == len(flow.plan.instructions) - 2


# Batches.


async def test_a_batch_of_runs_is_committed_in_one_call(stage: Stage):
    await stage.offer(chain("a"))
    ids = stage.ids(250)
    starts = [runs.Start(run_id, "chain", "q", NIL) for run_id in ids]
    await runs.start(stage.store, stage.of(ids[0]), starts, RETENTION_MS)
    await stage.coordinate()
    assert len(await stage.entries(ids[0])) == 250
    assert await stage.work() == 250


async def test_a_commit_that_fails_is_an_error_of_its_own_and_its_event_stays(stage: Stage):
    """Here, a stream to which nothing can be appended: somebody wrote a text under its name."""
    one, two = stage.ids(2)
    flow = chain("a")
    await stage.offer(flow)
    await stage.start(flow, one, queue="broken")
    await stage.start(flow, two)
    partition = stage.of(one)
    await stage.store.execute("SET", partition.queue("broken"), "a text")
    before = await stage.hash(one)
    await stage.coordinate()
    assert await stage.hash(one) == before
    assert len(await stage.entries(two)) == 1
    (event,) = await stage.events(one)
    assert event.kind is EventKind.START
    await stage.store.execute("DEL", partition.queue("broken"))


async def test_a_commit_says_when_the_run_moved(stage: Stage):
    await stage.begin_run(chain("a", "b"))
    await stage.complete("worker", await stage.claim_one("worker"))
    await stage.store.execute("HSET", stage.of("run").flow("run"), "moved", 1)
    before = await server_ms(stage.store)
    await stage.coordinate()
    assert before <= round((await stage.header()).moved * 1000) <= await server_ms(stage.store)


# A server that lost what it had.


@pytest.mark.parametrize("flow", [chain("a", "b"), chain("a")], ids=["next-step", "end"])
async def test_a_step_whose_result_was_lost_is_not_left(stage: Stage, flow: Flow[Any, Any]):
    """A coordinator has read that it is settled; the rev is the same, the result is gone."""
    await stage.begin_run(flow)
    held = await stage.claim_one("worker")
    key = stage.of("run").flow("run")
    before = await stage.store.execute("DUMP", key)
    assert await stage.complete("worker", held) == "OK"
    settled = await stage.read_inbox(stage.of("run"))
    await stage.store.execute("RESTORE", key, 0, before, "REPLACE")
    await stage.dispatcher.handle(stage.of("run"), settled)
    header = await stage.header()
    assert (header.status, header.seq, header.pending) == (RunStatus.RUNNING, 1, 1)
    assert await stage.entries() == []
    assert await stage.complete("worker", held) == "OK"
    await stage.work()
    assert await stage.status() is RunStatus.COMPLETED
