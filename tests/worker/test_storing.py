"""A worker and its storage: what waits for it, what is handed back, what fails."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from resolute import (
    FlowState,
    Page,
    PageRequest,
    Storage,
    StorageUnavailable,
    current,
    node,
    paginate,
)
from resolute.coordinator.objects import Objects
from resolute.engine.undoing import MANY_UNDOS
from resolute.model import codec
from resolute.model.flow import Flow
from resolute.model.references import Stored, is_stub, stored_in
from resolute.status import NodeStatus
from resolute.store import folders
from resolute_worker.deadlines import Deadlines
from resolute_worker.jobs import Job
from tests.store.test_folders import end_and_drop
from tests.support.flows import builder
from tests.support.stage import Stage
from tests.worker.parts import ONCE, Make, Parts

TEXT = "x" * 300


class Flaky(Storage):
    """A storage that is away as often as it is told, and counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.failing = 0
        self.asked = 0
        self.was_away = asyncio.Event()

    def write(self, folder: str, name: str, data: bytes) -> Stored:
        self._ask()
        return super().write(folder, name, data)

    def read(self, stored: Stored) -> bytes:
        self._ask()
        return super().read(stored)

    def _ask(self) -> None:
        self.asked += 1
        if self.failing:
            self.failing -= 1
            raise StorageUnavailable("away")


called: list[Any] = []


@pytest.fixture(autouse=True)
def forget_calls() -> None:
    called.clear()


@node("large")
async def large() -> str:
    called.append("large")
    return TEXT


@node("large-sync", timeout="1s")
def large_sync() -> str:
    called.append("large-sync")
    return TEXT


@node("use")
async def use(text: str) -> int:
    called.append("use")
    return len(text)


@node("ref")
async def ref() -> int:
    called.append("ref")
    return (await current().store(TEXT)).size


@node("undo")
async def undo(text: str) -> None:
    called.append(text)


def flow_of(*nodes: Any) -> Flow[Any, Any]:
    made = builder("stored").with_max_payload(100)
    for one in nodes:
        made = made.then(one)
    return made.build()


async def ready(stage: Stage, make_parts: Make, flow: Flow[Any, Any], storage: Storage) -> Parts:
    await stage.begin_run(flow)
    return make_parts(flow, storage=storage)


async def rework(stage: Stage, parts: Parts) -> None:
    """Work once more on what was handed back for later."""
    await stage.make_due(stage.of("run"))
    assert await stage.release(stage.of("run")) == ["OK"]
    await parts.work()


@pytest.mark.parametrize("one", [large, large_sync])
async def test_a_result_waits_for_its_storage_and_its_function_is_not_called_again(
    stage: Stage, make_parts: Make, one: Any
):
    storage = Flaky()
    storage.failing = 3
    parts = await ready(stage, make_parts, flow_of(one), storage)
    await parts.work()
    await stage.coordinate()
    assert await stage.status() == "completed"
    assert called == [one.name]
    assert storage.asked == 4
    record = await stage.record_of("run", 1, 0)
    assert record is not None
    assert record.attempt == 1


