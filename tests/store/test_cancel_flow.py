from __future__ import annotations

from typing import Any

import pytest

from resolute.status import EventKind, RunStatus
from tests.store.test_retry_flow import failed_at, retry
from tests.support.flows import builder, chain, chain_of, fan, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NO_UNDO_INPUT, Stage


async def test_a_cancelled_run_is_failing_with_the_reason_and_somebody_looks_at_it(stage: Stage):
    await stage.begin_run(chain("a"))
    rev = (await stage.header()).rev
    assert await stage.stop("run") == "OK"
    header = await stage.header()
    assert (header.status, header.cancelled) == (RunStatus.FAILING, True)
    assert header.error is not None
    assert header.error.type == "Cancelled"
    (event,) = await stage.events()
    assert (event.kind, event.rev) == (EventKind.LOOK, header.rev)
    assert header.rev != rev


async def test_a_cancelled_run_ends_as_cancelled_and_runs_nothing_more(stage: Stage):
    await stage.begin_run(chain("a", "b"))
    await stage.stop("run")
    assert await stage.work() == 0
    assert await stage.status() == "cancelled"


async def test_what_completed_before_the_cancel_is_compensated(stage: Stage):
    await stage.begin_run(chain_of(undoable("a"), step("b")))
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    held = await stage.claim_one("worker")
    await stage.stop("run")
    await stage.coordinate()
    assert await stage.status() == "failing"
    await stage.complete("worker", held)
    await stage.coordinate()
    undo = await stage.claim_one("worker")
    assert undo.entry.undo == 1
    await stage.complete("worker", undo)
    await stage.coordinate()
    assert await stage.status() == "cancelled"


async def test_the_process_that_runs_a_node_is_told_to_cancel_it(stage: Stage):
    await stage.begin_run(fan(3))
    one, two, _ = await stage.take("worker")
    await stage.begin("worker-1", one)
    await stage.begin("worker-2", two)
    await stage.stop("run")
    await stage.coordinate()
    meta = stage.store.keys.meta
    for number, held in ((1, one), (2, two)):
        told = await stage.store.execute("SMEMBERS", meta.cancels(f"worker-{number}"))
        entry = held.entry
        assert told == [f"run|{entry.seq}.{entry.index}|{entry.token}".encode()]


@pytest.mark.parametrize("terminate", [False, True])
async def test_stopping_twice_is_stopping_once(stage: Stage, terminate: bool):
    await stage.begin_run(chain("a"))
    assert await stage.stop("run", terminate=terminate) == "OK"
    before = await snapshot(stage.store)
    assert await stage.stop("run", terminate=terminate) == "OK"
    assert await snapshot(stage.store) == before


async def test_a_run_that_fails_by_itself_cannot_be_cancelled_any_more(stage: Stage):
    await stage.begin_run(fan(2))
    one, _ = await stage.claim("worker")
    await stage.fail("worker", one)
    before = await snapshot(stage.store)
    assert await stage.stop("run") == "EXISTS"
    assert await snapshot(stage.store) == before


@pytest.mark.parametrize("terminate", [False, True])
async def test_an_ended_run_cannot_be_stopped(stage: Stage, terminate: bool):
    await stage.begin_run(chain("a"))
    await stage.work()
    before = await snapshot(stage.store)
    assert await stage.stop("run", terminate=terminate) == "EXISTS"
    assert await snapshot(stage.store) == before


@pytest.mark.parametrize("terminate", [False, True])
async def test_a_run_that_is_not_there_cannot_be_stopped(stage: Stage, terminate: bool):
    assert await stage.stop("nobody", terminate=terminate) == "GONE"


async def test_a_terminated_run_ends_at_once_without_compensation(stage: Stage):
    await stage.begin_run(chain_of(undoable("a"), step("b")))
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    held = await stage.claim_one("worker")
    assert await stage.stop("run", terminate=True) == "OK"
    await stage.coordinate()
    header = await stage.header()
    assert header.status is RunStatus.TERMINATED
    assert header.error is not None
    assert header.error.type == "Terminated"
    assert await stage.complete("worker", held) == "STALE"
    assert await stage.work() == 0


@pytest.mark.parametrize("is_settled_first", [True, False])
async def test_after_a_terminate_nothing_more_is_dispatched(stage: Stage, is_settled_first: bool):
    """Whichever event is handled first, that of the settled step or that of the terminate."""
    await stage.begin_run(chain("a", "b"))
    held = await stage.claim_one("worker")
    await stage.stop("run", terminate=True)
    await stage.complete("worker", held)
    messages = await stage.read_inbox(held.partition)
    for message in messages[::-1] if is_settled_first else messages:
        await stage.dispatcher.handle(held.partition, [message])
    assert await stage.status() == "terminated"
    assert (await stage.header()).seq == 1
    assert await stage.entries() == []


