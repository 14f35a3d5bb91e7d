"""When a process is dead, and what becomes of what it had."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.leases import Leases
from resolute.status import Code
from resolute.store import nodes, registry, streams
from resolute.store.keys import Partition
from resolute.store.queries import Question, ask
from resolute.store.script import GROUP_COORDINATORS, GROUP_WORKERS
from resolute.store.store import Store
from tests.support.clocks import FakeClock
from tests.support.flows import builder, chain, chain_of, fan, step
from tests.support.keyspace import snapshot
from tests.support.links import read_group
from tests.support.stage import QUEUE, Stage, forget

LEASE = 15.0
FLOW = chain("a")


class Watch:
    """A coordinator's look at the leases, on a clock that the test moves."""

    def __init__(self, store: Store, name: str = "watch:0:coordinator") -> None:
        self.clock = FakeClock()
        self.leases = Leases(store, Catalog(store, self.clock), self.clock, name, LEASE)

    async def look(self, after: float = 0.0) -> int:
        """Look after so many seconds; how many processes were cleared away."""
        self.clock.advance(after)
        return await self.leases.run_once()

    async def look_until_over(self) -> int:
        """Look as often as a coordinator does until whoever is silent has had its whole lease."""
        return sum([await self.look(LEASE / 3) for _ in range(5)])


@pytest.fixture
def watch(store: Store) -> Watch:
    return Watch(store)


async def register(stage: Stage, name: str, *, lease: float = LEASE, queue: str = QUEUE) -> None:
    info = registry.ProcessInfo(
        name, "worker", "host", 1, await registry.server_ms(stage.store), lease, queue
    )
    await registry.register(stage.store, info, {})


# When a lease is over.


async def test_a_process_that_beats_again_before_it_is_cleared_away_keeps_its_lease(
    stage: Stage, watch: Watch, monkeypatch: pytest.MonkeyPatch
):
    """It was cut off for a lease, and is back after the look and before what follows from it."""
    await stage.begin_run(FLOW)
    await register(stage, "back")
    assert [await watch.look(span) for span in (0, 5, 5, 4.9)] == [0, 0, 0, 0]
    held: list[nodes.Held] = []
    read_beats = registry.read_beats

    async def then_it_is_back(store: Store) -> registry.Beats:
        found = await read_beats(store)
        assert await registry.beat(store, ["back"]) != [None]
        held.append(await stage.claim_one("back"))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(registry, "read_beats", then_it_is_back)
        await watch.look(0.1)
    assert "back" in await registry.processes(stage.store)
    record = await stage.record(held[0])
    assert record is not None
    assert record.process == "back"
    assert await registry.beat(stage.store, ["back"]) != [None]


async def test_a_process_whose_lease_was_ended_hears_so_before_it_is_cleared_away(
    stage: Stage, watch: Watch
):
    await register(stage, "silent")
    assert await registry.end_silent_lease(stage.store, "silent", 1)
    assert await registry.end_silent_lease(stage.store, "silent", 1)  # a resend
    assert await registry.beat(stage.store, ["silent"]) == [None]
    await register(stage, "lively")
    await registry.beat(stage.store, ["lively"])
    assert not await registry.end_silent_lease(stage.store, "lively", 1)
    assert not await registry.end_silent_lease(stage.store, "lively", None)


async def test_a_process_that_beats_is_never_cleared_away(stage: Stage, watch: Watch):
    await register(stage, "alive")
    for _ in range(20):
        await registry.beat(stage.store, ["alive"])
        assert await watch.look(LEASE / 3) == 0
    assert set(await registry.processes(stage.store)) == {"alive"}


async def test_a_lease_is_over_when_the_same_beat_was_seen_for_the_whole_of_it(
    stage: Stage, watch: Watch
):
    await register(stage, "silent")
    assert [await watch.look(span) for span in (0, 5, 5, 4.9)] == [0, 0, 0, 0]
    assert await watch.look(0.1) == 1
    assert await registry.processes(stage.store) == {}
    assert await registry.beats(stage.store) == {}


async def test_a_coordinator_that_just_started_gives_everybody_a_whole_lease(
    stage: Stage, watch: Watch
):
    """However long the process has been silent: it has not been watched."""
    await register(stage, "silent")
    watch.clock.advance(10 * LEASE)
    assert await watch.look() == 0
    assert not watch.leases.is_over("silent")


