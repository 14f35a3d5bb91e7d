"""Places of concurrency limits: never more than n, first come first served, each taken once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from resolute.engine.admission import hold_for_time, hold_in_line, read_hold
from resolute.model.plan import PlacesPlan
from resolute.status import WOKEN, NodeStatus
from resolute.store import places
from resolute.store.connection import ServerReply
from resolute.store.nodes import Held
from resolute.store.places import Ask, Seat, Spot, Terms, node_name
from resolute.store.store import Store
from resolute.testing.places import MemoryPlaces
from tests.conftest import Run
from tests.support.flows import chain
from tests.support.keyspace import all_keys, snapshot
from tests.support.stage import QUEUE, Stage

TWO = Spot(PlacesPlan("two", 2))
ONE_PLACE = Spot(PlacesPlan("one", 1))
TERMS = Terms(lapse_ms=60_000, ttl_ms=60_000)
HERE, THERE = "host:1:here", "host:2:there"
A, B, C, D = (f"run|1|{index}|q" for index in range(4))

one_partition = pytest.mark.parametrize("partitions", [1], indirect=True)


@dataclass
class Line:
    """One limit as one process asks it; `told` is who was to be woken, as it was said."""

    store: Store
    spot: Spot = TWO
    process: str = HERE
    terms: Terms = TERMS
    told: list[str] = field(default_factory=list[str])
    rounds: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def take(self, *nodes: str, token: str = "t.0", ticket: int = 0) -> list[Seat]:
        asks = [Ask(node, token, ticket) for node in nodes]
        round_ = next(self.rounds)
        seats, told = await places.take(
            self.store, self.process, round_, self.spot, self.terms, asks
        )
        self.told += told
        return seats

    async def got(self, *nodes: str, token: str = "t.0", ticket: int = 0) -> list[bool]:
        return [seat.granted for seat in await self.take(*nodes, token=token, ticket=ticket)]

    async def leave(self, *nodes: str, token: str = "t.0") -> list[str]:
        """Who is to be woken now that these have left."""
        gone = [(node, token) for node in nodes]
        return await places.leave(self.store, self.spot, self.terms, gone)

    async def sync(self, *mine: str, dead: Sequence[str] = (), round_: int = 0) -> places.Synced:
        fields = [f"{node}|t.0" for node in mine]
        at = round_ or next(self.rounds)
        synced, told = await places.sync(
            self.store, self.process, at, self.spot, self.terms, fields, dead
        )
        self.told += told
        return synced


@pytest.fixture
def line(store: Store) -> Line:
    return Line(store)


@one_partition
async def test_no_more_than_the_limit_have_a_place(line: Line):
    assert await line.got(A, B, C) == [True, True, False]
    assert await line.got(D) == [False]


@one_partition
async def test_asking_again_takes_no_second_place_and_no_second_place_in_line(line: Line):
    first = await line.take(A, B, C)
    before = await snapshot(line.store)
    again = await line.take(A, B, C)
    assert [(s.granted, s.before) for s in again] == [(s.granted, s.before) for s in first]
    assert await snapshot(line.store) == before


@one_partition
async def test_another_hand_out_of_a_node_is_another_execution(line: Line):
    assert await line.got(A) == [True]
    assert await line.got(A, token="t.1") == [True]
    assert await line.got(B) == [False]


@one_partition
async def test_giving_back_twice_is_once(line: Line):
    await line.take(A, B, C, D)
    assert await line.leave(A) == [C]
    before = await snapshot(line.store)
    assert await line.leave(A) == []
    assert await snapshot(line.store) == before


@one_partition
async def test_a_free_place_is_kept_for_who_waits_and_not_for_who_comes(line: Line):
    await line.take(A, B, C)
    assert await line.leave(A) == [C]
    assert await line.got(D) == [False]
    assert await line.got(C) == [True]


@one_partition
async def test_those_who_wait_are_woken_in_the_order_of_asking(line: Line):
    names = [f"run|1|{index}|q" for index in range(20)]
    random.Random(1).shuffle(names)
    for name in names:
        await line.take(name)
    running, order = names[:2], names[:2]
    while running:
        leaving = running.pop(0)
        for woken in await line.leave(leaving):
            assert await line.got(woken) == [True]
            running.append(woken)
            order.append(woken)
    assert order == names


@one_partition
async def test_who_comes_back_with_its_ticket_is_before_those_who_came_later(line: Line):
    (seat,) = await line.take(A)
    await line.take(B, C)
    await line.leave(A)  # for a token, say: it has its ticket
    assert await line.got(D, ticket=0) == [False]
    assert await line.got(A, token="t.1", ticket=seat.ticket) == [True]


@one_partition
async def test_a_clock_that_went_back_lets_nobody_overtake(line: Line):
    await line.take(A, B, C)
    keys = line.store.keys.meta.places("two")
    await line.store.execute("ZINCRBY", keys[1], 10**12, C)
    (late,) = await line.take(D)
    assert (late.granted, late.before) == (False, 1)


@one_partition
@pytest.mark.parametrize("off", [-120_000, 3_600_000])
async def test_who_was_woken_and_does_not_come_holds_up_nobody_for_long(line: Line, off: int):
    """It is told once more, in case the word was lost; and it has its ticket, should it come."""
    await line.take(A, B, C, D)
    assert await line.leave(A) == [C]
    woken = line.store.keys.meta.places("two")[2]
    await line.store.execute("ZINCRBY", woken, off, C)
    await line.sync(B)
    assert line.told == [C, D]
    assert await line.got(D) == [True]


@one_partition
async def test_who_will_never_come_leaves_the_line_to_the_next(line: Line):
    await line.take(A, B, C, D)
    assert await line.leave(A) == [C]
    assert await line.leave(C, token="") == [D]


@one_partition
async def test_each_key_has_its_own_places(line: Line):
    for key in ("a", "b", "a:b", "{x}"):
        mine = Line(line.store, Spot(PlacesPlan("one", 1, True), key))
        assert await mine.got(A, B) == [True, False], key


@one_partition
async def test_of_a_limit_that_nobody_uses_nothing_is_left(line: Line):
    await line.take(A, B, C)
    await line.leave(A, B)
    assert await line.got(C) == [True]
    await line.leave(C)
    assert not [key for key in await all_keys(line.store) if ":places:" in key]


@one_partition
async def test_all_of_it_is_forgotten_when_nobody_asks(line: Line):
    await line.take(A, B, C)
    await line.leave(A)
    keys = line.store.keys.meta.places("two")
    for key in keys:
        assert 0 < await line.store.execute("PTTL", key) <= TERMS.ttl_ms


@one_partition
async def test_one_with_a_short_timeout_shortens_no_other_s_time(line: Line):
    await Line(line.store, terms=Terms(60_000, 3_600_000)).take(A)
    await line.take(B)
    held = line.store.keys.meta.places("two")[0]
    assert await line.store.execute("PTTL", held) > 1_800_000


# What a look puts right.


@one_partition
async def test_the_places_of_the_dead_are_free(line: Line):
    there = Line(line.store, process=THERE)
    await there.take(A, B)
    await line.take(C, D)
    assert (await line.sync()).processes == [THERE]
    assert line.told == []
    assert (await line.sync(dead=[THERE])).waiting == 2
    assert line.told == [C, D]


@one_partition
async def test_a_place_that_its_process_does_not_know_of_is_free(line: Line):
    await line.take(A, B, C)
    await line.sync(B)
    assert line.told == [C]


@one_partition
async def test_a_place_that_the_server_forgot_is_taken_again(line: Line):
    await line.take(A, B)
    await line.store.execute("DEL", *line.store.keys.meta.places("two"))
    await line.sync(A, B)
    assert await line.got(C) == [False]


@one_partition
async def test_a_look_takes_no_place_of_another_process(line: Line):
    await Line(line.store, process=THERE).take(A, B)
    assert (await line.sync()).processes == [THERE]
    assert await line.got(C) == [False]


@one_partition
async def test_a_look_that_comes_late_a_second_time_takes_nothing_that_was_given_since(line: Line):
    await line.sync()
    await line.take(A, B)
    await line.sync(round_=1)
    assert await line.got(C) == [False]


@one_partition
async def test_a_key_that_is_of_another_kind_is_an_error_that_says_so(line: Line):
    await line.store.execute("SET", line.store.keys.meta.places("two")[0], "x", "EX", 60)
    with pytest.raises(ServerReply, match="WRONGTYPE"):
        await line.take(A)


# Waking.


async def waits_for_a_place(stage: Stage) -> tuple[Held, str]:
    """A node in line, and how it is called there."""
    await stage.begin_run(chain("a"))
    held = await stage.claim_one(HERE)
    hold = hold_in_line("", [Seat(False, 5)])
    assert await stage.give_back(HERE, held, 3_600_000, hold=hold) == "OK"
    return held, node_name(held, QUEUE)


async def test_a_node_that_waits_is_handed_out_when_it_is_woken(stage: Stage):
    held, name = await waits_for_a_place(stage)
    assert await places.wake(stage.store, [name]) == []
    assert await stage.store.execute("ZCARD", held.partition.timers) == 0
    again = await stage.take_one(THERE)
    begun = await stage.begin(THERE, again)
    assert (begun.code, read_hold(begun.hold).ticket, again.entry.attempt) == ("OK", 5, 1)


async def test_a_node_is_woken_once(stage: Stage):
    _, name = await waits_for_a_place(stage)
    await places.wake(stage.store, [name])
    await places.wake(stage.store, [name, name])
    assert len(await stage.take(THERE)) == 1


async def test_a_node_woken_before_it_was_put_to_wait_does_not_wait(stage: Stage):
    await stage.begin_run(chain("a"))
    held = await stage.claim_one(HERE)
    assert await places.wake(stage.store, [node_name(held, QUEUE)]) == []
    record = await stage.record(held)
    assert record is not None and record.hold == WOKEN
    hold = hold_in_line("", [Seat(False, 5)])
    for _ in range(2):  # and its reply was lost
        assert await stage.give_back(HERE, held, 3_600_000, hold=hold) == "OK"
    record = await stage.record(held)
    assert record is not None and (record.status, record.hold) == (NodeStatus.READY, hold)
    assert len(await stage.take(THERE)) == 1


async def test_a_node_woken_too_late_waits_for_its_token_all_the_same(stage: Stage):
    await stage.begin_run(chain("a"))
    held = await stage.claim_one(HERE)
    await places.wake(stage.store, [node_name(held, QUEUE)])
    hold = hold_for_time("reserved:1:0", [Seat(True, 5)])
    assert await stage.give_back(HERE, held, 3_600_000, hold=hold) == "OK"
    record = await stage.record(held)
    assert record is not None and record.status is NodeStatus.WAITING
    assert await places.wake(stage.store, [node_name(held, QUEUE)]) == []
    assert await stage.take(THERE) == []


async def test_a_node_that_waits_for_its_next_attempt_is_not_woken(stage: Stage):
    await stage.begin_run(chain("a"))
    held = await stage.claim_one(HERE)
    await places.wake(stage.store, [node_name(held, QUEUE)])
    await stage.fail(HERE, held, 3_600_000)
    assert await places.wake(stage.store, [node_name(held, QUEUE)]) == []
    record = await stage.record(held)
    assert record is not None and record.status is NodeStatus.WAITING


@pytest.mark.parametrize("over", ["completed", "cancelled", "gone", "no name"])
async def test_a_node_that_is_over_will_never_come(stage: Stage, over: str):
    held, name = await waits_for_a_place(stage)
    match over:
        case "completed":
            await stage.make_due(held.partition)
            await stage.release(held.partition)
            await stage.complete(HERE, await stage.claim_one(HERE))
        case "cancelled":
            await stage.stop("run")
            await stage.coordinate()
        case "gone":
            await stage.stop("run", terminate=True)
            await stage.coordinate()
            name = name.replace("run|", "never|")
        case _:
            name = "nonsense"
    assert await places.wake(stage.store, [name]) == [name]


# The tester's limits are these.


@one_partition
def test_in_memory_it_is_the_same(store: Store, run: Run[None]):
    """Random askers and leavers: each answer, and who is woken, is as in Redis."""
    dice = random.Random(7)
    woken: list[str] = []

    def wake(name: str) -> bool:
        woken.append(name)
        return True

    memory = MemoryPlaces(lambda: 1, wake)
    line = Line(store)

    async def compare() -> None:
        names = [f"run|1|{index}|q" for index in range(8)]
        for _ in range(300):
            name = dice.choice(names)
            if dice.random() < 0.5:
                (there,) = await line.take(name)
                here = memory.take(TWO, Ask(name, "t.0"))
                assert (here.granted, here.before) == (there.granted, there.before)
            else:
                told = await line.leave(name)
                woken.clear()
                memory.leave(TWO, name, "t.0")
                assert woken == told

    run(compare())
