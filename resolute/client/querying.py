"""Asking a run: the question goes to a worker that has its plan, the answer comes by a key."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from resolute.client.directory import Directory
from resolute.client.watcher import Watcher
from resolute.errors import (
    ErrorInfo,
    QueryFailed,
    QueryTimeout,
    StoreUnavailable,
    UnknownQuery,
    UnknownRun,
)
from resolute.ids import random_text
from resolute.model import codec
from resolute.priority import queue_of
from resolute.store import queries, runs
from resolute.store.queries import Question
from resolute.store.store import Store

REREAD = 5.0  # s; after so long without news the answer is looked for again

_decode_answer = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode


async def query(
    store: Store,
    directory: Directory,
    watcher: Watcher,
    flow_id: str,
    name: str,
    type_: Any,
    timeout: float,
) -> Any:
    """The answer to the query `name`, as a `type_`; `timeout` is in seconds."""
    header = await runs.read_header(store, flow_id)
    if header is None:
        raise UnknownRun(flow_id)
    plan = await directory.plan(header.plan) if header.plan else None
    if plan is None:  # it has not begun
        plan = (await directory.offered(header.flow)).plan
    if name not in plan.queries:
        raise UnknownQuery(header.flow, name, plan.queries)
    question = Question(
        store.keys.of(flow_id), plan.queue or queue_of(header.queue), header.plan or plan.hash,
        flow_id, plan.queries.index(name), random_text(20),
    )  # fmt: skip
    entry = await queries.ask(store, question)
    try:
        async with asyncio.timeout(timeout):
            data = await _answer(store, watcher, question)
    except TimeoutError:
        raise QueryTimeout(flow_id, name, timeout) from None
    finally:
        with contextlib.suppress(StoreUnavailable):  # its answer ends by itself, too
            await asyncio.shield(queries.withdraw(store, question, entry))
    failed, raw = _decode_answer(data)
    if failed:
        raise QueryFailed(flow_id, name, msgspec.msgpack.decode(raw, type=ErrorInfo))
    return codec.decode(bytes(raw), type_)


async def _answer(store: Store, watcher: Watcher, question: Question) -> bytes:
    while True:
        event = await watcher.watch(question.channel)
        try:
            found = await queries.read_answer(store, question)
            if found is not None:
                return found
            try:
                async with asyncio.timeout(REREAD):
                    await event.wait()
            except TimeoutError:
                pass
        finally:
            watcher.forget(question.channel, event)