async def test_one_beat_is_enough_for_another_lease(stage: Stage, watch: Watch):
    await register(stage, "slow")
    assert [await watch.look(span) for span in (0, 5, 5)] == [0, 0, 0]
    await registry.beat(stage.store, ["slow"])
    assert [await watch.look(span) for span in (0.5, 5, 5, 4.9)] == [0, 0, 0, 0]
    assert await watch.look(0.2) == 1


async def test_while_its_own_reads_are_not_answered_no_lease_goes_on(stage: Stage, watch: Watch):
    """Redis did not answer for longer than a lease, so nobody could beat."""
    await register(stage, "alive")
    assert [await watch.look(span) for span in (0, 5, 100 * LEASE)] == [0, 0, 0]
    # Of the outage a third of a lease counts: it may be the usual pause between two looks.
    assert await watch.look(4.8) == 0
    assert await watch.look(0.3) == 1


async def test_looks_that_are_slow_end_a_lease_all_the_same(stage: Stage, watch: Watch):
    """A coordinator under load: each of its looks takes a second more than it should."""
    await register(stage, "silent")
    await watch.look()
    assert sum([await watch.look(LEASE / 3 + 1) for _ in range(4)]) == 1


async def test_on_a_new_connection_a_coordinator_watches_from_anew(stage: Stage, watch: Watch):
    await register(stage, "alive")
    assert [await watch.look(span) for span in (0, 5, 5)] == [0, 0, 0]
    (await stage.store.link.connection()).close()
    assert [await watch.look(span) for span in (5, 5, 5, 4.9)] == [0, 0, 0, 0]
    assert await watch.look(0.2) == 1


async def beaten(stage: Stage, name: str, count: int, age: float) -> None:
    """The process has beaten so many seconds ago, by Redis's clock."""
    at = await registry.server_ms(stage.store) - round(age * 1000)
    await stage.store.execute("HSET", stage.store.keys.meta.beats, name, f"{count} {at}")


async def test_a_lease_counts_from_the_beat_and_not_from_when_it_was_seen(
    stage: Stage, watch: Watch
):
    await register(stage, "silent")
    await watch.look()
    await beaten(stage, "silent", 2, age=4.0)
    watch.leases._last_server_time -= 5.0  # the clock of Redis went on as ours does
    await watch.look(5)
    assert watch.leases.pause() == pytest.approx(5.0)
    assert [await watch.look(span) for span in (5, 5)] == [0, 0]
    assert watch.leases.pause() == pytest.approx(1.05, abs=0.1)
    assert await watch.look(1.05) == 1


async def test_a_clock_of_redis_that_jumped_is_not_believed(stage: Stage, watch: Watch):
    """An hour forward: every beat looks as old as that."""
    await register(stage, "alive")
    await watch.look()
    await beaten(stage, "alive", 2, age=3600.0)
    watch.leases._last_server_time -= 3605.0
    await watch.look(5)
    assert [await watch.look(span) for span in (5, 5, 4.9)] == [0, 0, 0]
    assert await watch.look(0.1) == 1


async def test_a_beat_is_never_older_than_the_look_before_it(stage: Stage, watch: Watch):
    await register(stage, "alive")
    await watch.look()
    await beaten(stage, "alive", 2, age=60.0)
    watch.leases._last_server_time -= 5.0
    await watch.look(5)
    assert [await watch.look(span) for span in (5, 4.9)] == [0, 0]
    assert await watch.look(0.2) == 1


async def test_between_its_reads_a_coordinator_calls_nobody_dead(stage: Stage, watch: Watch):
    """The reconciler asks, too; it may be the first to whom Redis answers after an outage."""
    await register(stage, "alive")
    await watch.look()
    assert not watch.leases.is_over("never registered")
    watch.clock.advance(100 * LEASE)
    assert not watch.leases.is_over("alive")
    assert not watch.leases.is_over("never registered")
    await watch.look()
    assert not watch.leases.is_over("alive")
    assert not watch.leases.is_over("never registered")


async def test_who_is_not_registered_is_dead_after_a_lease_too(stage: Stage, watch: Watch):
    await watch.look()
    assert not watch.leases.is_over("gone")
    for _ in range(3):
        await watch.look(LEASE / 3)
    assert watch.leases.is_over("gone")


async def test_a_lease_that_a_supervisor_ended_is_over_at_once(stage: Stage, watch: Watch):
    await register(stage, "dead")
    await watch.look()
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1
    assert await registry.processes(stage.store) == {}


async def test_a_lease_that_was_ended_is_over_for_a_coordinator_that_sees_it_first_then(
    stage: Stage, watch: Watch
):
    await register(stage, "dead")
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1


