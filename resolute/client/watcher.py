"""Waiting for runs to end: one subscribed connection for thousands of them, and no polling."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from resolute.errors import StoreUnavailable
from resolute.store.connection import Connection, backoff
from resolute.store.store import Store

log = logging.getLogger(__name__)

CONFIRM_TIMEOUT = 5.0  # s for the server to confirm a subscription


class Watcher:
    """Tells, by channel, that a run may have ended. It never says that one has not.

    Who waits must subscribe, then read the run, then wait: what is published before is not heard.
    """

    def __init__(self, store: Store) -> None:
        self._link = store.separate_link("resolute-watch", on_push=self._on_push)
        self._store = store
        self._generation = 0
        self._patience = store.patience
        self._signals: dict[str, set[asyncio.Event]] = {}
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def watch(self, channel: str) -> asyncio.Event:
        """An event that is set when the run may have ended. Subscribed when this returns."""
        event = asyncio.Event()
        self._signals.setdefault(channel, set()).add(event)
        try:
            if not await self._subscribe(channel):
                event.set()  # read again, subscribe again
        except BaseException:
            self.forget(channel, event)
            raise
        return event

    async def _subscribe(self, channel: str) -> bool:
        """Whether the subscription is there; a connection that does not confirm it is dropped."""
        connection = await self._live()
        confirmed = self._confirmed.get(channel)
        if confirmed is None or (confirmed.done() and confirmed.exception() is not None):
            confirmed = asyncio.get_running_loop().create_future()
            self._confirmed[channel] = confirmed
            connection.post(("SUBSCRIBE", channel))
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                await asyncio.shield(confirmed)
        except StoreUnavailable:
            return False
        except TimeoutError:
            connection.close()
            return False
        return True

    def forget(self, channel: str, event: asyncio.Event) -> None:
        """This waiter needs it no more."""
        events = self._signals.get(channel)
        if events is None:
            return
        events.discard(event)
        if not events:
            del self._signals[channel]
            self._confirmed.pop(channel, None)
            if self._connection is not None:
                self._connection.post(("UNSUBSCRIBE", channel))

    async def _live(self) -> Connection:
        """The subscribed connection; raises StoreUnavailable once the patience is at its end."""
        failures, give_up = 0, time.monotonic() + self._patience
        if self._generation != self._store.generation and self._connection is not None:
            # Calls had to connect anew: what we subscribed to may have been demoted, and a replica
            # that is not in step publishes nothing.
            self._connection.close()
        while self._connection is None or self._connection.closed.done():
            try:
                self._generation = self._store.generation
                self._connection = await self._link.connection()
            except StoreUnavailable:
                if time.monotonic() > give_up:
                    raise
                failures += 1
                await asyncio.sleep(backoff(failures))
                continue
            if self._keeper is None or self._keeper.done():
                self._keeper = asyncio.create_task(self._keep())
        return self._connection

    async def _keep(self) -> None:
        """After a break, subscribe to everything anew and let everybody read again."""
        failures = 0
        while True:
            if self._connection is not None:
                await asyncio.shield(self._connection.closed)
            for confirmed in self._confirmed.values():
                if not confirmed.done():
                    confirmed.set_exception(StoreUnavailable("the subscription was lost"))
                    confirmed.exception()
            self._confirmed.clear()
            self._connection = None
            for events in self._signals.values():
                for event in events:
                    event.set()
            try:
                self._connection = await self._link.connection()
                failures = 0
            except StoreUnavailable as error:
                failures += 1
                log.debug("watching: %s", error)
                await asyncio.sleep(backoff(failures))

    def _on_push(self, message: list[Any]) -> None:
        kind, channel = message[0], str(message[1] or b"", "utf-8")
        if kind == b"message":
            for event in self._signals.get(channel, ()):
                event.set()
        elif kind == b"subscribe":
            confirmed = self._confirmed.get(channel)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._link.close()
