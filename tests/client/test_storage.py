"""A client and its storage: inputs above the limit, results that are there, references."""

from __future__ import annotations

from typing import Any

import pytest

from resolute import (
    Client,
    DataRef,
    FlowBuilder,
    IdConflict,
    ObjectMissing,
    PayloadTooLarge,
    Storage,
    StorageUnavailable,
    current,
    manual,
    node,
)
from resolute.coordinator.objects import Objects
from resolute.model.flow import Flow
from resolute.model.references import is_stub, stored_in
from resolute.store import folders, runs
from tests.store.test_folders import drop, make_due
from tests.support.stage import Stage
from tests.worker.parts import ONCE, Parts

TEXT = "x" * 300


@node("echo")
async def echo(text: str) -> str:
    return text


@node("fail-once")
async def fail_once(text: str) -> str:
    if "/~" not in current().run_id:
        raise ValueError("the first time")
    return text + "!"


@node("refer")
async def refer(text: str) -> DataRef[str]:
    return await current().store(text)


def flow_of(*nodes: Any) -> Flow[Any, Any]:
    made: Any = FlowBuilder("large", input=str).triggered_by(manual()).with_max_payload(100)
    for one in nodes:
        made = made.then(one)
    return made.build()


ECHO = flow_of(echo)


@pytest.fixture
def storage() -> Storage:
    return Storage("memory://")


def objects_in(storage: Storage) -> dict[str, bytes]:
    return vars(storage._backend)["_objects"]


async def finish(stage: Stage, flow: Flow[Any, Any], storage: Storage) -> None:
    """Work until nothing is left to do."""
    parts = Parts(stage, (flow,), 10, storage=storage)
    try:
        await stage.coordinate()
        while any([await stage.entries(run_id) for run_id in await open_runs(stage)]):
            await parts.work()
            await stage.coordinate()
    finally:
        await parts.close()


async def open_runs(stage: Stage) -> list[str]:
    found: list[str] = []
    for partition in stage.store.keys.partitions:
        names = await stage.store.execute("ZRANGE", partition.open, 0, -1)
        found += [str(name, "utf-8") for name in names]
    return found


async def test_an_input_above_the_limit_and_its_result_go_by_the_storage(
    stage: Stage, storage: Storage
):
    await stage.offer(ECHO)
    client = Client(stage.store, storage=storage)
    run = await client.start(ECHO, TEXT, id="run")
    assert is_stub((await stage.hash("run"))["input"])
    await finish(stage, ECHO, storage)
    assert await run.result() == TEXT
    assert len(objects_in(storage)) == 2
    assert await run.peek() == "in storage, 0.0 MB"
    await client.watcher.close()


async def test_started_twice_it_is_one_run_with_one_object(stage: Stage, storage: Storage):
    await stage.offer(ECHO)
    client = Client(stage.store, storage=storage)
    for _ in range(2):
        await client.start(ECHO, TEXT, id="run")
    with pytest.raises(IdConflict):
        await client.start(ECHO, TEXT + "y", id="run")
    assert len(objects_in(storage)) == 1
    (stored,) = stored_in((await stage.hash("run"))["input"])
    assert storage.read(stored)
    await client.watcher.close()


async def test_what_a_client_stored_that_died_before_the_start_is_deleted(
    stage: Stage, storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    await stage.offer(ECHO)
    client = Client(stage.store, storage=storage)

    async def die(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as dying:
        dying.setattr(runs, "start", die)
        dying.setattr(client.objects, "clean", die)
        with pytest.raises(RuntimeError):
            await client.start(ECHO, TEXT, id="run")
    assert len(objects_in(storage)) == 1
    partition = stage.of("run")
    assert await folders.due(stage.store, partition) == []  # it may still be under way
    (row,) = await stage.store.execute("ZRANGE", partition.folders, 0, -1)
    await make_due(stage, "run", str(row, "ascii").removesuffix(" run"))
    assert await Objects(stage.store, storage, 1.0).run_once() == 1
    assert objects_in(storage) == {}


async def test_without_a_storage_an_input_above_the_limit_is_refused(stage: Stage):
    await stage.offer(ECHO)
    with pytest.raises(PayloadTooLarge, match="over the limit of 100 bytes"):
        await Client(stage.store).start(ECHO, TEXT, id="run")


async def test_a_client_without_the_storage_says_what_is_missing(stage: Stage, storage: Storage):
    await stage.offer(ECHO)
    run = await Client(stage.store, storage=storage).start(ECHO, TEXT, id="run")
    await finish(stage, ECHO, storage)
    client = Client(stage.store)
    with pytest.raises(StorageUnavailable, match="RESOLUTE_STORAGE"):
        await (await client.get(run.id)).result()
    assert await (await client.get(run.id)).peek() == "in storage, 0.0 MB"
    await client.watcher.close()


async def test_a_reference_in_a_result_is_loaded_as_its_type(stage: Stage, storage: Storage):
    flow = flow_of(refer)
    await stage.offer(flow)
    client = Client(stage.store, storage=storage)
    run = await client.start(flow, "small", id="run")
    await finish(stage, flow, storage)
    ref: DataRef[str] = await run.result()
    assert isinstance(ref, DataRef)
    assert await client.load(ref) == "small"
    await client.watcher.close()


async def test_a_retried_run_reads_what_the_first_stored_until_it_is_deleted_too(
    stage: Stage, storage: Storage
):
    flow = flow_of(echo, fail_once.with_retry(ONCE))
    await stage.offer(flow)
    client = Client(stage.store, storage=storage)
    run = await client.start(flow, TEXT, id="run")
    await finish(stage, flow, storage)
    assert await run.status() == "failed"
    again = await client.retry("run")
    await drop(stage, "run")
    objects = Objects(stage.store, storage, 1.0)
    assert await objects.run_once() == 0
    await finish(stage, flow, storage)
    assert await again.result() == TEXT + "!"
    (stored,) = stored_in((await stage.hash(again.id))["o:echo"])
    await drop(stage, "run")
    assert await objects.run_once() == 1
    with pytest.raises(ObjectMissing):
        storage.read(stored)
    await client.watcher.close()