async def test_a_process_that_is_back_since_the_server_lost_the_end_of_its_lease_is_let_be(
    stage: Stage, watch: Watch, monkeypatch: pytest.MonkeyPatch
):
    async def lost(*_: object) -> bool:
        return True

    await register(stage, "back")
    monkeypatch.setattr(registry, "end_silent_lease", lost)
    assert await watch.look_until_over() == 0
    assert await registry.beat(stage.store, ["back"]) == [[]]
    assert await watch.look() == 0
    assert not watch.leases.is_over("back")


async def test_a_process_has_its_own_lease_where_that_is_longer(stage: Stage, watch: Watch):
    await register(stage, "patient", lease=2 * LEASE)
    await register(stage, "hasty", lease=1.0)
    looks = [await watch.look(LEASE / 3) for _ in range(7)]
    assert looks == [0, 0, 0, 1, 0, 0, 1]


async def test_a_coordinator_does_not_clear_itself_away(stage: Stage, watch: Watch):
    await register(stage, "watch:0:coordinator")
    assert await watch.look_until_over() == 0


# What the dead had.


async def test_what_a_dead_process_ran_and_had_read_runs_elsewhere(stage: Stage, watch: Watch):
    await stage.begin_run(fan(3))
    await register(stage, "dead")
    begun, read, _ = await stage.take("dead")
    await stage.begin("dead", begun)
    await watch.look_until_over()
    again = await stage.claim("other")
    crashes = {held.entry.index: held.entry.crashes for held in again}
    assert crashes == {0: 1, 1: 0, 2: 0}
    assert await stage.complete("dead", begun) == "STALE"
    assert (await stage.begin("dead", read)).code == "STALE"
    for held in again:
        assert await stage.complete("other", held) == "OK"


async def test_a_dead_process_leaves_no_consumer_and_nothing_in_the_registry(
    stage: Stage, watch: Watch
):
    await stage.begin_run(FLOW)
    await register(stage, "dead")
    await stage.claim("dead")
    await registry.request_cancel(stage.store, {"dead": ["x"]})
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1
    assert "dead" not in await consumers(stage)
    assert "dead" not in await registry.processes(stage.store)
    assert "dead" not in await registry.beats(stage.store)
    cancels = stage.store.keys.meta.cancels("dead")
    assert await stage.store.execute("EXISTS", cancels) == 0


async def consumers(stage: Stage, queue: str = QUEUE) -> set[str]:
    stream = stage.of("run").queue(queue)
    rows = await stage.store.execute("XINFO", "CONSUMERS", stream, GROUP_WORKERS)
    return {str(row[1], "utf-8") for row in rows}


async def test_a_consumer_that_nobody_registered_is_cleared_away_too(stage: Stage, watch: Watch):
    """Its registration was lost with Redis's last second."""
    await stage.begin_run(FLOW)
    await stage.claim("unheard")
    for _ in range(5):
        await registry.beat(stage.store, ["stage:0:offers"])
        await watch.look(LEASE / 3)
    assert await consumers(stage) == set()
    assert (await stage.claim_one("other")).entry.crashes == 1


async def test_all_that_a_dead_process_had_is_taken_back_however_much(stage: Stage, watch: Watch):
    await stage.begin_run(fan(1200))
    await register(stage, "dead")
    assert len(await stage.take("dead", count=2000)) == 1200
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1
    assert len(await stage.take("other", count=2000)) == 1200


async def test_what_a_dead_process_had_of_another_queue_goes_back_to_it(stage: Stage, watch: Watch):
    flow = builder("f").then(step("a", queue="gpu")).build()
    await stage.begin_run(flow)
    await register(stage, "dead", queue="gpu")
    await stage.claim_one("dead", "gpu")
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1
    await stage.claim_one("other", "gpu")


async def test_several_coordinators_take_back_once(stage: Stage, store: Store):
    await stage.begin_run(fan(50))
    await register(stage, "dead")
    await stage.claim("dead")
    await registry.end_lease(stage.store, "dead")
    watches = [Watch(store, f"watch:{n}:coordinator") for n in range(4)]
    await asyncio.gather(*(watch.look() for watch in watches))
    again = await stage.claim("other")
    assert len(again) == 50
    assert {held.entry.crashes for held in again} == {1}


async def test_a_dead_coordinator_is_kept_until_its_events_are_taken_over(
    stage: Stage, watch: Watch
):
    await stage.offer(FLOW)
    await stage.start(FLOW)
    partition = stage.of("run")
    await stage.read_inbox(partition)
    await register(stage, stage.name)
    await registry.end_lease(stage.store, stage.name)
    before = await pending_events(stage)
    assert len(before) > 0
    assert await watch.look() == 0
    assert await pending_events(stage) == before
    await stage.dispatcher.handle(partition, await everything(stage))
    assert await watch.look() == 1


