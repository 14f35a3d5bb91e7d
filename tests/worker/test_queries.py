"""Queries: answered beside the nodes, whatever their functions do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from resolute import FlowBuilder, FlowState, manual, node
from resolute.model.flow import Flow
from resolute.store import queries
from resolute.store.queries import Question
from resolute_worker.queries import THREADS
from tests.support.stage import QUEUE, Stage
from tests.worker.parts import Parts

released = threading.Event()


@node("work")
async def work() -> int:
    return 7


def waiting(state: FlowState) -> str:
    return "released" if released.wait(30) else "given up"


def exits(state: FlowState) -> str:
    raise SystemExit(3)


FLOW: Flow[Any, Any] = (
    FlowBuilder("asked")
    .triggered_by(manual())
    .with_query("waiting", waiting)
    .with_query("exits", exits)
    .then(work)
    .build()
)


def question(stage: Stage, number: int, nonce: str) -> Question:
    return Question(stage.of("run"), QUEUE, FLOW.plan_hash, "run", number, nonce)


async def answer(stage: Stage, asked: Question) -> Any:
    data = await queries.read_answer(stage.store, asked)
    return msgspec.msgpack.decode(data) if data is not None else None


async def test_a_query_that_does_not_return_holds_up_no_node(
    stage: Stage, make_parts: Callable[..., Parts]
):
    released.clear()
    parts = make_parts(FLOW)
    await parts.reader.ensure_groups()
    await stage.begin_run(FLOW)
    asked = [question(stage, 0, f"n{number}") for number in range(THREADS + 1)]
    for one in asked:
        await queries.ask(stage.store, one)
    for held in await stage.take("host:1:worker", f"{QUEUE}@{FLOW.plan_hash}"):
        parts.deliver(held)
    for held in await stage.take("host:1:worker"):
        parts.deliver(held)
    async with asyncio.timeout(20):
        while (await stage.header()).pending:
            await asyncio.sleep(0)  # the node runs on this loop, and so would the query
    assert await answer(stage, asked[0]) is None
    released.set()
    await parts.settle()
    assert [await answer(stage, one) for one in asked] == [[0, "released"]] * len(asked)


async def test_one_that_ends_the_program_is_answered_with_that(
    stage: Stage, make_parts: Callable[..., Parts]
):
    parts = make_parts(FLOW)
    await parts.reader.ensure_groups()
    await stage.begin_run(FLOW)
    asked = question(stage, 1, "n")
    await queries.ask(stage.store, asked)
    for held in await stage.take("host:1:worker", f"{QUEUE}@{FLOW.plan_hash}"):
        parts.deliver(held)
    await parts.settle()
    failed, error = await answer(stage, asked)
    assert (failed, error[0]) == (1, "SystemExit")


async def test_a_query_that_is_looked_at_again_is_answered_once(
    stage: Stage, make_parts: Callable[..., Parts]
):
    """What is pending is looked at once a lease: also what was just answered and withdrawn."""
    parts = make_parts(FLOW)
    await parts.reader.ensure_groups()
    await stage.begin_run(FLOW)
    asked = question(stage, 1, "n")
    entry = await queries.ask(stage.store, asked)
    (held,) = await stage.take("host:1:worker", f"{QUEUE}@{FLOW.plan_hash}")
    parts.deliver(held)
    parts.deliver(held)
    await parts.settle()
    assert await answer(stage, asked) is not None
    await queries.withdraw(stage.store, asked, entry)
    parts.deliver(held)
    await parts.settle()
    assert await answer(stage, asked) is None
