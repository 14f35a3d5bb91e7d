"""Answering queries: in threads of their own, so that a slow one holds up no node."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from resolute.engine.reading import answer
from resolute.errors import ErrorInfo, ResoluteError
from resolute.model.flow import Flow
from resolute.model.state import Outputs
from resolute.store import queries
from resolute.store.nodes import Held
from resolute.store.store import Store
from resolute_worker.offers import Offers

log = logging.getLogger(__name__)

THREADS = 4  # queries of one process at a time; one that never returns keeps its thread
REMEMBERED = 1_000  # queries that are not answered again when what is pending is looked at

_encode = msgspec.msgpack.Encoder().encode


class Queries:
    """`outputs_of` gives what a run has, to be read in a thread."""

    def __init__(
        self,
        store: Store,
        offers: Offers,
        outputs_of: Callable[[Held, Flow[Any, Any]], Outputs],
    ) -> None:
        self._store = store
        self._offers = offers
        self._outputs_of = outputs_of
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="query")
        self._taken: OrderedDict[tuple[str, str], None] = OrderedDict()  # by stream and entry

    async def answer(self, held: Held) -> None:
        """Answer a query; who asked waits for it no longer than it likes.

        Until that is acknowledged it is pending, and may be given here a second time.
        """
        place = (held.stream, held.id)
        if place in self._taken:
            return
        self._taken[place] = None
        if len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        loop = asyncio.get_running_loop()
        try:
            data = await loop.run_in_executor(self._threads, self._packed, held)
            await queries.answer(self._store, held, data)
        except ResoluteError as error:
            self._taken.pop(place, None)  # it is pending, and is tried again
            log.warning("a query of run %s is not answered: %s", held.entry.flow, error)

    def _packed(self, held: Held) -> bytes:
        """What the function says, or what it raised."""
        entry = held.entry
        try:
            flow = self._offers.own(entry.plan)
            if flow is None:
                raise LookupError(f"the plan {entry.plan} is not offered here")
            name = flow.plan.queries[entry.index]
            found = answer(flow, name, self._outputs_of(held, flow))
            return _encode((0, msgspec.Raw(found)))
        except BaseException as error:  # SystemExit too: it is the user's function
            return _encode((1, ErrorInfo.of(error)))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