async def pending_events(stage: Stage) -> list[Any]:
    inbox = stage.of("run").inbox
    rows = await stage.store.execute("XPENDING", inbox, GROUP_COORDINATORS, "-", "+", 100)
    return [row[0] for row in rows]


async def everything(stage: Stage) -> list[streams.Message]:
    return streams.parse_entries(
        await stage.store.execute("XRANGE", stage.of("run").inbox, "-", "+")
    )


# What nobody can use.


@pytest.mark.parametrize("damage", ["garbage", "text", "pc", "index", "plan"])
async def test_an_entry_that_nobody_can_use_is_buried_and_delays_no_other(
    stage: Stage, watch: Watch, damage: str
):
    await stage.begin_run(fan(2))
    await register(stage, "dead")
    ((_, entry), _) = await stage.entries()
    raw = {
        "garbage": b"\xc1 no message",
        "text": msgspec.msgpack.encode(entry).replace(b"run", b"r\xecn"),
        "pc": msgspec.msgpack.encode(msgspec.structs.replace(entry, pc=77)),
        "index": msgspec.msgpack.encode(msgspec.structs.replace(entry, index=77)),
        "plan": msgspec.msgpack.encode(msgspec.structs.replace(entry, plan="nowhere")),
    }[damage]
    partition = stage.of("run")
    stream = partition.queue(QUEUE)
    await stage.store.execute("XADD", stream, "*", "e", raw)
    await streams.ensure_group(stage.store, partition, stream, GROUP_WORKERS)
    await read_group(stage.store.link, GROUP_WORKERS, "dead", [stream], 100, None)
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1
    assert len(await stage.claim("other")) == 2
    ((_, fields),) = await stage.store.execute("XRANGE", partition.dead, "-", "+")
    assert raw in fields


async def test_a_query_that_a_dead_process_had_read_is_dropped_and_no_dead_letter(
    stage: Stage, watch: Watch
):
    flow = fan(2)
    await stage.begin_run(flow)
    await stage.offer(flow, process="dead")
    ((_, entry), _) = await stage.entries()
    partition = stage.of("run")
    asked = Question(partition, QUEUE, entry.plan, "run", 0, "nonce")
    await ask(stage.store, asked)
    own = f"{QUEUE}@{entry.plan}"
    assert [held.entry.is_query for held in await stage.take("dead", own)] == [True]
    assert len(await stage.take("dead")) == 2
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1
    assert len(await stage.claim("other")) == 2
    assert await stage.store.execute("XLEN", partition.queue(own)) == 0
    assert await stage.store.execute("XLEN", partition.dead) == 0


async def test_a_damaged_record_does_not_hold_back_the_others_or_the_look(
    stage: Stage, watch: Watch
):
    await stage.begin_run(fan(3))
    await register(stage, "dead")
    one, *_ = await stage.claim("dead")
    await stage.store.execute("HSET", one.partition.flow("run"), "n:1.0", "flipped")
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1  # nothing of the dead one is left
    again = await stage.take("other")
    assert sorted(held.entry.index for held in again) == [1, 2]
    ((_, fields),) = await stage.store.execute("XRANGE", one.partition.dead, "-", "+")
    assert b"damaged run" in fields


async def test_looking_changes_nothing_where_all_live(stage: Stage, watch: Watch):
    await stage.begin_run(fan(2))
    await register(stage, "alive")
    await stage.claim("alive")
    await watch.look()
    before = await snapshot(stage.store)
    await watch.look(LEASE / 3)
    assert await snapshot(stage.store) == before


async def test_a_gap_gives_who_is_not_registered_another_lease_too(watch: Watch):
    await watch.look()
    assert not watch.leases.is_over("gone")
    await watch.look(2 * LEASE)
    assert not watch.leases.is_over("gone")
    for _ in range(3):
        await watch.look(LEASE / 3)
    assert watch.leases.is_over("gone")


async def test_who_was_asked_for_and_is_nowhere_is_forgotten_in_the_end(watch: Watch):
    await watch.look()
    watch.leases.is_over("gone")
    for _ in range(33):
        await watch.look(LEASE / 3)
    assert watch.leases._seen == {}


