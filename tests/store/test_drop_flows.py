"""The retention deletes what ended long ago: never a run that goes on, whatever the indexes say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resolute.coordinator.retention import Retention
from resolute.status import RunStatus
from resolute.store import ended
from resolute.store.script import KeyList, pack, pack_item
from resolute.store.transitions import IndexedItem
from tests.support.flows import builder, chain, step
from tests.support.keyspace import all_keys
from tests.support.stage import NIL, Stage

FLOW = chain("a")
PAST_MS = -60_000  # what ends a minute from now is past it too
LONG_MS = 3_600_000


async def ended_run(stage: Stage, run_id: str = "run") -> None:
    await stage.begin_run(FLOW, run_id)
    await stage.work()
    assert await stage.status(run_id) == "completed"


async def drop(stage: Stage, run_id: str, before: int, flow: str = "") -> None:
    """What a coordinator sends that read the index some time ago."""
    partition = stage.of(run_id)
    keys = KeyList(partition.ended(RunStatus.COMPLETED))
    item = IndexedItem(
        keys.index(partition.flow(run_id)),
        keys.index(partition.ended(RunStatus.COMPLETED, "chain")),
        run_id,
    )
    await stage.store.call("drop_flows", keys.keys, pack(before, flow), [pack_item(item)])


FAR = 1 << 52  # ms: everything ended before it


async def test_a_run_past_its_retention_is_deleted_with_its_places_in_the_indexes(stage: Stage):
    await ended_run(stage)
    partition = stage.of("run")
    dropped = await ended.drop_ended(stage.store, partition, RunStatus.COMPLETED, PAST_MS)
    assert dropped == 1
    left = [key for key in await all_keys(stage.store) if ":f:" in key or ":x:" in key]
    assert left == []


async def test_a_run_within_its_retention_stays(stage: Stage):
    await ended_run(stage)
    assert await Retention(stage.store, stage.catalog, LONG_MS).run_once() == 0
    index = stage.of("run").ended(RunStatus.COMPLETED)
    end = await stage.store.execute("ZSCORE", index, "run")
    await drop(stage, "run", int(end) - 1)
    assert await stage.status() == "completed"
    assert await stage.store.execute("ZSCORE", index, "run") == end


async def test_a_run_that_was_started_anew_after_it_was_deleted_is_not_deleted_again(
    stage: Stage,
):
    """Two coordinators read the index, one deletes, the id is used again, the other deletes."""
    await ended_run(stage)
    await drop(stage, "run", FAR)
    await stage.start(FLOW)
    await drop(stage, "run", FAR)
    assert await stage.status() == "running"
    await stage.work()
    assert await stage.status() == "completed"


async def test_a_run_whose_id_is_in_the_index_from_before_is_not_deleted(stage: Stage):
    """The hash of the first run went by its time to live, before the retention came to it."""
    await ended_run(stage)
    await stage.store.execute("DEL", stage.of("run").flow("run"))
    await stage.start(FLOW)
    assert await Retention(stage.store, stage.catalog, PAST_MS).run_once() >= 1
    assert await stage.status() == "running"
    index = stage.of("run").ended(RunStatus.COMPLETED)
    assert await stage.store.execute("ZSCORE", index, "run") is None


async def test_a_run_that_ended_otherwise_the_second_time_is_kept_from_then_on(stage: Stage):
    await ended_run(stage)
    partition = stage.of("run")
    await stage.store.execute("DEL", partition.flow("run"))
    for index in (
        partition.ended(RunStatus.COMPLETED),
        partition.ended(RunStatus.COMPLETED, "chain"),
    ):
        await stage.store.execute("ZADD", index, 1, "run")
    await stage.start(FLOW)
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    assert await Retention(stage.store, stage.catalog, LONG_MS).run_once() == 1
    assert await stage.status() == "terminated"


async def test_a_run_whose_hash_is_gone_leaves_nothing_in_any_index(stage: Stage):
    await ended_run(stage)
    await stage.store.execute("DEL", stage.of("run").flow("run"))
    await Retention(stage.store, stage.catalog, PAST_MS).run_once()
    assert [key for key in await all_keys(stage.store) if ":x:" in key] == []


@pytest.mark.parametrize("count", [1, 450])
async def test_all_that_is_past_its_retention_goes_in_one_pass(stage: Stage, count: int):
    await stage.offer(FLOW)
    for run_id in stage.ids(count):
        await stage.start(FLOW, run_id, NIL)
    assert await stage.work() == count
    assert await Retention(stage.store, stage.catalog, PAST_MS).run_once() == count
    assert [key for key in await all_keys(stage.store) if ":f:" in key] == []


async def ended_long_ago(stage: Stage, run_id: str) -> None:
    """A place in the indexes, of whatever is under the run's key."""
    for index in both_indexes(stage, run_id):
        await stage.store.execute("ZADD", index, 1, run_id)


