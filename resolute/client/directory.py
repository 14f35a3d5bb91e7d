"""What a client must know of a flow before it starts a run: its plan, its queue, its input."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from resolute.errors import (
    ConfigurationError,
    InvalidInput,
    InvalidSignal,
    ResoluteError,
    UnknownFlow,
    UnknownSignal,
)
from resolute.ids import check_queue
from resolute.model import codec
from resolute.model.defaults import default_of
from resolute.model.fitting import type_name
from resolute.model.flow import Flow
from resolute.model.plan import Gate, Plan
from resolute.model.schemas import problem_of
from resolute.store import registry
from resolute.store.connection import backoff
from resolute.store.registry import FlowOffer
from resolute.store.store import Store

FRESH = 2.0  # s

DECISION = "a gate takes a decision: approved (true or false), and decided_by, reason, metadata"


@dataclass(frozen=True, slots=True)
class Offered:
    """A flow as it is offered now. `queues` are those of its live workers, or of the last one."""

    plan: Plan
    queues: tuple[str, ...]
    read: float


class Directory:
    """Offers by flow name, read again when they are no longer fresh; plans by hash, for ever."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offers: dict[str, Offered] = {}
        self._plans: dict[str, Plan | None] = {}

    async def offered(self, name: str) -> Offered:
        """Raises UnknownFlow where no worker ever offered it, and ConfigurationError where the
        namespace has another number of partitions than we know: nobody would read what we write.
        """
        known = self._offers.get(name)
        if known is not None and time.monotonic() - known.read < FRESH:
            return known
        offer, plan = await self._offer(name)
        live = (await registry.processes(self._store)).values()
        queues = tuple(sorted({p.queue for p in live if name in p.flows})) or (offer.queue,)
        found = self._offers[name] = Offered(plan, queues, time.monotonic())
        return found

    async def _offer(self, name: str) -> tuple[FlowOffer, Plan]:
        """The last offer of a flow.

        Where nothing is offered any more the server lost it: workers offer their flows anew within
        a lease, and as long as the client is patient it is waited for.
        """
        give_up = time.monotonic() + self._store.patience
        failures = 0
        while True:
            await self._store.check_partitions()
            offer = await registry.offered_flow(self._store, name)
            plan = await self.plan(offer.plan) if offer else None
            if offer is not None and plan is not None:
                return offer, plan
            offered = await registry.offered_flows(self._store)
            if offered or not self._offers or time.monotonic() >= give_up:
                raise UnknownFlow(name, offered)
            await asyncio.sleep(backoff(failures))
            failures += 1

    async def plan(self, plan_hash: str) -> Plan | None:
        plan = self._plans.get(plan_hash)
        if plan is None:
            plan = self._plans[plan_hash] = await registry.load_plan(self._store, plan_hash)
        return plan


def name_of(flow: object) -> str:
    """The name of a flow, which may be given itself. Raises TypeError for what is none."""
    if isinstance(flow, Flow):
        return flow.name
    if isinstance(flow, str):
        return flow
    hint = ": call its build()" if callable(getattr(flow, "build", None)) else ""
    raise TypeError(f"expected a flow or the name of one, got {flow!r}{hint}")


def choose_queue(name: str, offered: Offered, queue: str | None) -> str:
    """The queue of a new run. Raises ConfigurationError where it must be named."""
    if queue:
        try:
            return check_queue(queue)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
    if offered.plan.queue:
        return offered.plan.queue
    match offered.queues:
        case [only]:
            return only
        case several:
            raise ConfigurationError(
                f"flow {name!r} is offered on the queues {', '.join(several)}: name one of them"
            )


def encode_input(flow: Flow[Any, Any] | str, offered: Offered, value: Any, most: int = 0) -> bytes:
    """The encoded input, of `most` bytes where there is a storage that takes so many.

    Raises InvalidInput, NotEncodable, PayloadTooLarge.
    """
    if isinstance(flow, Flow):
        return encode_typed(flow, value, most)
    most = max(most, codec.DEFAULT_MAX_PAYLOAD)
    return _encode_by_schema(offered.plan.input_schema, value, "input", flow, InvalidInput, most)


def encode_signal(flow: str, plan: Plan, name: str, payload: Any) -> bytes:
    """The encoded payload. Raises UnknownSignal, InvalidSignal, NotEncodable, PayloadTooLarge."""
    if name not in plan.signals:
        raise UnknownSignal(flow, name, plan.signals)
    try:
        return _encode_by_schema(plan.signals[name], payload, "payload", name, InvalidSignal)
    except InvalidSignal as error:
        if not any(isinstance(one, Gate) and one.signal == name for one in plan.instructions):
            raise
        raise InvalidSignal(name, f"{error.reason}; {DECISION}") from None


def _encode_by_schema(
    schema: dict[str, Any],
    value: Any,
    what: str,
    name: str,
    invalid: Callable[[str, str], ResoluteError],
    most: int = codec.DEFAULT_MAX_PAYLOAD,
) -> bytes:
    is_default = value is None and bool(schema) and not _allows_null(schema)
    if is_default:
        value = {}
    problem = problem_of(schema, value)
    if problem:
        if is_default and problem.startswith("{} is"):  # nobody gave that
            problem = f"nothing was given: {problem_of(schema, None)}"
        raise invalid(name, problem)
    return codec.encode(value, what=what, max_payload=most)


def encode_typed(flow: Flow[Any, Any], value: Any, most: int = 0) -> bytes:
    """The encoded input, by the type in the code; None stands for the type's defaults.

    With a storage it may have `most` bytes, where that is more than the flow's `max_payload`.
    """
    expected = flow.input_type
    if value is None:
        try:
            value = default_of(expected)
        except (TypeError, ValueError) as error:  # also what a type's own checks raise
            raise InvalidInput(flow.name, f"expected a {type_name(expected)}: {error}") from None
    data = codec.encode(value, what="input", max_payload=max(most, flow.max_payload))
    try:
        codec.decode(data, expected)
    except msgspec.ValidationError as error:
        raise InvalidInput(flow.name, str(error)) from None
    return data


def _allows_null(schema: dict[str, Any]) -> bool:
    kinds = [schema, *schema.get("anyOf", ())]
    return any(kind.get("type") == "null" for kind in kinds)
