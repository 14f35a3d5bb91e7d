"""The supervisor's answers to what comes late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resolute.store import registry
from resolute.store.store import Store
from resolute_worker.shared import SharedPage
from resolute_worker.supervisor import Child, Supervisor, WorkerConfig

pytestmark = pytest.mark.parametrize("partitions", [1], indirect=True)
CONFIG = WorkerConfig(redis="", namespace="", queue="q", app="", lease=0.3)


async def test_an_answer_to_a_beat_may_come_after_its_process_has_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    supervisor = Supervisor(store, CONFIG)
    process: Any = None
    child = Child("host:1:w", process, SharedPage.create(1, CONFIG.lease))
    child.page.is_registered = True
    supervisor._children.add(child)
    asked = asyncio.Event()

    async def beat(_: Store, names: list[str], told: Any) -> list[list[str] | None]:
        assert names == [child.name]
        supervisor._children.discard(child)
        child.page.close()
        asked.set()
        return [[]]

    monkeypatch.setattr(registry, "beat", beat)
    beating = asyncio.create_task(supervisor._beat())
    await asked.wait()
    await asyncio.sleep(0)
    assert not beating.done()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


async def test_a_process_that_is_not_registered_yet_is_not_fenced(store: Store):
    supervisor = Supervisor(store, CONFIG)
    process: Any = None
    child = Child("host:1:w", process, SharedPage.create(1, CONFIG.lease))
    supervisor._children.add(child)
    child.page.record_beat(0.0)
    beating = asyncio.create_task(supervisor._beat())
    await asyncio.sleep(0)
    assert not child.page.is_fenced
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    child.page.close()


async def test_a_process_that_cannot_be_started_now_is_started_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    """For want of a descriptor, of memory, of a place in the table of processes."""
    supervisor = Supervisor(store, CONFIG)
    tries = 0

    async def start(*_: Any, **__: Any) -> Any:
        nonlocal tries
        tries += 1
        supervisor._stopping = tries == 3
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    await supervisor._keep()
    assert tries == 3
    assert not supervisor._children
