"""The client's own decisions: what it sends, what it refuses, what it finds again."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from resolute.client import Client, directory
from resolute.client.directory import Offered, choose_queue, encode_input
from resolute.errors import (
    ConfigurationError,
    InvalidInput,
    NotEncodable,
    ResoluteError,
    UnknownFlow,
    UnknownRun,
)
from resolute.model.builder import FlowBuilder
from resolute.model.triggers import manual
from resolute.status import RunStatus
from resolute.store.store import Store
from tests.support.flows import builder, chain, chain_of, step, undoable
from tests.support.stage import Stage

FLOW = chain_of(undoable("a"), step("b"))


class Order(msgspec.Struct):
    id: str = "o"
    total: int = 0


def untyped(value: Any) -> Any:
    """A value as a caller without a type checker gives it."""
    return value


def offered(kind: Any = Any, *queues: str, queue: str = "") -> Offered:
    """A flow with this type of input, offered on these queues."""
    made: Any = FlowBuilder("f", input=kind).triggered_by(manual()).then(step("a"))
    plan = (made.on_queue(queue) if queue else made).build().plan
    return Offered(plan, queues, time.monotonic())


# The queue.


def test_the_queue_that_is_asked_for_comes_before_the_flow_s_and_that_before_the_workers():
    assert choose_queue("f", offered(Any, "a", "b", queue="own"), "asked") == "asked"
    assert choose_queue("f", offered(Any, "a", "b", queue="own"), None) == "own"
    assert choose_queue("f", offered(Any, "a"), None) == "a"


def test_of_several_queues_one_must_be_named():
    with pytest.raises(ConfigurationError, match="offered on the queues a, b: name one"):
        choose_queue("f", offered(Any, "a", "b"), None)


# The input of a flow that is started by its name.


def test_without_an_input_a_flow_by_name_gets_its_defaults():
    assert encode_input("f", offered(Order), None) == b"\x80"


def test_without_an_input_a_flow_by_name_that_has_no_default_is_told_so():
    with pytest.raises(InvalidInput, match="nothing was given: None is not of type 'integer'"):
        encode_input("f", offered(int), None)


@pytest.mark.parametrize("kind", [None, Order | None, Any])
def test_without_an_input_a_flow_that_takes_none_gets_none(kind: Any):
    assert encode_input("f", offered(kind), None) == b"\xc0"


def test_an_input_that_the_schema_refuses_is_named_by_its_path():
    with pytest.raises(InvalidInput, match=r"at `\$\['total'\]`"):
        encode_input("f", offered(Order), {"id": "x", "total": "y"})


def test_an_input_that_cannot_be_encoded_is_named_by_its_path():
    with pytest.raises(NotEncodable, match=r"input\['id'\]"):
        encode_input("f", offered(Order), {"id": object()})


# The input of a flow whose code is here.


def test_without_an_input_a_flow_gets_the_defaults_of_its_type():
    flow = FlowBuilder("f", input=Order).triggered_by(manual()).then(step("a")).build()
    assert msgspec.msgpack.decode(encode_input(flow, offered(), None), type=Order) == Order()


def test_without_an_input_a_flow_that_needs_one_is_refused():
    class Needy(msgspec.Struct):
        must: int

    flow = FlowBuilder("f", input=Needy).triggered_by(manual()).then(step("a")).build()
    with pytest.raises(InvalidInput, match="expected a Needy"):
        encode_input(flow, offered(), None)


@pytest.mark.parametrize("kind", [int, str, bool, list[int], float, int | str])
def test_what_has_no_default_gets_none_that_is_made_up(kind: Any):
    made: Any = FlowBuilder("f", input=kind).triggered_by(manual())
    with pytest.raises(InvalidInput, match="it has no default"):
        encode_input(made.then(step("a")).build(), offered(), None)


# Offers.


async def test_an_offer_is_read_again_when_it_is_no_longer_fresh(
    stage: Stage, store: Store, monkeypatch: pytest.MonkeyPatch
):
    client = Client(store)
    monkeypatch.setattr(directory, "FRESH", 3600.0)
    old, new = chain("a", flow="f"), chain("a", "b", flow="f")
    await stage.offer(old)
    assert (await client.directory.offered("f")).plan == old.plan
    await stage.offer(new)
    assert (await client.directory.offered("f")).plan == old.plan
    monkeypatch.setattr(directory, "FRESH", 0.0)
    assert (await client.directory.offered("f")).plan == new.plan


async def test_a_flow_that_was_not_offered_is_asked_for_again(stage: Stage, store: Store):
    client = Client(store)
    with pytest.raises(UnknownFlow):
        await client.directory.offered("chain")
    await stage.offer(FLOW)
    assert (await client.directory.offered("chain")).plan == FLOW.plan


async def test_flows_that_the_server_lost_are_waited_for(
    stage: Stage, store: Store, monkeypatch: pytest.MonkeyPatch
):
    looked = asyncio.Event()

    def pause(_: int) -> float:
        looked.set()
        return 0.001

    monkeypatch.setattr(directory, "FRESH", 0.0)
    monkeypatch.setattr(directory, "backoff", pause)
    client = Client(store)
    await stage.offer(FLOW)
    await client.start(FLOW, id="before")
    await store.execute("DEL", store.keys.meta.flows)
    starting = asyncio.create_task(client.start(FLOW, id="meanwhile"))
    await looked.wait()
    await stage.offer(FLOW)
    assert (await starting).id == "meanwhile"


async def test_flows_that_nobody_offers_are_not_waited_for_for_ever(
    stage: Stage, store: Store, monkeypatch: pytest.MonkeyPatch
):
    looks: list[int] = []

    def pause(failures: int) -> float:
        looks.append(failures)
        return 0.001

    monkeypatch.setattr(directory, "FRESH", 0.0)
    monkeypatch.setattr(directory, "backoff", pause)
    with pytest.raises(UnknownFlow):
        await Client(store).start(FLOW)  # none was ever seen
    await stage.offer(FLOW)
    client = Client(store)
    await client.start(FLOW)
    with pytest.raises(UnknownFlow):
        await client.start("another")  # others are there
    assert looks == []
    await store.execute("DEL", store.keys.meta.flows)
    store.patience = 0.05
    with pytest.raises(UnknownFlow):
        await client.start(FLOW)
    assert looks


# Starting.


@pytest.mark.parametrize("ids", [[], ["one"], ["one", "two", "three"]])
async def test_there_must_be_an_id_for_each_input(stage: Stage, store: Store, ids: list[str]):
    await stage.offer(FLOW)
    client = Client(store)
    with pytest.raises(ValueError, match=f"expected 2, one for each input, got {len(ids)}"):
        await client.start_many(FLOW, [None, None], ids=ids)
    assert await client.list() == []


# Finding.


async def fail(stage: Stage, run_id: str) -> None:
    """Complete the first node of a run and fail the second for good."""
    await stage.complete("w", await stage.claim_one("w"), undo=b"\x92\x00\xc0")
    await stage.coordinate()
    await stage.fail("w", await stage.claim_one("w"))
    await stage.coordinate()
    assert await stage.status(run_id) is RunStatus.COMPENSATING


async def test_a_list_has_only_runs_of_the_status_asked_for(stage: Stage, store: Store):
    client = Client(store)
    await stage.begin_run(FLOW, "undoing")
    await fail(stage, "undoing")
    await stage.begin_run(FLOW, "running")

    async def ids(status: RunStatus | None) -> list[str]:
        return sorted(run.id for run in await client.list(status=status))

    assert await ids(RunStatus.RUNNING) == ["running"]
    assert await ids(RunStatus.COMPENSATING) == ["undoing"]
    assert await ids(RunStatus.FAILED) == []
    assert await ids(None) == ["running", "undoing"]


@pytest.mark.parametrize("limit", [1, 7, 50])
async def test_pages_go_through_runs_of_one_millisecond_completely(
    stage: Stage, store: Store, limit: int
):
    client = Client(store)
    await stage.offer(FLOW)
    at = datetime.now(UTC) + timedelta(hours=1)
    started = {run.id for run in await client.start_many(FLOW, [None] * 120, at=at)}
    for partition in store.keys.partitions:  # as if all were started in one millisecond
        for index in (partition.open, partition.open_of(FLOW.name)):
            for raw in await store.execute("ZRANGE", index, 0, -1):
                await store.execute("ZADD", index, 1_700_000_000_000, raw)
                key = partition.flow(str(raw, "utf-8"))
                await store.execute("HSET", key, "started", 1_700_000_000_000)
    found: list[str] = []
    while page := await client.list(limit=limit, after=found[-1] if found else None):
        assert len(page) == min(limit, 120 - len(found))
        found += [run.id for run in page]
    assert set(found) == started and len(found) == 120


async def test_a_status_that_is_none_is_refused(store: Store):
    with pytest.raises(ValueError, match=r"status: expected one of running, .*, got 'bogus'"):
        await Client(store).list(status="bogus")


# What cannot be started or found.


@pytest.mark.parametrize("flow", [None, 5, FlowBuilder("f")])
async def test_what_is_no_flow_is_not_started(store: Store, flow: Any):
    client = Client(store)
    for call in (client.start(flow), client.start(flow, unique="k"), client.start_many(flow, [])):
        with pytest.raises(TypeError, match="expected a flow or the name of one, got"):
            await call


@pytest.mark.parametrize("run_id", [None, 5, FlowBuilder("f")])
async def test_what_is_no_text_is_no_id(stage: Stage, store: Store, run_id: Any):
    client = Client(store)
    await stage.offer(FLOW)
    with pytest.raises(TypeError, match="run id: expected a text, got"):
        await client.get(run_id)
    with pytest.raises(UnknownRun):
        await client.get("\udcff")
    for wrong in (5, "\udcff", "a/b"):
        with pytest.raises(ValueError, match="run id: expected 1 to 200 characters"):
            await client.start_many(FLOW, [None], ids=[untyped(wrong)])


async def test_times_that_are_none_are_refused(stage: Stage, store: Store):
    await stage.offer(FLOW)
    client = Client(store)
    with pytest.raises(TypeError, match="expected a datetime"):
        await client.start(FLOW, at=untyped("2026"))
    for delay in (1e300, 10**400, float("inf"), "100000000000d"):
        with pytest.raises(ValueError, match=r"expected a duration of (up to|0 or more)"):
            await client.start(FLOW, delay=untyped(delay))
    await stage.begin_run(FLOW)
    for timeout in ("x", object()):
        with pytest.raises((TypeError, ValueError), match="expected a duration such as"):
            await (await client.get("run")).result(timeout=untyped(timeout))


# Waiting, and starting again.


async def test_a_start_may_wait_for_the_end(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    with pytest.raises(TimeoutError, match=r"run 'r' has not ended in 0\.01 s; it goes on"):
        await client.start(FLOW, id="r", wait=0.01)
    await stage.stop("r", terminate=True)
    await stage.coordinate()
    run = await client.start(FLOW, id="r", wait=True)
    assert await run.wait() is RunStatus.TERMINATED
    await client.watcher.close()


async def test_a_rerun_is_a_new_run_with_the_same_input_on_today_s_plan(stage: Stage, store: Store):
    client = Client(store)
    old = FlowBuilder("f", input=Order).triggered_by(manual()).then(step("a"))
    await stage.offer(old.build())
    await client.start("f", {"id": "x", "total": 3}, id="one", priority="high")
    await stage.coordinate()
    today = old.then(step("b")).build()
    await stage.offer(today)
    monday = Client(store)
    again = await monday.rerun("one", id="two")
    assert (await (await monday.get("two")).rerun(id="three")).id == "three"
    assert await monday.rerun("one", id="two") == again  # the same id is the same run
    assert (await monday.rerun("one")).id not in ("one", "two")
    await stage.coordinate()
    first, second = await stage.header("one"), await stage.header("two")
    assert (second.plan, second.queue, second.retry_of) == (today.plan_hash, first.queue, None)
    assert (await stage.hash("two"))["input"] == (await stage.hash("one"))["input"]
    with pytest.raises(UnknownRun):
        await monday.rerun("nobody")


async def test_a_rerun_of_an_input_that_today_s_flow_does_not_take_is_refused(
    stage: Stage, store: Store
):
    await stage.begin_run(chain("a", flow="f"), data=b"\x07")
    await stage.offer(FlowBuilder("f", input=Order).triggered_by(manual()).then(step("a")).build())
    with pytest.raises(InvalidInput, match="7 is not of type 'object'"):
        await Client(store).rerun("run")


# Retrying.


async def test_a_run_that_has_not_ended_is_not_retried(stage: Stage, store: Store):
    await stage.begin_run(FLOW)
    with pytest.raises(ResoluteError, match="is running: only one that failed"):
        await Client(store).retry("run")


async def test_a_run_that_ended_before_it_began_is_not_retried(stage: Stage, store: Store):
    await stage.start(FLOW)  # of a flow that nobody offers
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    with pytest.raises(ResoluteError, match="ended before it began"):
        await Client(store).retry("run")


async def test_retries_of_retries_are_numbered_after_the_first_run(stage: Stage, store: Store):
    client = Client(store)
    await stage.begin_run(chain("a"))
    for expected in ("run/~1", "run/~2"):
        last = "run" if expected.endswith("1") else "run/~1"
        await stage.fail("w", await stage.claim_one("w"))
        await stage.coordinate()
        assert (await client.retry(last)).id == expected
        await stage.coordinate()
    assert (await client.retry("run", number=2)).id == "run/~2"
    assert (await client.retry("run")).id == "run/~3"


async def test_a_run_that_a_retry_started_is_retried_as_that_run(stage: Stage, store: Store):
    """Its number is behind its own id: behind that of the retry it would be one of the parent."""
    child = chain("work", flow="kid")
    parent = builder("dad").then_children("kids", flow=child, inputs=lambda _: [1]).build()
    client = Client(store)
    await stage.offer(child, parent)
    await stage.start(parent)
    for expected in ("run", "run/~1"):
        await stage.coordinate()
        while claimed := await stage.claim("w"):
            for held in claimed:
                if stage.node(held).name == "kids.inputs":
                    assert await stage.store_items("w", held, [b"\x01"]) == "OK"
                    assert await stage.complete("w", held, b"\x01", arg="1") == "OK"
                else:
                    assert held.entry.flow == f"{expected}/kids.0"
                    await stage.fail("w", held)
            await stage.coordinate()
        assert await stage.status(expected) == "failed"
        if expected == "run":
            assert (await client.retry("run")).id == "run/~1"
    for number in (1, 2):
        again = await client.retry("run/~1/kids.0")
        assert again.id == f"run/~1/kids.0/~{number}"
    assert (await client.retry("run/~1/kids.0", number=2)).id == "run/~1/kids.0/~2"
    assert (await client.retry("run/~1")).id == "run/~2"


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "1/kids.0", "a|b", "\n"])
async def test_a_retry_has_a_number_from_1_on(stage: Stage, store: Store, number: Any):
    await stage.begin_run(chain("a"))
    await stage.fail("w", await stage.claim_one("w"))
    await stage.coordinate()
    with pytest.raises(ValueError, match="expected a number of 1 or more, got"):
        await Client(store).retry("run", number=number)


@pytest.mark.leaves_keys("the number of partitions is changed under it")
async def test_a_client_that_outlived_its_namespace_starts_nothing_where_nobody_reads(
    stage: Stage,
):
    """Everything was flushed, and begun anew with another number of partitions."""
    client = Client(stage.store)
    await stage.offer(FLOW)
    await stage.store.find_partitions()
    await stage.store.execute("SET", stage.store.keys.meta.partitions, 7)
    with pytest.raises(ConfigurationError, match=r"has 7 partition\(s\) now, and had"):
        await client.start(FLOW.name, id="r")
    assert not await stage.hash("r")
