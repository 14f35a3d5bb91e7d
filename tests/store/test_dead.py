"""Dead letters keep what was there, byte for byte, and go back where they came from, once."""

from __future__ import annotations

import pytest

from resolute.errors import StoreError
from resolute.store import dead, streams
from resolute.store.keys import Partition
from resolute.store.script import GROUP_COORDINATORS, GROUP_WORKERS, pack, pack_item
from resolute.store.store import Store
from tests.support.keyspace import all_keys
from tests.support.letters import bury, raws
from tests.support.links import read_group

RAW = bytes(range(256))


@pytest.fixture
def partition(store: Store) -> Partition:
    return store.keys.partitions[-1]


def entry_of(letter_id: str) -> str:
    return letter_id.partition("-")[2]


@pytest.mark.parametrize("queue", ["", "q", "q@plan", "inbox", "inbox@plan"])
async def test_a_letter_goes_back_into_the_stream_it_came_from_as_it_was(
    store: Store, partition: Partition, queue: str
):
    await bury(store, partition, queue, RAW)
    (letter,) = await dead.read_letters(store, partition, count=9, cut=-1)
    assert (letter.raw, letter.size, letter.why) == (RAW, 256, "why")
    stream = partition.queue(queue) if queue else partition.inbox
    assert dead.stream_of(partition, letter.origin) == stream
    assert await dead.retry_letters(store, partition, [(letter.entry, stream)]) == ["OK"]
    assert await raws(store, stream) == [RAW]
    assert await dead.read_letters(store, partition, count=9) == []
    await store.execute("DEL", stream)


async def test_what_is_buried_leaves_its_stream_and_is_pending_nowhere(
    store: Store, partition: Partition
):
    stream = partition.queue("q")
    await store.execute("XADD", stream, "*", "e", RAW)
    await streams.ensure_group(store, partition, stream, GROUP_WORKERS)
    found = await read_group(store.link, GROUP_WORKERS, "w", [stream], 9, None)
    (message,) = found[stream]
    await dead.bury_entries(store, partition, "q", [(message.id, "why")])
    assert await streams.pending_of(store, stream, GROUP_WORKERS, "w") == []
    assert await raws(store, stream) == []
    await store.execute("DEL", partition.inbox)


async def test_an_entry_that_is_buried_twice_leaves_one_letter(store: Store, partition: Partition):
    """Two coordinators took it up, or the reply was lost."""
    entry = str(await store.execute("XADD", partition.inbox, "*", "e", RAW), "ascii")
    for _ in range(2):
        await dead.bury_event(store, partition, entry, "why")
    assert len(await dead.read_letters(store, partition, count=9)) == 1


async def test_an_entry_without_a_payload_keeps_all_its_fields(store: Store, partition: Partition):
    entry = str(await store.execute("XADD", partition.inbox, "*", "strange", "thing"), "ascii")
    await dead.bury_event(store, partition, entry, "why")
    (letter,) = await dead.read_letters(store, partition, count=9, cut=-1)
    assert b"strange" in letter.raw and b"thing" in letter.raw


@pytest.mark.parametrize("retried", [1, 0])
async def test_a_call_whose_reply_was_lost_answers_as_the_first_time(
    store: Store, partition: Partition, retried: int
):
    """Sent again the letter is gone; that it was this call is known all the same."""
    letter = entry_of(await bury(store, partition, "q", RAW))
    stream = partition.queue("q")
    keys = [partition.dead, partition.done(store.nonce()), stream]
    arguments = [pack_item(dead.LetterItem(letter, 3))]
    for _ in range(3):
        common = pack(retried, 60_000)
        assert await store.call("remove_letters", keys, common, arguments) == [[b"OK"]]
    assert await raws(store, stream) == [RAW] * retried
    await store.execute("DEL", stream)


async def test_a_letter_that_two_people_retry_goes_back_once(store: Store, partition: Partition):
    letter = entry_of(await bury(store, partition, "q", RAW))
    wanted = [(letter, partition.queue("q"))]
    assert await dead.retry_letters(store, partition, wanted) == ["OK"]
    assert await dead.retry_letters(store, partition, wanted) == ["GONE"]
    assert await dead.drop_letters(store, partition, [letter]) == ["GONE"]
    assert await raws(store, partition.queue("q")) == [RAW]
    await store.execute("DEL", partition.queue("q"))


async def test_what_a_call_remembers_goes_by_itself(store: Store, partition: Partition):
    letter = entry_of(await bury(store, partition, "q", RAW))
    await dead.drop_letters(store, partition, [letter])
    (done,) = [key for key in await all_keys(store) if key.startswith(f"{partition.dead}:")]
    assert 0 < await store.execute("PTTL", done) <= dead.DONE_TTL


async def test_no_more_of_the_raw_bytes_is_read_than_was_asked_for(
    store: Store, partition: Partition
):
    await bury(store, partition, "q", b"x" * 3_000_000)
    (letter,) = await dead.read_letters(store, partition, count=9, cut=10)
    assert (letter.raw, letter.size) == (b"x" * 10, 3_000_000)
    (letter,) = await dead.read_letters(store, partition, count=9)
    assert letter.raw == b""


async def test_letters_are_found_by_what_is_in_them(store: Store, partition: Partition):
    for name in (b"run-1", b"run-2", b"run-12"):
        await bury(store, partition, "q", b"\x99" + name + b"\xc0")
    found = await dead.read_letters(store, partition, count=9, cut=-1, about="run-1")
    assert [letter.raw[1:-1] for letter in found] == [b"run-12", b"run-1"]
    assert await dead.read_letters(store, partition, count=1, about="run-2") == []


async def test_many_entries_are_buried_in_parts(store: Store, partition: Partition):
    stream = partition.queue("q")
    added = await store.execute_all([("XADD", stream, "*", "e", RAW) for _ in range(600)])
    entries = [(str(entry, "ascii"), "why") for entry in added]
    await dead.bury_entries(store, partition, "q", entries)
    letters = await dead.read_letters(store, partition, count=1000)
    assert len(letters) == 600
    codes = await dead.drop_letters(store, partition, [letter.entry for letter in letters])
    assert codes == ["OK"] * 600


def test_a_letter_that_does_not_say_where_it_came_from_goes_nowhere():
    assert dead.stream_of(Partition("ns", 0, 1), "") is None


async def test_the_group_of_the_inbox_lets_go_of_a_buried_event(store: Store, partition: Partition):
    await streams.ensure_group(store, partition, partition.inbox, GROUP_COORDINATORS)
    found = await read_group(store.link, GROUP_COORDINATORS, "c", [partition.inbox], 9, None)
    for message in found[partition.inbox]:
        await dead.bury_event(store, partition, message.id, "why")
    pending = await streams.pending_of(store, partition.inbox, GROUP_COORDINATORS, "c")
    assert pending == []


async def test_what_cannot_be_buried_stays_where_it_is(store: Store, partition: Partition):
    entry = str(await store.execute("XADD", partition.inbox, "*", "e", RAW), "ascii")
    await store.execute("SET", partition.dead, "no stream")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await dead.bury_event(store, partition, entry, "why")
    assert await raws(store, partition.inbox) == [RAW]
    await store.execute("DEL", partition.dead, partition.inbox)