def both_indexes(stage: Stage, run_id: str) -> list[str]:
    partition = stage.of(run_id)
    return [partition.ended(RunStatus.COMPLETED), partition.ended(RunStatus.COMPLETED, "chain")]


async def test_what_is_no_hash_is_left_alone_and_leaves_the_indexes(stage: Stage):
    key = stage.of("strange").flow("strange")
    await stage.store.execute("SET", key, "no hash")
    await ended_long_ago(stage, "strange")
    await drop(stage, "strange", FAR, "chain")
    for index in both_indexes(stage, "strange"):
        assert await stage.store.execute("ZSCORE", index, "strange") is None
    assert await stage.store.execute("GET", key) == b"no hash"
    await stage.store.execute("DEL", key)


async def test_what_is_no_hash_does_not_hold_back_the_rest_of_the_pass(stage: Stage):
    await ended_run(stage)
    key = stage.of("strange").flow("strange")
    await stage.store.execute("SET", key, "no hash")
    await ended_long_ago(stage, "strange")
    await stage.store.execute("DEL", stage.store.keys.meta.flows)  # nobody knows these flows
    assert await Retention(stage.store, Stage(stage.store).catalog, PAST_MS).run_once() == 2
    assert await stage.store.execute("EXISTS", stage.of("run").flow("run")) == 0
    await stage.store.execute("DEL", key, *both_indexes(stage, "strange"))


async def test_what_is_no_index_does_not_hold_back_the_rest_of_the_pass(stage: Stage):
    await ended_run(stage)
    partition = stage.of("run")
    strange = partition.ended(RunStatus.COMPLETED, "chain")
    await stage.store.execute("SET", strange, "no index")
    assert await Retention(stage.store, stage.catalog, PAST_MS).run_once() == 1
    left = [key for key in await all_keys(stage.store) if ":f:" in key or ":x:" in key]
    assert left == [strange]
    await stage.store.execute("DEL", strange)


async def test_only_what_the_script_did_is_counted(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """Whoever goes on while something is dropped would go on for ever."""
    await ended_run(stage)
    call = stage.store.call

    async def refused(name: str, *rest: Any) -> Any:
        reply = await call(name, *rest)
        return [[b"ERROR", b"why"]] * len(reply) if name == "drop_flows" else reply

    partition = stage.of("run")
    monkeypatch.setattr(stage.store, "call", refused)
    found = [(1 << 52, "run")]
    assert await ended.drop(stage.store, partition, RunStatus.COMPLETED, "chain", found) == 0
    await stage.store.execute("ZADD", partition.ended(RunStatus.COMPLETED), 1, "run")
    assert await ended.drop_ended(stage.store, partition, RunStatus.COMPLETED, PAST_MS) == 0
    monkeypatch.undo()


@pytest.mark.parametrize("count", [3, 200])
async def test_a_pass_ends_where_nothing_can_be_dropped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, count: int
):
    flow = builder("chain").then(step("a")).with_retention("1h", keep_last=1).build()
    await stage.offer(flow)
    for run_id in stage.ids(count):
        await ended_long_ago(stage, run_id)

    async def in_vain(*_: object) -> int:
        return 0

    async with asyncio.timeout(20):
        with monkeypatch.context() as patch:
            patch.setattr(ended, "drop", in_vain)
            await Retention(stage.store, stage.catalog, PAST_MS).run_once()
