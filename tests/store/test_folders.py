"""Who answers for the folders of runs in the storage."""

from __future__ import annotations

import hashlib

from resolute.model.references import Stored, stub_of
from resolute.status import TERMINAL, Code
from resolute.store import folders, registry, runs
from resolute.store.ended import drop_ended
from tests.store.test_retry_flow import retry
from tests.support.flows import builder, chain, step
from tests.support.stage import QUEUE, Stage

FLOW = chain("a", "b", "c")
PAST_MS = -60_000


async def start_with(stage: Stage, run_id: str, folder: str, data: bytes) -> str:
    """The code of a start whose input is in the storage, or in Redis where `folder` is ''."""
    total = hashlib.sha1(data, usedforsecurity=False).hexdigest() if folder else ""
    kept = stub_of(Stored(f"{folder}/input", len(data), total)) if folder else data
    start = runs.Start(run_id, FLOW.name, QUEUE, kept, folder=folder, sum=total)
    return (await runs.start(stage.store, stage.of(run_id), [start], 0))[0]


async def open_for(stage: Stage, run_id: str, folder: str, *, starting: bool = False) -> str:
    answer = await folders.open_folder(stage.store, run_id, folder, starting=starting)
    return answer[1] or answer[0]


async def end_and_drop(stage: Stage, run_id: str) -> None:
    await stage.stop(run_id, terminate=True)
    await stage.coordinate()
    await drop(stage, run_id)


async def drop(stage: Stage, run_id: str) -> None:
    """Delete what has ended in the partition of a run."""
    for status in TERMINAL:
        await drop_ended(stage.store, stage.of(run_id), status, PAST_MS)


async def lost(stage: Stage, run_id: str, *wanted: str) -> list[str]:
    answers = await folders.judge(stage.store, stage.of(run_id), wanted)
    return [folder for folder, code in answers if code == Code.OK]


async def make_due(stage: Stage, run_id: str, folder: str) -> None:
    """Let time pass until a folder is looked at."""
    await stage.store.execute("ZADD", stage.of(run_id).folders_due, 1, folder)


async def test_a_run_has_one_folder_whoever_asks_first(stage: Stage):
    await stage.begin_run(FLOW)
    assert await open_for(stage, "run", "ns/one") == "ns/one"
    assert await open_for(stage, "run", "ns/two") == "ns/one"
    assert await lost(stage, "run", "ns/one") == []


async def test_a_run_that_ended_or_is_not_there_gets_none(stage: Stage):
    assert await open_for(stage, "run", "ns/one") == "GONE"
    await stage.begin_run(FLOW)
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    assert await open_for(stage, "run", "ns/one") == "STALE"


async def test_a_folder_is_due_when_its_run_is_deleted_and_not_before(stage: Stage):
    await stage.begin_run(FLOW)
    await open_for(stage, "run", "ns/one")
    assert await folders.due(stage.store, stage.of("run")) == []
    await end_and_drop(stage, "run")
    assert await folders.due(stage.store, stage.of("run")) == ["ns/one"]
    assert await lost(stage, "run", "ns/one") == ["ns/one"]
    assert await lost(stage, "run", "ns/one") == ["ns/one"]  # until it is forgotten
    await folders.forget(stage.store, stage.of("run"), "ns/one")
    assert await lost(stage, "run", "ns/one") == []
    assert await folders.due(stage.store, stage.of("run")) == []


async def test_a_run_begun_anew_under_the_same_id_has_its_own_folder(stage: Stage):
    await stage.begin_run(FLOW)
    await open_for(stage, "run", "ns/one")
    await end_and_drop(stage, "run")
    await stage.begin_run(FLOW)
    assert await open_for(stage, "run", "ns/two") == "ns/two"
    assert await lost(stage, "run", "ns/one", "ns/two") == ["ns/one"]


async def test_a_folder_lives_as_long_as_the_last_run_that_has_it(stage: Stage):
    await stage.begin_run(FLOW)
    assert await open_for(stage, "run", "ns/one") == "ns/one"
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    partition = stage.of("run")
    assert await retry(stage) == "OK"
    await drop(stage, "run")
    assert await folders.due(stage.store, partition) == ["ns/one"]
    assert await lost(stage, "run", "ns/one") == []
    assert await open_for(stage, "run/~1", "ns/two") == "ns/one"
    await end_and_drop(stage, "run/~1")
    assert await lost(stage, "run", "ns/one") == ["ns/one"]


async def test_a_folder_whose_run_went_by_its_ttl_is_found_by_the_next_look(stage: Stage):
    await stage.begin_run(FLOW)
    await open_for(stage, "run", "ns/one")
    partition = stage.of("run")
    due_at = float(await stage.store.execute("ZSCORE", partition.folders_due, "ns/one"))
    now = await registry.server_ms(stage.store)
    assert 0 < due_at - now <= folders.LASTING_MS
    await end_and_drop(stage, "run")
    assert await lost(stage, "run", "ns/one") == ["ns/one"]