@pytest.mark.parametrize("first", ["cancel", "fail"])
async def test_a_failing_run_can_still_be_terminated(stage: Stage, first: str):
    await stage.begin_run(fan(2))
    one, _ = await stage.claim("worker")
    assert await (stage.stop("run") if first == "cancel" else stage.fail("worker", one)) == "OK"
    await stage.coordinate()
    assert await stage.stop("run", terminate=True) == "OK"
    await stage.coordinate()
    assert await stage.status() == "terminated"


@pytest.mark.parametrize(("terminate", "status"), [(False, "cancelled"), (True, "terminated")])
@pytest.mark.parametrize("is_offered", [False, True])
async def test_a_run_that_nobody_has_begun_is_stopped_before_its_first_step(
    stage: Stage, terminate: bool, status: str, is_offered: bool
):
    flow = chain("a")
    if is_offered:
        await stage.offer(flow)
    await stage.start(flow)
    await stage.stop("run", terminate=terminate)
    await stage.coordinate()
    assert await stage.status() == status
    assert await stage.entries() == []


async def test_a_cancel_between_two_pages_of_a_step_leaves_no_node_to_run(stage: Stage):
    await stage.offer(fan(600))
    await stage.start("fan")
    partition = stage.of("run")
    await stage.dispatcher.handle(partition, await stage.read_inbox(partition))
    await stage.stop("run")
    await stage.coordinate()
    assert await stage.status() == "cancelled"
    for held in await stage.take("worker"):
        assert (await stage.begin("worker", held)).code == "STALE"


@pytest.mark.parametrize("terminate", [False, True])
async def test_of_a_stopped_run_only_who_runs_a_node_is_told(stage: Stage, terminate: bool):
    """Not who completed one, and nobody for one that was handed back."""
    await stage.begin_run(fan(3))
    one, two, three = await stage.claim("worker")
    await stage.complete("worker", one)
    await stage.give_back("worker", two)
    await stage.stop("run", terminate=terminate)
    await stage.coordinate()
    meta = stage.store.keys.meta
    told = await stage.store.execute("SMEMBERS", meta.cancels("worker"))
    assert told == [f"run|1.2|{three.entry.token}".encode()]
    assert await stage.store.execute("EXISTS", meta.cancels("")) == 0


async def test_of_a_terminated_run_who_compensates_an_item_of_a_list_is_told(stage: Stage):
    """The width that the run knows is that of the list after it."""
    flow = (
        builder("lists")
        .then_each("many", undoable("one"), items=lambda _: range(3))
        .then_each("few", step("other"), items=lambda _: [0])
        .then(step("last").with_input(1))
        .build()
    )
    await stage.begin_run(flow)
    for count in (3, 1):
        held = await stage.claim_one("worker")
        assert await stage.store_items("worker", held, [b"\x01"] * count) == "OK"
        assert await stage.complete("worker", held, bytes([count]), arg=str(count)) == "OK"
        await stage.coordinate()
        for one in await stage.claim("worker"):
            undo = NO_UNDO_INPUT if stage.node(one).compensation else None
            assert await stage.complete("worker", one, undo=undo) == "OK"
        await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    undo = await stage.claim_one("worker")
    assert (undo.entry.undo, undo.entry.index) == (3, 2)
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    told = await stage.store.execute("SMEMBERS", stage.store.keys.meta.cancels("worker"))
    assert told == [f"run|{undo.entry.seq}.2|{undo.entry.token}".encode()]


async def test_in_a_wide_step_of_a_terminated_run_every_process_is_told(stage: Stage):
    await stage.begin_run(fan(1010))
    last = (await stage.take("worker", count=2000))[-1]
    await stage.begin("worker", last)
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    told = await stage.store.execute("SMEMBERS", stage.store.keys.meta.cancels("worker"))
    assert told == [f"run|1.1009|{last.entry.token}".encode()]


async def test_a_retried_run_can_be_terminated_before_its_first_step(stage: Stage):
    await failed_at(stage, 2)
    assert await retry(stage) == "OK"
    await stage.stop("run/~1", terminate=True)
    await stage.coordinate()
    assert await stage.status("run/~1") == "terminated"


@pytest.mark.parametrize("terminate", [True, False])
async def test_a_resend_after_the_run_has_ended_of_it_answers_as_the_first_time(
    stage: Stage, terminate: bool, monkeypatch: pytest.MonkeyPatch
):
    await stage.begin_run(chain("a"))
    sent: list[tuple[Any, ...]] = []
    call = stage.store.call

    async def recorded(*parts: Any) -> Any:
        if parts[0] == "cancel_flow":
            sent.append(parts)
        return await call(*parts)

    monkeypatch.setattr(stage.store, "call", recorded)
    assert await stage.stop("run", terminate=terminate) == "OK"
    await stage.coordinate()
    assert (await stage.status()).is_terminal
    assert await call(*sent[0]) == [[b"OK"]]
    assert await stage.stop("run", terminate=True) == "EXISTS"  # another one's
