"""Webhooks: a delivery starts a run of every flow whose trigger has its path."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from resolute.client import Client
from resolute.client.triggering import Startable, run_id_of, startable
from resolute.errors import (
    AlreadyRunning,
    IdConflict,
    InvalidInput,
    NotEncodable,
    PayloadTooLarge,
    ResoluteError,
)
from resolute.model.plan import WebhookPlan
from resolute.priority import Priority
from resolute.web.signatures import delivery_id, is_signed

FRESH = 1.0  # s; for so long a look at the offered flows is good enough


@dataclass(frozen=True)
class Hook:
    """A flow's trigger at a path."""

    started: Startable
    plan: WebhookPlan
    priority: Priority = Priority.NORMAL


class Refused(ResoluteError):
    """A delivery that starts nothing, with its HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


class Hooks:
    """Takes deliveries. Secrets are read from the environment each time: they may be changed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._by_path: dict[str, list[Hook]] = {}
        self._looked = float("-inf")

    async def deliver(self, path: str, headers: Mapping[str, str], body: bytes) -> list[str]:
        """Start the runs of a delivery; their ids, the same for the same delivery.

        Header names are in lower case. Raises Refused, StoreUnavailable.
        """
        hooks = await self._hooks_at(path)
        if not hooks:
            raise Refused(404, f"no flow has a webhook at {path!r}")
        trusted = [hook for hook in hooks if _is_trusted(hook, headers, body)]
        if not trusted:
            raise Refused(401, "the signature is missing or wrong")
        try:
            value = msgspec.json.decode(body) if body else None
        except (ValueError, RecursionError) as error:  # also text that is no UTF-8
            raise Refused(400, f"expected a body in JSON: {error}") from None
        delivery = delivery_id(headers, body)
        started: list[str] = []
        for hook in trusted:
            run_id = run_id_of(hook.started.flow, "hook", delivery) if delivery else None
            try:
                trigger = ("webhook", path)
                run = await self._client.start_triggered(hook.started, trigger, value, run_id)
            except (InvalidInput, NotEncodable) as error:  # also without the key of the trigger
                raise Refused(422, str(error)) from None
            except PayloadTooLarge as error:
                raise Refused(413, str(error)) from None
            except AlreadyRunning as error:
                raise Refused(409, str(error)) from None
            except IdConflict:
                raise Refused(409, "this delivery came before, with another body") from None
            started.append(run.id)
        return started

    async def _hooks_at(self, path: str) -> list[Hook]:
        if time.monotonic() - self._looked > FRESH:
            self._by_path = await self._read()
            self._looked = time.monotonic()
        return self._by_path.get(path, [])

    async def _read(self) -> dict[str, list[Hook]]:
        found: dict[str, list[Hook]] = {}
        for one in await startable(self._client.store, self._client.directory):
            for plan in one.plan.webhooks:
                found.setdefault(plan.path, []).append(Hook(one, plan))
        return found


def _is_trusted(hook: Hook, headers: Mapping[str, str], body: bytes) -> bool:
    if not hook.plan.secret_from:
        return True
    secret = os.environ.get(hook.plan.secret_from, "")
    return bool(secret) and is_signed(headers, body, secret.encode(), time.time())