async def test_the_timeout_stands_still_while_a_result_waits(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    storage = Flaky()
    storage.failing = 2
    parts = await ready(stage, make_parts, flow_of(large_sync), storage)
    slept = asyncio.Event()

    def long_enough(_: int) -> float:
        slept.set()
        return 1.2 if storage.failing == 1 else 0.0  # longer than the node's timeout

    monkeypatch.setattr("resolute_worker.objects.backoff", long_enough)
    await parts.work()
    assert slept.is_set()
    await stage.coordinate()
    assert await stage.status() == "completed"


async def test_a_page_that_waits_for_its_storage_is_no_silence_and_leaves_its_timeout(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    storage = Flaky()
    storage.failing = 2
    overdue: list[object] = []

    async def fetch(_: Any, page: PageRequest) -> Page[str]:
        current().heartbeat()
        return Page([TEXT], "more" if page.number == 0 else None)

    pages = paginate("pages", fetch, page_size=1, timeout="1s", retry=ONCE).with_heartbeat("300ms")
    parts = await ready(stage, make_parts, flow_of(pages), storage)

    def longer_than_both(_: int) -> float:
        return 1.2 if storage.failing == 1 else 0.0

    monkeypatch.setattr("resolute_worker.objects.backoff", longer_than_both)
    returned = Deadlines.returned

    def watched(self: Deadlines, job: Job) -> None:
        returned(self, job)
        overdue.extend(parts.page.overdue(0))

    monkeypatch.setattr(Deadlines, "returned", watched)
    for _ in range(2):
        await parts.work()
    await stage.coordinate()
    assert await stage.status() == "completed"
    assert overdue == []


async def test_an_input_whose_storage_is_away_is_handed_back_without_an_attempt(
    stage: Stage, make_parts: Make
):
    storage = Flaky()
    parts = await ready(stage, make_parts, flow_of(large, use), storage)
    await parts.work()
    await stage.coordinate()
    storage.failing = 1
    await parts.work()
    record = await stage.record_of("run", 2, 0)
    assert record is not None
    assert (record.status, record.attempt) == (NodeStatus.WAITING, 1)
    await rework(stage, parts)
    await stage.coordinate()
    assert await stage.status() == "completed"
    assert called == ["large", "use"]


def read_large(state: FlowState) -> str:
    return state[large]


async def test_a_worker_without_the_storage_hands_back_what_is_in_it(
    stage: Stage, make_parts: Make
):
    storage = Flaky()
    flow = flow_of(large, use.with_input(read_large))
    parts = await ready(stage, make_parts, flow, storage)
    await parts.work()
    await stage.coordinate()
    await make_parts(flow).work()
    record = await stage.record_of("run", 2, 0)
    assert record is not None
    assert (record.status, record.attempt) == (NodeStatus.WAITING, 1)
    assert called == ["large"]
    await rework(stage, parts)
    assert called == ["large", "use"]


async def test_a_node_that_stores_while_the_storage_is_away_is_handed_back(
    stage: Stage, make_parts: Make
):
    storage = Flaky()
    storage.failing = 1
    parts = await ready(stage, make_parts, flow_of(ref), storage)
    await parts.work()
    record = await stage.record_of("run", 1, 0)
    assert record is not None
    assert (record.status, record.attempt) == (NodeStatus.WAITING, 1)
    await rework(stage, parts)
    assert called == ["ref", "ref"]


async def test_a_damaged_object_fails_the_node_that_needs_it(stage: Stage, make_parts: Make):
    storage = Flaky()
    flow = flow_of(large, use.with_retry(ONCE))
    parts = await ready(stage, make_parts, flow, storage)
    await parts.work()
    await stage.coordinate()
    (stored,) = stored_in((await stage.hash())["o:large"])
    storage._backend.write(stored.path, b"y" * stored.size)
    await parts.work()
    await stage.coordinate()
    header = await stage.header()
    assert header.status == "failed"
    assert header.error is not None
    assert header.error.type == "ChecksumMismatch"
    assert stored.path in header.error.message


async def test_nothing_of_a_value_in_the_storage_is_in_redis(stage: Stage, make_parts: Make):
    parts = await ready(stage, make_parts, flow_of(large, use), Flaky())
    await parts.work()
    await stage.coordinate()
    assert not [value for value in (await stage.hash()).values() if b"xxx" in value]


async def test_an_output_that_is_undone_is_stored_once(stage: Stage, make_parts: Make):
    storage = Flaky()
    parts = await ready(stage, make_parts, flow_of(large.on_error(undo)), storage)
    await parts.work()
    found = await stage.hash()
    assert storage.asked == 1
    assert found["ui:1"][2:] == found["o:large"]


async def count_of_many(stage: Stage, make_parts: Make, count: int) -> bytes:
    """The stored input of the compensation that follows `count` others, of a node in a loop."""

    @node("turn")
    async def turn() -> str:
        return "small"

    flow = (
        builder("looped")
        .then_loop(
            "loop", body=turn.on_error(undo), state=int, initial=0, while_=lambda n: n < 1,
            after=lambda _, n: n + 1,
        )
        .build()
    )  # fmt: skip
    await stage.begin_run(flow)
    parts = make_parts(flow, storage=Flaky())
    while f"ui:{count + 1}" not in (found := await stage.hash()):
        if count:
            key = stage.of("run").flow("run")
            await stage.store.execute("HSET", key, "undos", count)
        await parts.work()
        await stage.coordinate()
    return found[f"ui:{count + 1}"][2:]


async def test_beyond_a_thousand_compensations_in_a_loop_their_inputs_are_stored(
    stage: Stage, make_parts: Make
):
    assert is_stub(await count_of_many(stage, make_parts, MANY_UNDOS))


async def test_up_to_a_thousand_compensations_in_a_loop_stay_in_redis(
    stage: Stage, make_parts: Make
):
    assert codec.decode(await count_of_many(stage, make_parts, MANY_UNDOS - 1)) == "small"


class Slow(Flaky):
    """A storage that takes an object only when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def write_soon(self, folder: str, name: str, data: bytes) -> Stored:
        self.begun.set()
        await self.go_on.wait()
        return await super().write_soon(folder, name, data)


async def test_what_a_process_stores_after_its_run_was_deleted_is_deleted(
    stage: Stage, make_parts: Make
):
    storage = Slow()
    parts = await ready(stage, make_parts, flow_of(large), storage)
    await parts.read()
    await storage.begun.wait()
    await end_and_drop(stage, "run")
    assert await Objects(stage.store, storage, 1.0).run_once() == 1
    storage.go_on.set()
    await parts.idle()
    while parts.runner._side_tasks:
        await asyncio.wait(parts.runner._side_tasks)
    assert storage.asked == 1
    backend = storage._backend
    assert not vars(backend)["_objects"]
    assert await folders.due(stage.store, stage.of("run")) == []


def test_a_marker_is_no_value_of_a_user():
    with pytest.raises(Exception, match="Resolute's own"):
        codec.encode(msgspec.msgpack.Ext(0x52, bytes(300)))
