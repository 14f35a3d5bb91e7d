"""The client's own decisions: what it sends, what it refuses, what it finds again."""

from __future__ import annotations

import time
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


# Retrying.


async def test_a_run_that_has_not_ended_is_not_retried(stage: Stage, store: Store):
    await stage.begin_run(FLOW)
    with pytest.raises(ResoluteError, match="is running: only a failed one"):
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
