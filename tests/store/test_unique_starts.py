"""Unique keys: one open run has a key, its end gives it to who waits, and nothing keeps it."""

from __future__ import annotations

import asyncio

import pytest

from resolute.client.retrying import TOLD, plan_retry
from resolute.coordinator.reconciler import Reconciler
from resolute.errors import ErrorInfo
from resolute.model.messages import Event
from resolute.status import EventKind, RunStatus
from resolute.store import claims, registry, runs
from resolute.store.keys import unique_claim
from resolute.store.runs import Claim, Seen, Start
from tests.support.flows import chain, chain_of, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NIL, NO_UNDO_INPUT, QUEUE, RETENTION_MS, Stage

FLOW = chain_of(undoable("a"), step("b"))
KEY = unique_claim("chain", "customer 7 | {x}")


async def start(
    stage: Stage,
    run_id: str,
    if_running: str = "fail",
    *,
    data: bytes = NIL,
    period_ms: int = 0,
) -> claims.Verdict:
    """Start a run with the key."""
    claim = Claim(KEY, if_running, period_ms)  # pyright: ignore[reportArgumentType]  # of a parameter
    wanted = Start(run_id, "chain", QUEUE, data)
    return await claims.start(stage.store, stage.of(run_id), wanted, claim, RETENTION_MS)


async def retry(stage: Stage, source: str, target: str) -> claims.Verdict:
    """Retry a run of FLOW, as a client does."""
    header = await stage.header(source)
    fields = {name: v for name, v in (await stage.hash(source)).items() if name.startswith(TOLD)}
    found = plan_retry(header, FLOW.plan, fields)
    return await claims.retry(stage.store, header, target, found.drop, found.fields)


async def reconcile(stage: Stage) -> int:
    return await Reconciler(stage.store, stage.catalog, 0.0, lambda _: False).run_once()


async def holders(stage: Stage, run_id: str) -> dict[str, str]:
    """The claims of a partition."""
    reply = await stage.store.execute("HGETALL", stage.of(run_id).claims)
    return {str(k, "utf-8"): str(v, "utf-8") for k, v in zip(reply[::2], reply[1::2], strict=True)}


@pytest.mark.parametrize("if_running", ["fail", "existing"])
async def test_while_a_run_with_the_key_is_open_no_other_is_started(stage: Stage, if_running: str):
    one, other = stage.ids(2)
    assert await start(stage, one) == ("OK", "")
    before = await snapshot(stage.store)
    assert await start(stage, other, if_running) == ("TAKEN", one)
    assert await snapshot(stage.store) == before


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "terminated"])
async def test_however_a_run_ends_its_key_is_free_then(stage: Stage, end: str):
    one, other = stage.ids(2)
    await stage.offer(FLOW)
    await start(stage, one)
    await stage.coordinate()
    match end:
        case "completed":
            await stage.work()
        case "failed":
            assert await stage.fail("worker", await stage.claim_one("worker")) == "OK"
        case _:
            await stage.stop(one, terminate=end == "terminated")
    await stage.coordinate()
    assert await stage.status(one) == end
    assert await holders(stage, one) == {}
    assert await start(stage, other) == ("OK", "")


async def test_the_key_of_a_run_that_is_being_undone_is_still_taken(stage: Stage):
    one, other = stage.ids(2)
    await stage.offer(FLOW)
    await start(stage, one)
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    assert await stage.status(one) == RunStatus.COMPENSATING
    assert await start(stage, other) == ("TAKEN", one)
    await stage.work()
    assert await stage.status(one) == RunStatus.FAILED
    assert await start(stage, other) == ("OK", "")


async def test_other_keys_and_other_flows_are_not_meant(stage: Stage):
    one, two, three = stage.ids(3)
    await start(stage, one)
    for run_id, key in ((two, unique_claim("chain", "8")), (three, unique_claim("other", "7"))):
        wanted = Start(run_id, "chain", QUEUE, NIL)
        answer = await claims.start(
            stage.store, stage.of(one), wanted, Claim(key, "fail"), RETENTION_MS
        )
        assert answer == ("OK", "")


async def test_of_many_starts_at_once_one_is_started(stage: Stage):
    ids = stage.ids(20)
    found = await asyncio.gather(*(start(stage, run_id, "existing") for run_id in ids))
    (winner,) = [run_id for run_id, one in zip(ids, found, strict=True) if one.code == "OK"]
    assert {one.other for one in found if one.code != "OK"} == {winner}


