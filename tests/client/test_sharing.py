"""Starts with a unique key or debounced, as a client makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from resolute import AlreadyRunning, Debounce, FlowBuilder, InvalidInput, Unique, input_data, output
from resolute.client import Client
from resolute.errors import IdConflict, PayloadTooLarge
from resolute.model.triggers import manual, signal
from resolute.status import RunStatus
from resolute.storage import Storage
from resolute.store import claims
from resolute.store.store import Store
from tests.support.flows import step
from tests.support.stage import Stage


class Edit(msgspec.Struct):
    doc: str = "d"
    text: str = ""
    number: int = 0


FLOW = (
    FlowBuilder("index", input=Edit)
    .triggered_by(manual())
    .triggered_by(signal("edited", debounce=Debounce(input_data("doc"), "1m")))
    .triggered_by(signal("checked", unique=Unique(input_data("number"), "fail")))
    .then(step("a"))
    .build()
)


async def test_a_unique_start_gets_the_open_run_with_its_key(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    first = await client.start(FLOW, Edit("d"), unique="d")
    assert (await client.start(FLOW, Edit("d", "new"), unique="d")).id == first.id
    assert (await client.start("index", {"doc": "d"}, unique=Unique("d"))).id == first.id
    assert (await client.start(FLOW, Edit("e"), unique="e")).id != first.id
    with pytest.raises(AlreadyRunning, match=f"flow 'index': run {first.id!r} has the") as caught:
        await client.start(FLOW, Edit(), unique=Unique("d", "fail"))
    assert (caught.value.flow, caught.value.key, caught.value.id) == ("index", "d", first.id)
    await stage.work()
    assert await first.status() == RunStatus.COMPLETED
    assert (await client.start(FLOW, Edit("d"), unique=Unique("d", "fail"))).id != first.id


async def test_every_key_lies_in_the_partition_of_its_runs(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    for number in range(20):
        run = await client.start(FLOW, Edit(), unique=str(number))
        late = await client.start(FLOW, Edit(), debounce=Debounce(str(number), "1m"))
        assert store.keys.of(run.id) is store.keys.of_key("index", str(number))
        assert store.keys.of(late.id) is store.keys.of(run.id)


async def test_who_replaces_a_run_waits_for_its_end(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    first = await client.start(FLOW, Edit("d", "old"), unique="d")
    await stage.coordinate()
    held = await stage.claim_one("worker")
    second = await client.start(FLOW, Edit("d", "new"), unique=Unique("d", "replace"))
    await stage.coordinate()
    assert (await client.start(FLOW, Edit(), unique="d")).id == second.id
    assert (await second.info()).plan == ""
    await stage.complete("worker", held)
    await stage.work()
    assert await first.status() == RunStatus.CANCELLED
    assert await second.status() == RunStatus.COMPLETED


async def test_a_period_outlasts_the_run(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    first = await client.start(FLOW, Edit(), unique=Unique("d", period="1h"))
    await stage.work()
    again = await client.start(FLOW, Edit(), unique=Unique("d", period="1h"))
    assert again.id == first.id
    assert await again.status() == RunStatus.COMPLETED


async def test_a_debounced_run_is_seen_listed_and_cancelled_like_any(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    debounce = Debounce("d", "1m", max_wait="5m")
    first = await client.start(FLOW, Edit("d", "1"), debounce=debounce)
    assert (await client.start(FLOW, Edit("d", "2"), debounce=debounce)).id == first.id
    assert [one.id for one in await client.list(flow="index")] == [first.id]
    assert await first.cancel()
    second = await client.start(FLOW, Edit("d", "3"), debounce=debounce)
    assert second.id != first.id
    await stage.coordinate()
    assert await first.status() == RunStatus.CANCELLED


async def test_a_retried_run_has_its_key_again_or_is_refused(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    first = await client.start(FLOW, Edit(), unique="d")
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    second = await client.start(FLOW, Edit(), unique="d")
    with pytest.raises(AlreadyRunning, match=f"run {second.id!r} has the unique key 'd'"):
        await client.retry(first.id)
    await stage.work()
    again = await client.retry(first.id)
    with pytest.raises(AlreadyRunning):
        await client.start(FLOW, Edit(), unique=Unique("d", "fail"))
    await stage.work()
    assert await again.status() == RunStatus.COMPLETED


# Triggers.


async def test_a_signal_starts_a_run_by_the_key_in_its_payload(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    (first,) = await client.trigger("edited", {"doc": "d", "text": "1"}, id="1")
    (second,) = await client.trigger("edited", {"doc": "d", "text": "2"}, id="2")
    (again,) = await client.trigger("edited", {"doc": "d", "text": "1"}, id="1")
    assert first.id == second.id == again.id
    stored = (await stage.hash(first.id))["input"]
    assert msgspec.msgpack.decode(stored, type=Edit).text == "2"
    (other,) = await client.trigger("edited", {"doc": "e"})
    assert other.id != first.id


async def test_a_signal_with_an_id_is_the_run_that_it_was(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    (first,) = await client.trigger("checked", {"number": 5}, id="one")
    (again,) = await client.trigger("checked", {"number": 5}, id="one")
    assert first.id == again.id
    with pytest.raises(AlreadyRunning):
        await client.trigger("checked", {"number": 5}, id="two")
    await stage.work()
    assert (await client.trigger("checked", {"number": 5}, id="one"))[0].id == first.id
    with pytest.raises(IdConflict):
        await client.trigger("checked", {"number": 5, "text": "else"}, id="one")


async def test_an_input_without_the_key_is_refused_by_name(stage: Stage, store: Store):
    client = Client(store)
    await stage.offer(FLOW)
    for path, why in (
        ("nothing", "has no 'nothing'"),
        ("text.more", "is str, which has no 'more'"),
        ("", "expected a text or a number, got Edit"),
        ("text", "expected 1 to 200 characters, got 0"),
    ):
        with pytest.raises(InvalidInput, match=why):
            await client.start(FLOW, Edit(), unique=Unique(input_data(path)))


# What cannot be.


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Unique(""), "expected 1 to 200 characters, got 0"),
        (lambda: Unique("x" * 201), "expected 1 to 200 characters, got 201"),
        (lambda: Unique("\ud800"), "expected text that UTF-8 can say"),
        (lambda: Unique(7), r"expected a text or input_data\(...\) as its key, got 7"),
        (lambda: Unique(output("a")), r"input_data\(...\) as its key, got output\('a'\)"),
        (
            lambda: Unique("k", cast("Any", "maybe")),
            '"existing", "fail" or "replace", got \'maybe\'',
        ),
        (lambda: Unique("k", period=0), "expected a period above 0, got 0"),
        (lambda: Unique("k", "replace", "1h"), 'no period with "replace"'),
        (lambda: Debounce("", "1s"), "expected 1 to 200 characters"),
        (lambda: Debounce("k", 0), "expected a wait above 0, got 0"),
        (lambda: Debounce("k", "5s", "1s"), "expected a max_wait of '5s' or more, got '1s'"),
    ],
)
def test_a_key_or_a_time_that_cannot_be_is_refused_at_once(make: Callable[[], Any], why: str):
    with pytest.raises(ValueError, match=why):
        make()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"unique": "k", "id": "mine"}, "no id= with it"),
        ({"debounce": Debounce("k", "1s"), "id": "mine"}, "no id= with it"),
        ({"unique": "k", "debounce": Debounce("k", "1s")}, "got both"),
        ({"debounce": Debounce("k", "1s"), "delay": "1s"}, "no delay or at"),
        ({"unique": Unique("k", "replace"), "delay": "1s"}, "no delay or at"),
        ({"unique": ""}, "expected 1 to 200 characters"),
    ],
)
async def test_what_does_not_go_together_is_refused(
    stage: Stage, store: Store, options: dict[str, Any], why: str
):
    await stage.offer(FLOW)
    with pytest.raises(ValueError, match=why):
        await Client(store).start(FLOW, Edit(), **options)


def inputs_in(folder: Path) -> list[Path]:
    return list(folder.rglob("input-*"))


async def test_an_input_for_the_storage_is_kept_by_the_run_that_started_alone(
    stage: Stage, store: Store, tmp_path: Path
):
    client = Client(store, storage=Storage(str(tmp_path)))
    await stage.offer(FLOW)
    large = Edit("d", "x" * 2_000_000)
    first = await client.start(FLOW, large, unique="d")
    kept = inputs_in(tmp_path)
    assert len(kept) == 1
    assert (await client.start(FLOW, large, unique="d")).id == first.id
    assert inputs_in(tmp_path) == kept
    with pytest.raises(PayloadTooLarge):
        await client.start(FLOW, large, debounce=Debounce("d", "1s"))


def test_the_same_origin_has_the_same_id_in_the_partition_of_its_key(store: Store):
    for partition in store.keys.partitions:
        found = claims.placed_id(store.keys, partition, "flow:hook:1")
        assert store.keys.of(found) is partition
        assert claims.placed_id(store.keys, partition, "flow:hook:1") == found
        assert found.startswith("flow:hook:1")


async def test_a_run_with_a_key_has_the_priority_of_its_start_or_its_last_one(
    stage: Stage, store: Store
):
    client = Client(store)
    await stage.offer(FLOW)
    alone = await client.start(FLOW, Edit(), unique="d", priority="high")
    assert (await stage.header(alone.id)).queue == "q^high"
    debounce = Debounce("d", "1m")
    late = await client.start(FLOW, Edit(), debounce=debounce, priority="high")
    await client.start(FLOW, Edit(), debounce=debounce, priority="low")
    assert (await stage.header(late.id)).queue == "q^low"
