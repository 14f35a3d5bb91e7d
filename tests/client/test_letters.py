"""Dead letters as a client sees them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from resolute import sync
from resolute.client import Client
from resolute.errors import ResoluteError, UnknownLetter
from resolute.model.messages import Entry, Event
from resolute.status import EventKind
from resolute.store import dead
from resolute.testing.server import EmbeddedServer
from tests.support.flows import chain_of, step, undoable
from tests.support.letters import bury, raws
from tests.support.stage import QUEUE, Stage

FLOW = chain_of(undoable("book"), step("pay"))
encode = msgspec.msgpack.encode


async def entry_letter(stage: Stage, run_id: str = "run", *, undo: int = 0, index: int = 0) -> str:
    entry = Entry(run_id, FLOW.plan_hash, 0, 1, index, "1-x.0", undo=undo)
    return await bury(stage.store, stage.of(run_id), QUEUE, encode(entry), "no use")


async def test_letters_of_all_partitions_come_newest_first(stage: Stage):
    client = Client(stage.store)
    partitions = stage.store.keys.partitions
    ids = [await bury(stage.store, partitions[i % len(partitions)], "q", b"x") for i in range(7)]
    found = [letter.id for letter in await client.dead_letters()]
    assert sorted(found) == sorted(ids)
    times = [letter.buried for letter in await client.dead_letters()]
    assert times == sorted(times, reverse=True)
    assert [letter.id for letter in await client.dead_letters(limit=3)] == found[:3]


async def test_a_letter_names_the_run_and_the_node_that_it_was_for(stage: Stage):
    await stage.offer(FLOW)
    client = Client(stage.store)
    await entry_letter(stage)
    (letter,) = await client.dead_letters()
    assert (letter.run, letter.node, letter.origin, letter.why) == ("run", "book", QUEUE, "no use")
    await entry_letter(stage, undo=1)
    assert (await client.dead_letters())[0].node == "undo-book"


async def test_a_letter_of_an_event_names_its_run(stage: Stage):
    event = Event(EventKind.SETTLED, "run", seq=3)
    await bury(stage.store, stage.of("run"), "", encode(event))
    (letter,) = await Client(stage.store).dead_letters()
    assert (letter.run, letter.node, letter.content) == ("run", "", event)


async def test_a_letter_that_cannot_be_read_is_told_all_the_same(stage: Stage):
    client = Client(stage.store)
    letter_id = await bury(stage.store, stage.of("run"), "q", b"\xc1 nonsense")
    await entry_letter(stage, index=77)  # its plan, if it is there, has no such node
    unknown, nonsense = await client.dead_letters()
    assert (unknown.run, unknown.node) == ("run", "")
    assert (nonsense.run, nonsense.content, nonsense.raw) == ("", None, None)
    assert (await client.dead_letter(letter_id)).raw == b"\xc1 nonsense"


async def test_a_large_letter_is_read_whole_only_when_it_is_asked_for(stage: Stage):
    client = Client(stage.store)
    letter_id = await bury(stage.store, stage.of("run"), "q", b"x" * 1_000_000)
    (letter,) = await client.dead_letters()
    assert (letter.size, letter.raw) == (1_000_000, None)
    assert (await client.dead_letter(letter_id)).raw == b"x" * 1_000_000


async def test_letters_are_retried_and_those_that_were_not_there_are_left_out(stage: Stage):
    client = Client(stage.store)
    partition = stage.of("run")
    one, two = [await bury(stage.store, partition, "q", raw) for raw in (b"1", b"2")]
    nobody, elsewhere = f"{partition.number}-1-0", "1000-1-0"
    done = await client.retry_dead_letters(two, nobody, one, elsewhere, two)
    assert list(done) == [two, one]
    assert sorted(await raws(stage.store, partition.queue("q"))) == [b"1", b"2"]
    await stage.store.execute("DEL", partition.queue("q"))


async def test_letters_are_dropped(stage: Stage):
    client = Client(stage.store)
    one, two = [await bury(stage.store, stage.of("run"), "q", b"x") for _ in range(2)]
    assert list(await client.drop_dead_letters(one, one)) == [one]
    assert list(await client.drop_dead_letters(one)) == []
    assert [letter.id for letter in await client.dead_letters()] == [two]


async def test_all_letters_are_retried_oldest_first_in_every_partition(stage: Stage):
    client = Client(stage.store)
    for number, partition in enumerate(stage.store.keys.partitions):
        for i in range(3):
            await bury(stage.store, partition, "q", b"%d %d" % (number, i))
    done = await client.retry_dead_letters(all=True)
    assert len(done) == 3 * len(stage.store.keys.partitions)
    assert await client.dead_letters() == []
    for number, partition in enumerate(stage.store.keys.partitions):
        stream = partition.queue("q")
        assert await raws(stage.store, stream) == [b"%d %d" % (number, i) for i in range(3)]
        await stage.store.execute("DEL", stream)


async def test_all_letters_are_dropped_however_many(stage: Stage):
    client, partition = Client(stage.store), stage.of("run")
    for _ in range(2):
        letter = ("XADD", partition.dead, "*", "origin", "q", "raw", b"x", "why", "w")
        await stage.store.execute_all([letter] * 300)
    assert len(await client.drop_dead_letters(all=True)) == 600
    assert await client.dead_letters() == []


async def test_a_letter_that_does_not_say_where_it_came_from_can_only_be_dropped(stage: Stage):
    client, partition = Client(stage.store), stage.of("run")
    entry = await stage.store.execute("XADD", partition.dead, "*", "raw", b"x")
    letter_id = f"{partition.number}-{str(entry, 'ascii')}"
    with pytest.raises(ResoluteError, match="does not say where it came from"):
        await client.retry_dead_letters(letter_id)
    assert list(await client.retry_dead_letters(all=True)) == []
    assert list(await client.drop_dead_letters(letter_id)) == [letter_id]


@pytest.mark.parametrize("text", ["", "7", "1700000000000-0", "0-1-2-3", "00-1-0", "x-1-0", "0-1-"])
async def test_what_is_no_id_of_a_letter_is_refused(stage: Stage, text: str):
    client = Client(stage.store)
    with pytest.raises(ValueError, match="expected an id such as"):
        await client.dead_letter(text)


@pytest.mark.parametrize("letter_id", ["0-1-0", "1000-1-0"])
async def test_an_unknown_letter_is_an_error(stage: Stage, letter_id: str):
    with pytest.raises(UnknownLetter, match="no dead letter"):
        await Client(stage.store).dead_letter(letter_id)


async def test_ids_or_all_of_them_must_be_asked_for(stage: Stage):
    client = Client(stage.store)
    with pytest.raises(ValueError, match="ids, or all=True"):
        await client.drop_dead_letters()
    with pytest.raises(ValueError, match="ids, or all=True"):
        await client.retry_dead_letters("0-1-0", all=True)


async def test_the_letters_of_a_run_are_its_own(stage: Stage):
    """Not those of a run whose id begins like its own."""
    client = Client(stage.store)
    await entry_letter(stage)
    event = Event(EventKind.LOOK, "run-2", arg="run")
    await bury(stage.store, stage.of("run"), "", encode(event))
    (letter,) = await client.letters.of_run("run")
    assert letter.run == "run"


async def test_a_retried_entry_is_begun_and_its_run_goes_on(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.take_one("worker")
    (before,) = await raws(stage.store, held.stream)
    key = stage.of("run").flow("run")
    await stage.store.execute("HSET", key, "n:1.0", "nonsense")
    letter_id = await bury_taken(stage, held.id)
    await stage.store.execute("HDEL", key, "n:1.0")
    await Client(stage.store).retry_dead_letters(letter_id)
    assert await raws(stage.store, held.stream) == [before]
    assert await stage.work() == 2
    assert await stage.status() == "completed"


async def bury_taken(stage: Stage, entry: str) -> str:
    partition = stage.of("run")
    await dead.bury_entries(stage.store, partition, QUEUE, [(entry, "damaged record")])
    (letter,) = await dead.read_letters(stage.store, partition, count=1)
    return f"{partition.number}-{letter.entry}"


def test_code_without_a_loop_has_the_same_calls(
    stage: Stage, server: EmbeddedServer, runner: asyncio.Runner
):
    partition = stage.of("run")
    one, two = [runner.run(bury(stage.store, partition, "q", raw)) for raw in (b"1", b"2")]
    with sync.Client(server.url, namespace=stage.store.keys.meta.namespace) as client:
        assert [letter.id for letter in client.dead_letters()] == [two, one]
        assert client.dead_letter(one).raw == b"1"
        assert list(client.retry_dead_letters(one)) == [one]
        assert list(client.drop_dead_letters(all=True)) == [two]
    runner.run(stage.store.execute("DEL", partition.queue("q")))