async def test_a_delayed_run_has_its_key_from_its_start(stage: Stage):
    one, other = stage.ids(2)
    wanted = Start(one, "chain", QUEUE, NIL, delay=60_000)
    await claims.start(stage.store, stage.of(one), wanted, Claim(KEY), RETENTION_MS)
    assert await start(stage, other) == ("TAKEN", one)
    await stage.stop(one)
    await stage.coordinate()
    assert await start(stage, other) == ("OK", "")


async def test_a_start_that_is_sent_again_is_the_run_that_it_was(stage: Stage):
    (one,) = stage.ids(1)
    await start(stage, one)
    assert await start(stage, one) == ("EXISTS", "")
    assert await start(stage, one, data=b"\x01") == ("CONFLICT", "")


# Periods.


async def test_for_its_period_a_key_is_taken_also_when_its_run_has_ended(stage: Stage):
    one, other, third = stage.ids(3)
    await stage.offer(FLOW)
    await start(stage, one, period_ms=60_000)
    await stage.work()
    assert await stage.status(one) == RunStatus.COMPLETED
    assert await start(stage, other, period_ms=60_000) == ("TAKEN", one)
    recent = stage.of(one).recent(KEY)
    assert 0 < await stage.store.execute("PTTL", recent) <= 60_000
    await stage.store.execute("PEXPIRE", recent, 0)
    assert await start(stage, other, period_ms=60_000) == ("OK", "")
    assert await start(stage, third, period_ms=60_000) == ("TAKEN", other)


# Replacing.


async def test_who_replaces_a_run_begins_in_the_script_that_ends_that(stage: Stage):
    one, other = stage.ids(2)
    await stage.offer(FLOW)
    await start(stage, one)
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    assert await start(stage, other, "replace") == ("OK", "")
    assert (await holders(stage, one))[KEY] == one
    await stage.coordinate()
    held = await stage.take("worker")  # the step that was ready, and what is undone
    assert {one_of.entry.flow for one_of in held} == {one}
    assert await stage.events(other) == []
    header = await stage.header(other)
    assert (header.status, header.plan, header.replaces) == (RunStatus.RUNNING, "", one)
    for each in held:
        if (await stage.begin("worker", each)).code == "OK":
            assert await stage.complete("worker", each) == "OK"
    await stage.work()
    assert (await stage.header(one)).error == ErrorInfo("Cancelled", f"replaced by run {other}")
    assert await stage.status(one) == RunStatus.CANCELLED
    assert await stage.status(other) == RunStatus.COMPLETED
    ended, began = (await stage.header(one)).ended, (await stage.hash(other))["s:1"]
    assert ended is not None and int(began.rpartition(b"|")[2]) >= round(ended * 1000)
    assert await holders(stage, one) == {}


async def test_of_several_that_replace_a_run_the_last_one_begins(stage: Stage):
    one, two, three, four = stage.ids(4)
    await stage.offer(FLOW)
    await start(stage, one)
    await stage.coordinate()
    held = await stage.claim_one("worker")
    assert await start(stage, two, "replace") == ("OK", "")
    assert await start(stage, three, "replace") == ("OK", "")
    await stage.coordinate()
    assert await stage.status(two) == RunStatus.CANCELLED
    assert await start(stage, four) == ("TAKEN", three)
    assert (await stage.header(three)).plan == ""
    assert await stage.complete("worker", held, undo=NO_UNDO_INPUT) == "OK"
    await stage.work()
    assert await stage.status(one) == RunStatus.CANCELLED
    assert await stage.status(three) == RunStatus.COMPLETED


async def test_who_waits_for_a_key_can_be_cancelled_and_nobody_waits_then(stage: Stage):
    one, other, third = stage.ids(3)
    await stage.offer(FLOW)
    await start(stage, one)
    await stage.coordinate()
    held = await stage.claim_one("worker")
    await start(stage, other, "replace")
    await stage.stop(other)
    await stage.coordinate()
    assert await stage.status(other) == RunStatus.CANCELLED
    assert await holders(stage, one) == {KEY: one}
    assert await start(stage, third) == ("TAKEN", one)
    await stage.complete("worker", held, undo=NO_UNDO_INPUT)
    await stage.work()
    assert await holders(stage, one) == {}


async def test_where_nobody_has_the_key_who_would_replace_begins_at_once(stage: Stage):
    (one,) = stage.ids(1)
    await stage.offer(FLOW)
    assert await start(stage, one, "replace") == ("OK", "")
    await stage.work()
    assert await stage.status(one) == RunStatus.COMPLETED


