from __future__ import annotations

import logging
from pathlib import Path

import pytest

from resolute import ObjectMissing, Storage, StorageUnavailable
from resolute.coordinator.objects import Objects
from resolute.model.references import Stored
from resolute.store import folders
from tests.store.test_folders import end_and_drop, make_due
from tests.support.flows import chain
from tests.support.stage import Stage

FLOW = chain("a")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "objects"))


async def begin_with_object(stage: Stage, storage: Storage, run_id: str = "run") -> Stored:
    """A run that has an object in the storage."""
    await stage.begin_run(FLOW, run_id)
    _, folder = await folders.open_folder(stage.store, run_id, f"ns/{run_id}")
    return storage.write(folder, "1.0", b"data")


async def test_the_objects_of_a_run_go_with_it(stage: Stage, storage: Storage):
    stored = await begin_with_object(stage, storage)
    objects = Objects(stage.store, storage, 1.0)
    assert await objects.run_once() == 0
    assert storage.read(stored) == b"data"
    await end_and_drop(stage, "run")
    assert await objects.run_once() == 1
    with pytest.raises(ObjectMissing):
        storage.read(stored)
    assert await objects.run_once() == 0


async def test_more_than_one_look_can_tell_are_deleted_in_one_pass(stage: Stage, storage: Storage):
    ids = stage.ids(2 * folders.MOST + 5)
    for run_id in ids:
        await begin_with_object(stage, storage, run_id)
    for run_id in ids:
        await end_and_drop(stage, run_id)
    assert await Objects(stage.store, storage, 1.0).run_once() == len(ids)


async def test_a_coordinator_that_died_between_the_two_leaves_nothing(
    stage: Stage, storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    await begin_with_object(stage, storage)
    await end_and_drop(stage, "run")

    async def die(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as dying:
        dying.setattr(folders, "forget", die)
        with pytest.raises(RuntimeError):
            await Objects(stage.store, storage, 1.0).run_once()
    await make_due(stage, "run", "ns/run")
    assert await Objects(stage.store, storage, 1.0).run_once() == 1


async def test_objects_whose_storage_is_away_are_deleted_later(
    stage: Stage, storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    stored = await begin_with_object(stage, storage)
    await end_and_drop(stage, "run")
    objects = Objects(stage.store, storage, 1.0)

    def fail(_: str) -> None:
        raise StorageUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(storage, "delete", fail)
        assert await objects.run_once() == 0
    assert await folders.due(stage.store, stage.of("run")) == []  # others are not held up
    await make_due(stage, "run", "ns/run")
    assert await objects.run_once() == 1
    with pytest.raises(ObjectMissing):
        storage.read(stored)


async def test_a_coordinator_without_a_storage_says_so_once_and_leaves_them(
    stage: Stage, storage: Storage, caplog: pytest.LogCaptureFixture
):
    stored = await begin_with_object(stage, storage)
    objects = Objects(stage.store, None, 1.0)
    with caplog.at_level(logging.WARNING):
        assert await objects.run_once() == 0
        assert caplog.messages == []
        await end_and_drop(stage, "run")
        assert await objects.run_once() == 0
        assert await objects.run_once() == 0
    (said,) = caplog.messages
    assert "--storage" in said
    assert storage.read(stored) == b"data"
    assert await Objects(stage.store, storage, 1.0).run_once() == 1
