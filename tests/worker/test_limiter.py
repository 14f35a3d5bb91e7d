"""Limits in a worker process: buckets, keys, push-backs, late starts."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from resolute import current
from resolute.engine.admission import asks_of, buckets_of
from resolute.errors import RetryAfter
from resolute.model.nodes import AsyncNode, Node, SyncNode
from resolute.model.policies import RateLimit, SharedRateLimit
from resolute.status import NodeStatus
from resolute.store import limits, nodes
from resolute.store.limits import Ask, Grant
from resolute_worker.limiter import Admission, Bucket, Limiter, _asks
from tests.support.flows import chain_of, step
from tests.support.stage import Stage
from tests.worker.parts import NAME, ONCE, ONE, Gate, Make, Parts, held_by


async def begin_two(stage: Stage, make_parts: Make, limited: Node[Any, Any]) -> Parts:
    """Two runs of a flow of one limited node, with the inputs 1 and 2, read by one process."""
    flow = chain_of(limited)
    for number in (1, 2):
        await stage.begin_run(flow, f"run-{number}", msgspec.msgpack.encode(number))
    parts = make_parts(flow)
    await parts.work()
    return parts


async def outcomes(stage: Stage) -> list[bool]:
    """Which of the two nodes have an output."""
    return sorted(["o:a" in await stage.hash(f"run-{number}") for number in (1, 2)])


@ONE
async def test_a_limit_without_a_key_is_one_bucket(stage: Stage, make_parts: Make):
    await begin_two(stage, make_parts, step("a", rate_limit=RateLimit(1, "1h", burst=1)))
    assert await outcomes(stage) == [False, True]


@ONE
async def test_a_key_splits_the_bucket_by_the_input(stage: Stage, make_parts: Make):
    limit = RateLimit(1, "1h", burst=1, key=str)
    await begin_two(stage, make_parts, step("a", rate_limit=limit))
    assert await outcomes(stage) == [True, True]


@ONE
@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
async def test_a_key_function_that_raises_fails_its_node(
    stage: Stage, make_parts: Make, kind: type[BaseException]
):
    def broken(value: int) -> str:
        raise kind(f"no key for {value}")

    limit = RateLimit(1, "1h", key=broken)
    await begin_two(stage, make_parts, step("a", rate_limit=limit, retry=ONCE))
    for number in (1, 2):
        assert b"no key for" in (await stage.hash(f"run-{number}"))["x:a"]


@ONE
@pytest.mark.parametrize("bad", ["\ud800", "x" * 1001], ids=["no text", "too long"])
async def test_a_key_that_none_can_have_fails_its_node_alone(
    stage: Stage, make_parts: Make, bad: str
):
    def key(value: int) -> str:
        return bad if value == 1 else "good"

    limited = step("a", rate_limit=RateLimit(1, "1h", key=key), retry=ONCE)
    await begin_two(stage, make_parts, limited)
    assert b"key of limit" in (await stage.hash("run-1"))["x:a"]
    assert "o:a" in await stage.hash("run-2")


@ONE
async def test_of_two_limits_the_one_that_granted_alone_gets_its_token_back(
    stage: Stage, make_parts: Make
):
    wide = SharedRateLimit("wide", 1, "8s", burst=1)
    both = step("a", rate_limit=(wide, RateLimit(1, "1h", burst=1)))
    parts = await begin_two(stage, make_parts, both)
    assert await outcomes(stage) == [False, True]
    (flow,) = parts.runner.offers._flows.values()
    plan = flow.plan.step(0).nodes[0].limits[0]
    (grant,) = await limits.take(stage.store, plan, "", [(Ask.NEW, 0, 0)])
    assert grant.time - grant.now <= 8_000_000  # the turn that the second run was granted


@ONE
async def test_retry_after_keeps_everybody_under_the_same_limit_waiting(
    stage: Stage, make_parts: Make
):
    called: list[int] = []

    async def refused(value: int) -> None:
        called.append(value)
        raise RetryAfter(600)

    limited: Node[Any, Any] = AsyncNode("a", refused, rate_limit=RateLimit(100, "1s", burst=1))
    flow = chain_of(limited)
    parts = make_parts(flow)
    for number in (1, 2):
        await stage.begin_run(flow, f"run-{number}", msgspec.msgpack.encode(number))
        await parts.work()
    assert called == [1]
    record = await stage.record_of("run-2", 1, 0)
    assert record is not None
    assert record.status is NodeStatus.WAITING


async def pauses(value: int) -> int:
    current().pause_limits(600)
    return value


def pauses_in_a_thread(value: int) -> int:
    current().pause_limits(600)
    return value


@ONE
@pytest.mark.parametrize("kind", ["on the loop", "in a thread"])
async def test_a_node_that_succeeds_can_keep_everybody_under_its_limits_waiting(
    stage: Stage, make_parts: Make, kind: str
):
    shared = (RateLimit(100, "1s"), SharedRateLimit("api", 100, "1s"))
    limited: Node[Any, Any] = AsyncNode("a", pauses, rate_limit=shared)
    if kind == "in a thread":
        limited = SyncNode("a", pauses_in_a_thread, rate_limit=shared)
    flow = chain_of(limited)
    parts = make_parts(flow)
    for number in (1, 2):
        await stage.begin_run(flow, f"run-{number}", msgspec.msgpack.encode(number))
        await parts.work()
    assert await outcomes(stage) == [False, True]
    for plan in flow.plan.step(0).nodes[0].limits:
        (grant,) = await limits.take(stage.store, plan, "", [(Ask.NEW, 0, 0)])
        assert not grant.granted or grant.time - grant.now > 500_000_000


@ONE
async def test_a_pause_is_of_the_bucket_that_the_input_chose(stage: Stage, make_parts: Make):
    limit = RateLimit(100, "1s", key=str)
    flow = chain_of(AsyncNode("a", pauses, rate_limit=limit))
    parts = make_parts(flow)
    for number in (1, 2):
        await stage.begin_run(flow, f"run-{number}", msgspec.msgpack.encode(number))
        await parts.work()
    assert await outcomes(stage) == [True, True]


@ONE
@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), 31 * 86_400, "10s", True, None])
async def test_what_is_no_pause_fails_the_node_and_says_what_was_expected(
    stage: Stage, make_parts: Make, bad: Any
):
    async def wrong(_: Any) -> None:
        current().pause_limits(bad)

    flow = chain_of(AsyncNode("a", wrong, rate_limit="100/s", retry=ONCE))
    await stage.begin_run(flow)
    await make_parts(flow).work()
    error = (await stage.hash())["x:a"]
    assert b"pause_limits: expected 0 to 2,592,000 seconds, got " + repr(bad).encode() in error


@ONE
async def test_a_node_without_limits_pauses_nothing(stage: Stage, make_parts: Make):
    flow = chain_of(AsyncNode("a", pauses))
    await stage.begin_run(flow, "run-1", msgspec.msgpack.encode(1))
    await make_parts(flow).work()
    assert "o:a" in await stage.hash("run-1")


@ONE
async def test_a_start_that_a_stall_made_late_asks_anew(stage: Stage, make_parts: Make):
    gate = Gate()
    flow = chain_of(held_by(gate).with_rate_limit("1/s"))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    job = parts.adopt(await stage.take_one(NAME))
    job.begun = await stage.begin(NAME, job.held)
    started: list[Any] = []
    again: list[Any] = []
    limiter = Limiter(
        stage.store, parts.runner.places, 60.0, started.append, unexpected, unexpected, again.append
    )
    loop = asyncio.get_running_loop()
    bucket: Bucket = (job.bound.plan.limits[0], "")
    grant: dict[Bucket, Grant] = {bucket: Grant(True, 1_000, 7, 1_000)}
    await limiter._decide(Admission(job, [bucket], loop.time() - 0.05, loop.time(), grant))
    assert (started, again) == ([job], [])
    await limiter._decide(Admission(job, [bucket], loop.time() - 0.5, loop.time(), grant))
    assert (started, again) == ([job], [job])
    assert job.begun.hold == "line:1000:7"
    parts.runner.jobs.clear()


def unexpected(*_: Any) -> None:
    raise AssertionError("neither handed back nor failed")


@ONE
@pytest.mark.parametrize(
    ("hold", "asked"),
    [
        ("", (Ask.NEW, 0, 0)),
        ("reserved:1000:7", (Ask.CONFIRM, 1000, 7)),
        ("line:1000:7", (Ask.RETURNING, 1000, 7)),
    ],
)
async def test_who_comes_back_asks_for_what_it_was_promised(
    stage: Stage, make_parts: Make, hold: str, asked: tuple[Ask, int, int]
):
    flow = chain_of(step("a", rate_limit=(RateLimit(1), SharedRateLimit("other", 1))))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    job = parts.adopt(await stage.take_one(NAME))
    job.begun = nodes.Begun("OK", hold=hold)
    buckets = buckets_of(job.bound, job.value)
    assert _asks(Admission(job, buckets[:1], 0.0)) == [asked]
    assert _asks(Admission(job, buckets, 0.0)) == [(Ask.NEW, 0, 0)] * 2
    parts.runner.jobs.clear()


@ONE
@pytest.mark.parametrize("slow_first", [True, False])
async def test_who_waits_in_line_for_one_of_two_limits_keeps_its_turn(
    stage: Stage, make_parts: Make, slow_first: bool
):
    both = (SharedRateLimit("slow", 1, "1h", burst=1), RateLimit(1000, "1s"))
    limited = step("a", rate_limit=both if slow_first else both[::-1])
    parts = await begin_two(stage, make_parts, limited)
    (waiting,) = [
        record
        for number in (1, 2)
        if (record := await stage.record_of(f"run-{number}", 1, 0)) is not None
        and record.status is NodeStatus.WAITING
    ]
    told = asks_of(waiting.hold, 2)
    assert [ask for ask, _, _ in told] == [Ask.RETURNING] * 2  # no newcomer to either any more
    slow, quick = told if slow_first else told[::-1]
    assert slow[1] - quick[1] > 3_000_000_000  # us
    parts.runner.jobs.clear()


@ONE
async def test_two_limits_of_one_node_do_not_use_up_each_other(stage: Stage, make_parts: Make):
    flow = chain_of(step("a", rate_limit=(RateLimit(5, "1s"), RateLimit(100, "1h"))))
    parts = make_parts(flow)
    for name in ("one", "two", "three"):
        await stage.begin_run(flow, name)
        await parts.work()
        assert "o:a" in await stage.hash(name), name
