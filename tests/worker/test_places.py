"""Places in a worker process: taken before a start, given back whatever comes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from resolute import ConcurrencyLimit, RateLimit
from resolute.engine.admission import read_hold
from resolute.model.nodes import AsyncNode, Node
from resolute.model.plan import PlacesPlan
from resolute.status import NodeStatus
from resolute.store import limits, places, registry
from resolute.store.keys import Partition
from resolute.store.limits import Ask
from resolute.store.places import Spot, Terms
from resolute.store.runs import Record
from resolute_worker.jobs import Stop
from tests.support.flows import chain_of, step
from tests.support.stage import Stage, forget
from tests.support.system import until
from tests.worker.parts import NAME, ONCE, ONE, OTHER, Gate, Make, Parts, held_by

ONE_PLACE = ConcurrencyLimit("one", 1)
SPOT = Spot(PlacesPlan("one", 1))
ONE_NAME = ("one", "")
TERMS = Terms(60_000, 60_000)


async def held_in(stage: Stage, limit: str = "one") -> list[str]:
    """The processes that have places."""
    key = stage.store.keys.meta.places(limit)[0]
    return [str(v, "utf-8").partition("|")[0] for v in await stage.store.execute("HVALS", key)]


async def in_line(stage: Stage, limit: str = "one") -> int:
    return int(await stage.store.execute("ZCARD", stage.store.keys.meta.places(limit)[1]))


async def record_of(stage: Stage, run_id: str) -> Record:
    record = await stage.record_of(run_id, 1, 0)
    assert record is not None
    return record


async def begin_two(stage: Stage, make_parts: Make, node: Node[Any, Any]) -> Parts:
    """Two runs of a flow of one node, read by one process."""
    flow = chain_of(node)
    for number in (1, 2):
        await stage.begin_run(flow, f"run-{number}", msgspec.msgpack.encode(number))
    parts = make_parts(flow)
    await parts.read()
    return parts


async def one_of_two(stage: Stage, make_parts: Make, node: Node[Any, Any]) -> tuple[Parts, str]:
    """As before; one of them got the place, the other one, which is named, waits."""
    parts = await begin_two(stage, make_parts, node)

    async def is_deferred() -> bool:
        return await stage.store.execute("ZCARD", stage.of("run-1").timers) == 1

    await until(is_deferred, "one of them waits")
    records = {name: await record_of(stage, name) for name in ("run-1", "run-2")}
    (waiting,) = [n for n, one in records.items() if one.status is NodeStatus.WAITING]
    return parts, waiting


def limited(gate: Gate) -> Node[Any, Any]:
    return held_by(gate).with_concurrency(ONE_PLACE)


async def streams_of(stage: Stage, partition: Partition) -> int:
    return int(await stage.store.execute("XLEN", partition.queue("q")))


@ONE
async def test_who_gets_no_place_waits_without_a_slot_and_is_woken(stage: Stage, make_parts: Make):
    gate = Gate()
    parts, waiting = await one_of_two(stage, make_parts, limited(gate))
    record = await record_of(stage, waiting)
    assert (read_hold(record.hold).limit, record.attempt) == (0, 1)
    assert len(parts.runner.jobs) == 1
    gate.open.set()
    await parts.idle()
    assert (await record_of(stage, waiting)).status is NodeStatus.READY
    await parts.work()
    assert gate.began == 2
    assert (await held_in(stage), await in_line(stage)) == ([], 0)


async def raises(value: Any) -> None:
    raise ConnectionError("no")


async def hangs(value: Any) -> None:
    await asyncio.Event().wait()


@ONE
@pytest.mark.parametrize("how", ["fails", "is tried again", "times out", "cancelled", "returned"])
async def test_a_place_is_given_back_whatever_comes_of_its_node(
    stage: Stage, make_parts: Make, how: str
):
    fn = raises if how in ("fails", "is tried again") else hangs
    node: Node[Any, Any] = AsyncNode("a", fn, concurrency=ONE_PLACE)
    if how != "is tried again":
        node = node.with_retry(ONCE)
    if how == "times out":
        node = node.with_timeout("50ms")
    flow = chain_of(node)
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.read()
    if how in ("cancelled", "returned"):
        await until(lambda: parts.job().is_running, "it runs")
        assert await held_in(stage) == [NAME]
        parts.runner.stop_all(Stop.CANCEL if how == "cancelled" else Stop.HAND_BACK)
    await parts.idle()
    assert await held_in(stage) == []


@ONE
@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
async def test_a_key_function_that_raises_fails_its_node(
    stage: Stage, make_parts: Make, kind: type[BaseException]
):
    def broken(value: int) -> str:
        raise kind(f"no key for {value}")

    limit = ConcurrencyLimit("one", 1, key=broken)
    parts = await begin_two(stage, make_parts, step("a", concurrency=limit, retry=ONCE))
    await parts.idle()
    for number in (1, 2):
        assert b"no key for" in (await stage.hash(f"run-{number}"))["x:a"]


@ONE
@pytest.mark.parametrize("bad", ["\ud800", "x" * 1001], ids=["no text", "too long"])
async def test_a_key_that_none_can_have_fails_its_node_alone(
    stage: Stage, make_parts: Make, bad: str
):
    def key(value: int) -> str:
        return bad if value == 1 else "good"

    limited = step("a", concurrency=ConcurrencyLimit("one", 1, key=key), retry=ONCE)
    parts = await begin_two(stage, make_parts, limited)
    await parts.idle()
    assert b"key of limit" in (await stage.hash("run-1"))["x:a"]
    assert "o:a" in await stage.hash("run-2")


@ONE
async def test_who_waits_for_one_limit_has_no_place_of_another(stage: Stage, make_parts: Make):
    gate = Gate()
    wide = ConcurrencyLimit("wide", 5)
    node = held_by(gate).with_concurrency((wide, ONE_PLACE))
    parts, _ = await one_of_two(stage, make_parts, node)
    await until(lambda: not parts.runner.places._tasks, "what is not needed is given back")
    assert (await held_in(stage, "wide"), await in_line(stage, "wide")) == ([NAME], 0)
    gate.open.set()
    await parts.idle()


# Beside rate limits.


@ONE
async def test_who_waits_for_its_time_has_no_place_meanwhile(stage: Stage, make_parts: Make):
    node = step("a", rate_limit=RateLimit(1, "8s", burst=1), concurrency=ONE_PLACE)
    parts = await begin_two(stage, make_parts, node)
    await parts.idle()
    assert await held_in(stage) == []
    # Whichever had to wait for the other's place asks for its time when it is woken.
    while await streams_of(stage, stage.of("run-1")):
        await parts.work()
    records = [await record_of(stage, name) for name in ("run-1", "run-2")]
    (waiting,) = [one for one in records if one.status is NodeStatus.WAITING]
    hold = read_hold(waiting.hold)
    assert hold.rate.startswith("reserved:") and hold.ticket and hold.limit is None
    assert (await held_in(stage), await in_line(stage)) == ([], 0)


@ONE
async def test_who_waits_for_a_place_takes_no_token(stage: Stage, make_parts: Make):
    gate = Gate()
    rate = RateLimit(2, "8s", burst=2)
    node = limited(gate).with_rate_limit(rate)
    parts, _ = await one_of_two(stage, make_parts, node)
    (grant,) = await limits.take(
        stage.store, parts.job().bound.plan.limits[0], "", [(Ask.NEW, 0, 0)]
    )
    assert grant.time <= grant.now  # the second of two
    gate.open.set()
    await parts.idle()


@ONE
async def test_who_comes_at_its_time_and_gets_no_place_leaves_its_start_to_others(
    stage: Stage, make_parts: Make
):
    node = step("a", rate_limit=RateLimit(1, "8s", burst=1), concurrency=ONE_PLACE)
    flow = chain_of(node)
    plan = flow.plan.step(0).nodes[0].limits[0]
    grants = await limits.take(stage.store, plan, "", [(Ask.NEW, 0, 0)] * 2)
    await places.take(stage.store, OTHER, 1, SPOT, TERMS, [places.Ask("x|1|0|q", "t.0")])
    await stage.begin_run(flow)
    held = await stage.claim_one(OTHER)
    hold = f"reserved:{grants[1].time}:0=5"
    await stage.give_back(OTHER, held, 1, hold=hold)
    await stage.make_due(held.partition)
    await stage.release(held.partition)
    await make_parts(flow).work()
    record = await record_of(stage, "run")
    assert read_hold(record.hold).rate == f"line:{grants[1].time}:0"
    (again,) = await limits.take(stage.store, plan, "", [(Ask.NEW, 0, 0)])
    assert again.time == grants[1].time


# What a look puts right.


async def wait_behind(stage: Stage, make_parts: Make, process: str) -> Parts:
    """A node in line, since `process` has the place."""
    await places.take(stage.store, process, 1, SPOT, TERMS, [places.Ask("x|1|0|q", "t.0")])
    flow = chain_of(step("a", concurrency=ONE_PLACE))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.work()
    assert await in_line(stage) == 1
    return parts


@ONE
async def test_a_place_of_a_process_that_has_left_is_free(stage: Stage, make_parts: Make):
    parts = await wait_behind(stage, make_parts, OTHER)
    await forget(stage.store, OTHER)
    await parts.runner.places.look()
    await parts.runner.places.drain()
    await parts.work()
    assert "o:a" in await stage.hash()


@ONE
async def test_a_place_of_a_process_that_nobody_knows_is_free_after_a_lease(
    stage: Stage, make_parts: Make
):
    """Not before: the server may have lost the second in which it was registered."""
    parts = await wait_behind(stage, make_parts, OTHER)
    seats = parts.runner.places
    await seats.look()
    await seats.look()
    assert await held_in(stage) == [OTHER]
    seats._unknown[OTHER] -= seats._lease
    await seats.look()
    await seats.drain()
    await parts.work()
    assert "o:a" in await stage.hash()


@ONE
async def test_a_place_of_a_process_that_lives_is_not_free(stage: Stage, make_parts: Make):
    await stage.offer(process=OTHER)
    parts = await wait_behind(stage, make_parts, OTHER)
    await parts.runner.places.look()
    await parts.runner.places.drain()
    assert (await held_in(stage), await in_line(stage)) == ([OTHER], 1)
    assert (await record_of(stage, "run")).status is NodeStatus.WAITING
    await registry.end_lease(stage.store, OTHER)
    await parts.runner.places.look()
    await parts.runner.places.drain()
    assert (await record_of(stage, "run")).status is NodeStatus.READY


@ONE
async def test_places_that_the_server_forgot_are_taken_again_after_a_reconnect(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    parts, _ = await one_of_two(stage, make_parts, limited(gate))
    await stage.store.execute("DEL", *stage.store.keys.meta.places("one"))
    await parts.runner.reaffirm()
    assert await held_in(stage) == [NAME]
    gate.open.set()
    await parts.idle()


@ONE
async def test_a_wake_that_was_lost_is_made_up_for(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    async def dies(*_: object) -> list[str]:
        raise OSError("the process died here")

    gate = Gate()
    parts, waiting = await one_of_two(stage, make_parts, limited(gate))
    with monkeypatch.context() as patched:
        patched.setattr(places, "wake", dies)
        gate.open.set()
        await parts.idle()
    assert (await record_of(stage, waiting)).status is NodeStatus.WAITING
    woken = stage.store.keys.meta.places("one")[2]
    (name,) = await stage.store.execute("ZRANGE", woken, 0, -1)
    await stage.store.execute("ZINCRBY", woken, -60_000, name)
    await parts.runner.places.look()
    await parts.runner.places.drain()
    await parts.work()
    assert gate.began == 2


@ONE
async def test_who_waits_and_is_cancelled_makes_way(stage: Stage, make_parts: Make):
    gate = Gate()
    parts, waiting = await one_of_two(stage, make_parts, limited(gate))
    await stage.stop(waiting)
    await stage.coordinate()
    gate.open.set()
    await parts.idle()
    assert (await held_in(stage), await in_line(stage)) == ([], 0)


@ONE
async def test_what_got_its_place_when_the_lease_may_be_over_does_not_start(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    gate = Gate()
    flow = chain_of(limited(gate))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    take = places.take

    async def late(*arguments: Any) -> Any:
        answer = await take(*arguments)
        parts.fence()
        return answer

    monkeypatch.setattr(places, "take", late)
    await parts.work()
    assert gate.began == 0
    assert await held_in(stage) == []
    assert (await record_of(stage, "run")).status is NodeStatus.READY


@ONE
async def test_a_limit_whose_key_is_damaged_uses_up_no_attempt(stage: Stage, make_parts: Make):
    key = stage.store.keys.meta.places("one")[0]
    await stage.store.execute("SET", key, "x", "EX", 60)
    flow = chain_of(step("a", concurrency=ONE_PLACE))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.work()
    record = await record_of(stage, "run")
    assert (record.status, record.attempt) == (NodeStatus.WAITING, 1)


@ONE
async def test_a_limit_that_is_not_used_any_more_is_forgotten(stage: Stage, make_parts: Make):
    flow = chain_of(step("a", concurrency=ONE_PLACE))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.work()
    seats = parts.runner.places
    await seats.look()
    assert ONE_NAME in seats._limits
    seats._limits[ONE_NAME].used -= 1000
    await seats.look()
    assert not seats._limits


@ONE
async def test_a_look_that_was_held_up_takes_nothing_that_was_given_since(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    gate, is_away, is_back = Gate(), asyncio.Event(), asyncio.Event()
    both = (ConcurrencyLimit("other", 5), ONE_PLACE)
    before, flow = chain_of(step("a", concurrency=both), flow="before"), chain_of(limited(gate))
    parts = make_parts(before, flow)
    await stage.begin_run(before, "before")
    await parts.work()
    sync = places.sync

    async def away(*arguments: Any) -> Any:
        if not is_away.is_set():
            is_away.set()
            await is_back.wait()
        return await sync(*arguments)

    monkeypatch.setattr(places, "sync", away)
    seats = parts.runner.places
    first = asyncio.create_task(seats.look())
    await is_away.wait()
    seats._limits[ONE_NAME].used -= 1000
    second = asyncio.create_task(seats.look())  # as after a reconnect: it could forget the limit
    await stage.begin_run(flow)
    await parts.read()
    await until(lambda: gate.began == 1, "it runs")
    is_back.set()
    await first
    assert await held_in(stage) == [NAME]
    await second
    gate.open.set()
    await parts.idle()


# One account of each limit, whatever happens.


async def run_both(stage: Stage, make_parts: Make, gate: Gate, *limits: ConcurrencyLimit) -> Parts:
    """A node under each of these limits, each of a flow of its own, until they are let go."""
    flows = [
        chain_of(held_by(gate).with_concurrency(limit), flow=f"of-{number}")
        for number, limit in enumerate(limits)
    ]
    parts = make_parts(*flows)
    for flow in flows:
        await stage.begin_run(flow, flow.name)
        await parts.read()
        await until(lambda: all(job.is_running for job in parts.runner.jobs.values()), "it runs")
    assert gate.began == len(limits)
    return parts


def keyed(text: str, n: int = 1) -> ConcurrencyLimit:
    return ConcurrencyLimit("one", n, key=lambda _: text)


@ONE
async def test_nodes_that_do_not_agree_on_a_limit_do_not_take_each_others_places(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    limits = [ConcurrencyLimit("one", 1), ConcurrencyLimit("one", 2)]
    parts = await run_both(stage, make_parts, gate, *limits)
    await parts.runner.places.look()
    assert await held_in(stage) == [NAME, NAME]
    gate.open.set()
    await parts.idle()


@ONE
async def test_limits_that_look_alike_and_keys_of_one_have_places_of_their_own(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    limits = [ConcurrencyLimit("one:x", 1), keyed("x"), keyed("y"), keyed(":x"), ONE_PLACE]
    parts = await run_both(stage, make_parts, gate, *limits)
    await parts.runner.places.look()
    places_of = stage.store.keys.meta.places
    found = [places_of("one:x"), places_of("one"), *(places_of("one", k) for k in ("x", "y", ":x"))]
    counts = [await stage.store.execute("HLEN", held) for held, _, _ in found]
    assert counts == [1] * 5
    gate.open.set()
    await parts.idle()


@ONE
async def test_an_account_with_a_call_to_make_is_not_forgotten(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    is_away, is_back = asyncio.Event(), asyncio.Event()
    flow = chain_of(step("a", concurrency=ONE_PLACE))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    seats = parts.runner.places
    take = places.take

    async def away(*arguments: Any) -> Any:
        is_away.set()
        await is_back.wait()
        return await take(*arguments)

    monkeypatch.setattr(places, "take", away)
    await parts.read()
    await is_away.wait()
    seats._limits[ONE_NAME].used -= 1000
    seats._forget()
    assert ONE_NAME in seats._limits
    is_back.set()
    await parts.idle()


@ONE
async def test_an_account_of_which_a_call_was_sent_twice_is_kept_for_a_while(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    """Its first copy may come when its place was given back, and takes one that nobody has."""
    flow = chain_of(step("a", concurrency=ONE_PLACE))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    seats = parts.runner.places
    take, copies = places.take, list[tuple[Any, ...]]()

    async def twice(*arguments: Any) -> Any:
        copies.append(arguments)
        stage.store.servers.home.generation += 1  # as after a reconnect
        return await take(*arguments)

    monkeypatch.setattr(places, "take", twice)
    await parts.work()
    seats._limits[ONE_NAME].used -= 1000
    await seats.look()
    await take(*copies[0])
    assert await held_in(stage) == [NAME]
    await seats.look()
    assert await held_in(stage) == []
    seats._limits[ONE_NAME].copies_until = 0.0
    await seats.look()
    assert not seats._limits


@ONE
async def test_of_one_hand_out_in_two_timelines_each_has_its_own_place(
    stage: Stage, make_parts: Make
):
    """The server lost the second in which a node was taken back, and it was taken back again."""
    gate = Gate()
    flow = chain_of(limited(gate))
    await stage.begin_run(flow)
    dead = await stage.claim_one("dead")
    key = dead.partition.flow("run")
    before = await stage.store.execute("DUMP", key)
    assert await stage.reclaim(dead, "dead") == "OK"
    parts = make_parts(flow)
    await parts.read()
    await until(lambda: gate.began == 1, "it runs")
    lost = parts.job().held
    await stage.store.execute("RESTORE", key, 0, before, "REPLACE")
    await stage.store.execute("XDEL", dead.stream, lost.id)
    await stage.store.execute("DEL", *stage.store.keys.meta.places("one"))
    assert await stage.reclaim(dead, "dead") == "OK"
    other = make_parts(flow, name=OTHER)
    await other.read()
    await until(lambda: gate.began == 2, "it runs in the other process")
    assert other.job().held.entry.token == lost.entry.token
    await parts.runner.reaffirm()
    await until(lambda: not parts.runner.jobs, "the first one has stopped")
    await parts.runner.places.drain()
    assert await held_in(stage) == [OTHER]
    gate.open.set()
    await other.idle()


# After a reconnect.


@ONE
async def test_after_a_reconnect_places_are_said_before_an_outcome_is_answered(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    gate, is_sent, is_back = Gate(), asyncio.Event(), asyncio.Event()
    flow, other = chain_of(limited(gate)), chain_of(step("a"), flow="other")
    parts = make_parts(flow, other)
    await stage.begin_run(flow)
    await parts.read()
    await until(lambda: gate.began == 1, "it runs")

    async def drains() -> None:
        is_sent.set()
        await is_back.wait()

    await stage.store.execute("DEL", *stage.store.keys.meta.places("one"))
    monkeypatch.setattr(parts.runner.committer, "drain", drains)
    again = asyncio.create_task(parts.runner.reaffirm())

    async def is_said() -> bool:
        return await held_in(stage) == [NAME]

    await until(is_said, "the server knows of its place again")
    is_back.set()
    await again
    monkeypatch.undo()
    gate.open.set()
    await parts.idle()


@ONE
async def test_after_a_reconnect_a_place_is_asked_for_when_those_there_are_known(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    parts, waiting = await one_of_two(stage, make_parts, limited(gate))
    await stage.store.execute("DEL", *stage.store.keys.meta.places("one"))
    stage.store.servers.home.generation += 1  # as after a reconnect
    await stage.make_due(stage.of(waiting))
    await stage.release(stage.of(waiting))
    await parts.read()
    await until(lambda: len(parts.runner.jobs) == 1, "the second one waits again")
    assert (gate.began, await held_in(stage)) == (1, [NAME])
    gate.open.set()
    await parts.idle()
    await parts.work()
    assert gate.began == 2


@ONE
async def test_a_limit_whose_key_is_damaged_keeps_nobody_from_the_others(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    bad = chain_of(held_by(gate).with_concurrency(ConcurrencyLimit("bad", 1)), flow="bad")
    parts = make_parts(bad, chain_of(step("a", concurrency=ONE_PLACE)))
    await stage.begin_run(bad, "bad")
    await parts.read()
    await until(lambda: gate.began == 1, "it runs")
    await forget(stage.store, OTHER)
    await places.take(stage.store, OTHER, 1, SPOT, TERMS, [places.Ask("x|1|0|q", "t.0")])
    seats = parts.runner.places
    seats._limit(SPOT)
    key = stage.store.keys.meta.places("bad")[0]
    await stage.store.execute("SET", key, "x", "EX", 60)
    await seats.look()
    assert await held_in(stage) == []
    await stage.store.execute("DEL", key)
    gate.open.set()
    await parts.idle()