async def test_the_input_of_a_run_may_be_in_a_folder_that_was_opened_for_it(stage: Stage):
    await stage.offer(FLOW)
    assert await open_for(stage, "run", "ns/one", starting=True) == "ns/one"
    assert await start_with(stage, "run", "ns/one", b"input") == "OK"
    assert await start_with(stage, "run", "ns/one", b"input") == "EXISTS"
    assert await lost(stage, "run", "ns/one") == []
    assert await open_for(stage, "run", "ns/two") == "ns/one"


async def test_a_start_with_a_folder_that_was_given_up_is_refused(stage: Stage):
    await stage.offer(FLOW)
    await open_for(stage, "run", "ns/one", starting=True)
    assert await lost(stage, "run", "ns/one") == ["ns/one"]
    assert await start_with(stage, "run", "ns/one", b"input") == "STALE"
    await folders.forget(stage.store, stage.of("run"), "ns/one")
    assert await start_with(stage, "run", "ns/one", b"input") == "STALE"


async def test_the_same_input_is_the_same_wherever_it_is(stage: Stage):
    await stage.offer(FLOW)
    await open_for(stage, "run", "ns/one", starting=True)
    assert await start_with(stage, "run", "ns/one", b"input") == "OK"
    await open_for(stage, "run", "ns/two", starting=True)
    assert await start_with(stage, "run", "ns/two", b"input") == "EXISTS"
    assert await start_with(stage, "run", "ns/two", b"other") == "CONFLICT"
    assert await start_with(stage, "run", "", b"input") == "EXISTS"
    assert await start_with(stage, "run", "", b"other") == "CONFLICT"
    assert await lost(stage, "run", "ns/one", "ns/two") == ["ns/two"]
    small = "small"
    assert await start_with(stage, small, "", b"input") == "OK"
    await open_for(stage, small, "ns/three", starting=True)
    assert await start_with(stage, small, "ns/three", b"input") == "EXISTS"
    assert await start_with(stage, small, "ns/three", b"other") == "CONFLICT"
    for run_id, folder in (("run", "ns/two"), (small, "ns/three")):
        await lost(stage, run_id, folder)
        await folders.forget(stage.store, stage.of(run_id), folder)


CHILD = builder("child").then(step("one")).build()
PARENT = builder("parent").then_children("kids", flow=CHILD, inputs=lambda _: [1, 2]).build()


async def begin_family(stage: Stage, *, opened: bool) -> None:
    """A run with two that it started, neither of which has begun; it may have a folder before."""
    await stage.offer(CHILD, process="stage:1:child")
    await stage.begin_run(PARENT)
    if opened:
        assert await open_for(stage, "run", "ns/one") == "ns/one"
    held = await stage.claim_one("worker")
    assert await stage.store_items("worker", held, [b"\x01", b"\x02"]) == "OK"
    assert await stage.complete("worker", held, b"\x02", arg="2") == "OK"
    await stage.coordinate()


async def end_family(stage: Stage) -> None:
    await stage.stop("run", terminate=True)
    await stage.work()


async def test_a_run_has_the_folder_of_the_run_that_started_it(stage: Stage):
    await begin_family(stage, opened=True)
    assert (await stage.hash("run/kids.1"))["folder"] == b"ns/one"
    assert await open_for(stage, "run/kids.1", "ns/two") == "ns/one"
    await end_family(stage)
    await drop(stage, "run")
    assert await lost(stage, "run", "ns/one") == ["ns/one"]


async def test_the_folder_of_a_run_is_that_of_those_above_it_too(stage: Stage):
    await begin_family(stage, opened=False)
    assert await open_for(stage, "run/kids.0", "ns/one") == "ns/one"
    assert await open_for(stage, "run/kids.1", "ns/two") == "ns/one"
    assert await open_for(stage, "run", "ns/three") == "ns/one"
    await end_family(stage)


async def test_a_folder_outlives_a_child_that_is_deleted_before_its_parent(stage: Stage):
    await begin_family(stage, opened=True)
    (held, *_) = await stage.claim("worker")
    assert held.entry.flow == "run/kids.0"
    await stage.complete("worker", held)
    await stage.coordinate()
    await drop(stage, "run")
    assert not await stage.hash("run/kids.0")
    assert await lost(stage, "run", "ns/one") == []
    await end_family(stage)
    await drop(stage, "run")
    assert await lost(stage, "run", "ns/one") == ["ns/one"]


async def test_of_a_folder_that_very_many_had_some_are_looked_at_at_a_time(stage: Stage):
    await stage.begin_run(FLOW)
    assert await open_for(stage, "run", "ns/one") == "ns/one"
    partition = stage.of("run")
    for number in range(folders.MEMBERS + 5):
        await stage.store.execute("ZADD", partition.folders, 0, f"ns/one run/a.{number:04}")
    await end_and_drop(stage, "run")
    answers = await folders.judge(stage.store, partition, ["ns/one"])
    assert answers == [("ns/one", "STALE")]
    assert await lost(stage, "run", "ns/one") == ["ns/one"]