@pytest.mark.parametrize("kind", ["look", "sweep"])
async def test_who_waits_for_a_key_is_not_begun_by_a_look(stage: Stage, kind: str):
    one, other = stage.ids(2)
    await stage.offer(FLOW)
    await start(stage, one)
    await stage.coordinate()
    held = await stage.claim_one("worker")
    await start(stage, other, "replace")
    await stage.coordinate()
    header = await stage.header(other)
    assert not await claims.may_begin(stage.store, header)
    if kind == "look":
        await registry.push_event(stage.store, stage.of(other), Event(EventKind.LOOK, other))
    else:
        assert await reconcile(stage) == 0
    await stage.coordinate()
    assert (await stage.header(other)).plan == ""
    await stage.complete("worker", held, undo=NO_UNDO_INPUT)
    await stage.work()
    assert await stage.status(other) == RunStatus.COMPLETED


async def test_a_start_event_that_was_lost_is_made_up_for(stage: Stage):
    one, other = stage.ids(2)
    await stage.offer(FLOW)
    await start(stage, one)
    await start(stage, other, "replace")
    partition = stage.of(one)
    while await holders(stage, one) != {KEY: other}:
        await stage.dispatcher.handle(partition, await stage.read_inbox(partition))
    await stage.store.execute("DEL", partition.inbox)
    assert (await stage.header(other)).plan == ""
    assert await reconcile(stage) == 1
    await stage.work()
    assert await stage.status(other) == RunStatus.COMPLETED


# What should not be there.


async def test_a_key_whose_run_was_deleted_by_hand_is_free_at_the_next_start(stage: Stage):
    one, other, third = stage.ids(3)
    await stage.offer(FLOW)
    await start(stage, one)
    await stage.store.execute("DEL", stage.of(one).flow(one))
    assert await start(stage, other) == ("OK", "")
    assert await start(stage, third) == ("TAKEN", other)
    assert await reconcile(stage) >= 1  # its places in the indexes


async def test_who_waits_for_a_run_that_was_deleted_by_hand_has_the_key_at_the_next_start(
    stage: Stage,
):
    one, other, third = stage.ids(3)
    await stage.offer(FLOW)
    await start(stage, one)
    await start(stage, other, "replace")
    await stage.store.execute("DEL", stage.of(one).flow(one))
    assert await start(stage, third) == ("TAKEN", other)
    await stage.work()
    assert await stage.status(other) == RunStatus.COMPLETED
    assert await reconcile(stage) == 1  # its places in the indexes


# Retried runs.


async def test_a_retried_run_has_the_key_again_and_only_if_it_is_free(stage: Stage):
    one, other = stage.ids(2)
    await stage.offer(FLOW)
    await start(stage, one)
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    await start(stage, other)
    before = await snapshot(stage.store)
    assert await retry(stage, one, f"{one}/~1") == ("TAKEN", other)
    assert await snapshot(stage.store) == before
    await stage.stop(other, terminate=True)
    await stage.coordinate()
    assert await retry(stage, one, f"{one}/~1") == ("OK", "")
    assert await holders(stage, one) == {KEY: f"{one}/~1"}
    assert await retry(stage, one, f"{one}/~2") == ("TAKEN", f"{one}/~1")
    await stage.work()
    assert await stage.status(f"{one}/~1") == RunStatus.COMPLETED
    assert await holders(stage, one) == {}


async def test_a_verdict_needs_the_hashes_of_those_that_have_the_key(stage: Stage):
    """Who did not know them is told, and nothing is written."""
    one, other = stage.ids(2)
    await start(stage, one)
    before = await snapshot(stage.store)
    wanted = Start(other, "chain", QUEUE, NIL, claim=Claim(KEY, "replace"))
    ((code, holder, waiting, recent),) = await runs.send_starts(
        stage.store, stage.of(one), [wanted], RETENTION_MS
    )
    assert (code, holder, waiting, recent) == (b"TAKEN", one.encode(), b"", b"")
    wanted.claim = Claim(KEY, "replace", seen=Seen("nobody"))
    await runs.send_starts(stage.store, stage.of(one), [wanted], RETENTION_MS)
    assert await snapshot(stage.store) == before


async def test_a_plain_run_leaves_the_claims_alone(stage: Stage):
    await stage.begin_run(chain("a"))
    await stage.work()
    assert await holders(stage, "run") == {}
