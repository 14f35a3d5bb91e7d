from __future__ import annotations

import pytest

from resolute.store import registry
from resolute.store.connection import ServerReply
from resolute.store.store import Store
from tests.support.stage import Stage, forget


async def register(stage: Stage, *names: str) -> None:
    for name in names:
        await stage.offer(process=name)


async def test_a_beat_raises_the_beats_of_all_processes_of_a_supervisor(stage: Stage):
    await register(stage, "one", "two", "three")
    before = await registry.beats(stage.store)
    assert await registry.beat(stage.store, ["one", "two"]) == [[], []]
    after = await registry.beats(stage.store)
    assert [after[name] - before[name] for name in ("one", "two", "three")] == [1, 1, 0]


async def test_a_process_that_is_not_registered_is_told_and_gets_no_beat(stage: Stage):
    await register(stage, "one")
    assert await registry.beat(stage.store, ["gone", "one"]) == [None, []]
    assert set(await registry.beats(stage.store)) == {"one"}


async def test_a_process_whose_lease_was_ended_cannot_beat_itself_back_to_life(stage: Stage):
    """A beat that was on its way when the supervisor found the process dead."""
    await register(stage, "dead")
    await registry.end_lease(stage.store, "dead")
    assert await registry.beat(stage.store, ["dead"]) == [None]
    assert await registry.beats(stage.store) == {"dead": -1}


async def test_the_answer_names_the_nodes_to_cancel_until_the_process_is_forgotten(stage: Stage):
    """The set stays: an answer may be lost. To cancel what has ended is nothing."""
    await register(stage, "one")
    await registry.request_cancel(stage.store, {"one": ["r|1.0|t", "r|1.1|t"]})
    for _ in range(2):
        (told,) = await registry.beat(stage.store, ["one"])
        assert told is not None
        assert sorted(told) == ["r|1.0|t", "r|1.1|t"]
    await forget(stage.store, "one")
    assert await registry.beat(stage.store, ["one"]) == [None]
    cancels = stage.store.keys.meta.cancels("one")
    assert await stage.store.execute("EXISTS", cancels) == 0


async def test_what_is_to_be_cancelled_is_forgotten_if_nobody_asks(store: Store):
    await registry.request_cancel(store, {"nobody": ["r|1.0|t"]})
    left = await store.execute("PTTL", store.keys.meta.cancels("nobody"))
    assert 0 < left <= 1000 * registry.CANCEL_TTL


async def test_every_partition_is_woken_when_a_process_comes_or_is_found_dead(stage: Stage):
    partitions = len(stage.store.keys.partitions)
    await register(stage, "one")
    await stage.coordinate()
    assert stage.wakes == partitions
    await registry.end_lease(stage.store, "one")
    await stage.coordinate()
    assert stage.wakes == 2 * partitions


async def test_what_a_process_was_told_at_the_beat_before_it_is_not_told_again(stage: Stage):
    await register(stage, "one")
    await registry.request_cancel(stage.store, {"one": ["r|1.0|t", "r|1.1|t"]})
    assert await registry.beat(stage.store, ["one"], {"one": ["r|1.0|t"]}) == [["r|1.1|t"]]
    assert await registry.beat(stage.store, ["one"]) == [["r|1.1|t"]]


async def test_a_beat_that_cannot_be_read_is_as_none_and_the_next_one_begins_anew(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    await register(stage, "one", "two", "three")
    for name, value in (("one", "x"), ("two", "3 soon")):
        await stage.store.execute("HSET", stage.store.keys.meta.beats, name, value)
    assert set(await registry.beats(stage.store)) == {"three"}
    assert "the beat of process b'one' cannot be read" in caplog.text
    assert await registry.beat(stage.store, ["one", "two"]) == [[], []]
    assert await registry.beats(stage.store) == {"one": 1, "two": 4, "three": 1}


async def test_a_beat_that_fails_is_no_word_on_a_lease(stage: Stage):
    await register(stage, "one")
    beats = stage.store.keys.meta.beats
    await stage.store.execute("DEL", beats)
    await stage.store.execute("SET", beats, "no hash")
    with pytest.raises(ServerReply, match="WRONGTYPE"):
        await registry.beat(stage.store, ["gone", "one"])
    await stage.store.execute("DEL", beats)
    assert await registry.beat(stage.store, ["gone", "one"]) == [None, []]


async def test_a_beat_counts_where_what_to_cancel_cannot_be_read(stage: Stage):
    await register(stage, "one", "two")
    cancels = stage.store.keys.meta.cancels("one")
    await stage.store.execute("SET", cancels, "no set")
    assert await registry.beat(stage.store, ["one", "two"], {"one": ["r|1.0|t"]}) == [[], []]
    assert await registry.beats(stage.store) == {"one": 2, "two": 2}
    await stage.store.execute("DEL", cancels)


async def test_a_lease_is_over_when_somebody_ended_it(stage: Stage):
    await register(stage, "lives", "beats", "ended", "silent", "gone")
    await registry.beat(stage.store, ["beats"])
    await registry.end_lease(stage.store, "ended")
    await forget(stage.store, "gone")
    count = (await registry.beats(stage.store))["silent"]
    assert await registry.end_silent_lease(stage.store, "silent", count)
    names = ["lives", "beats", "ended", "silent", "gone", "unknown"]
    ends = await registry.ends_of(stage.store, names)
    assert ends == ({"ended", "silent", "gone"}, {"unknown"})
    assert await registry.ends_of(stage.store, []) == (set(), set())


async def test_of_those_who_are_gone_the_latest_are_remembered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(registry, "MOST_DEPARTED", 2)
    names = ["one", "two", "three"]
    for at, name in enumerate(names):
        await forget(stage.store, name)
        await stage.store.execute("ZADD", stage.store.keys.meta.departed, at, name)
    await forget(stage.store, "four")
    ends = await registry.ends_of(stage.store, [*names, "four"])
    assert ends == ({"three", "four"}, {"one", "two"})


async def test_a_process_that_beats_is_not_forgotten(stage: Stage):
    """The server lost the second in which its lease was ended, and whoever did it goes on."""
    await register(stage, "back")
    await registry.beat(stage.store, ["back"])
    assert not await registry.unregister(stage.store, "back")
    assert await registry.beat(stage.store, ["back"]) == [[]]
    assert await registry.ends_of(stage.store, ["back"]) == (set(), set())


async def test_a_process_is_forgotten_though_the_names_of_others_are_damaged(stage: Stage):
    await register(stage, "dead")
    await registry.end_lease(stage.store, "dead")
    await stage.store.execute("SET", stage.store.keys.meta.departed, "no set")
    with pytest.raises(ServerReply, match="WRONGTYPE"):
        await registry.unregister(stage.store, "dead")
    assert "dead" not in await registry.processes(stage.store)
    assert "dead" not in await registry.beats(stage.store)
    await stage.store.execute("DEL", stage.store.keys.meta.departed)