async def test_a_consumer_that_comes_while_a_coordinator_watches_is_found(
    stage: Stage, watch: Watch
):
    await stage.begin_run(FLOW)
    await watch.look()
    await stage.claim("unheard")
    for _ in range(8):
        await registry.beat(stage.store, ["stage:0:offers"])
        await watch.look(LEASE / 3)
    assert await consumers(stage) == set()


async def test_a_process_that_registers_again_has_a_whole_lease(stage: Stage, watch: Watch):
    """It was only slow: cleared away meanwhile, it comes again under its name, from beat 1."""
    await register(stage, "slow")
    assert await watch.look_until_over() == 1
    await register(stage, "slow")
    assert await watch.look() == 0


async def test_a_process_is_kept_until_all_it_had_is_taken_back(
    stage: Stage, watch: Watch, monkeypatch: pytest.MonkeyPatch
):
    async def in_vain(_: Store, __: Partition, lost: Sequence[nodes.Reclaim]) -> list[str]:
        return [Code.OK] * len(lost)

    await stage.begin_run(fan(2))
    await register(stage, "dead")
    await stage.claim("dead")
    await registry.end_lease(stage.store, "dead")
    with monkeypatch.context() as patched:
        patched.setattr(nodes, "reclaim", in_vain)
        async with asyncio.timeout(10):
            assert await watch.look() == 0
    assert "dead" in await registry.processes(stage.store)
    assert await watch.look() == 1


async def test_what_a_dead_process_had_of_its_plan_s_queue_goes_back_to_the_plain_one(
    stage: Stage, watch: Watch
):
    await stage.begin_run(FLOW)
    await stage.offer(FLOW, process="dead")
    held = await stage.take_one("other")
    queue = f"{QUEUE}@{held.entry.plan}"
    await stage.give_back("other", held, queue=queue)
    await stage.claim_one("dead", queue)
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1
    assert await consumers(stage, queue) == set()
    assert (await stage.claim_one("other")).entry.crashes == 1


async def test_an_unregistered_consumer_is_found_where_nobody_serves_the_queue_any_more(
    stage: Stage, watch: Watch
):
    await stage.begin_run(FLOW)
    await stage.claim("unheard")
    await forget(stage.store, "stage:0:offers")
    await watch.look_until_over()
    assert await consumers(stage) == set()


async def test_an_unregistered_consumer_is_found_in_the_queue_of_an_older_plan(
    stage: Stage, watch: Watch
):
    old, new = chain("a"), chain("a", "b")
    await stage.begin_run(old)
    queue = f"{QUEUE}@{old.plan_hash}"
    await stage.give_back("other", await stage.take_one("other"), queue=queue)
    await stage.claim_one("unheard", queue)
    await stage.offer(new, process="the-newer")
    for _ in range(5):
        await registry.beat(stage.store, ["stage:0:offers", "the-newer"])
        await watch.look(LEASE / 3)
    assert await consumers(stage, queue) == set()
    assert (await stage.claim_one("other")).entry.crashes == 1


async def test_an_unregistered_consumer_is_found_in_a_lane_of_high_nodes(
    stage: Stage, watch: Watch
):
    flow = chain_of(step("a", priority="high"))
    await stage.begin_run(flow)
    lane = f"{QUEUE}^high"
    await stage.claim_one("unheard", lane)
    for _ in range(5):
        await registry.beat(stage.store, ["stage:0:offers"])
        await watch.look(LEASE / 3)
    assert await consumers(stage, lane) == set()
    assert (await stage.claim_one("other", lane)).entry.crashes == 1


async def test_a_lane_of_high_nodes_is_filled_again_by_its_dead_readers_name(
    stage: Stage, watch: Watch
):
    flow = chain_of(step("a", priority="high"))
    await stage.begin_run(flow)
    await stage.offer(flow, process="dead")
    lane = f"{QUEUE}^high"
    await stage.claim_one("dead", lane)
    await registry.end_lease(stage.store, "dead")
    assert await watch.look() == 1
    assert (await stage.claim_one("other", lane)).entry.crashes == 1


async def test_a_beat_that_cannot_be_read_does_not_stop_the_watch(stage: Stage, watch: Watch):
    for name in ("damaged", "silent", "alive"):
        await register(stage, name)
    beats = stage.store.keys.meta.beats
    await stage.store.execute("HSET", beats, "damaged", "flipped")
    for _ in range(4):
        await registry.beat(stage.store, ["alive"])
        await watch.look(LEASE / 3)
    await stage.store.execute("HSET", beats, "alive", "flipped")
    await registry.beat(stage.store, ["alive"])
    for _ in range(2):
        await watch.look(LEASE / 3)
    assert set(await registry.processes(stage.store)) == {"alive"}
