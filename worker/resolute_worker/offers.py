"""What this process can run: the nodes of its flows, and those that it offers to any flow by name.

An entry of a flow that is not ours is looked up in its plan, which is in Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from resolute.engine.bound import Bound
from resolute.errors import ResoluteError
from resolute.model.flow import Flow
from resolute.model.messages import Entry
from resolute.model.nodes import Node
from resolute.store import registry
from resolute.store.registry import named_stream
from resolute.store.store import Store

log = logging.getLogger(__name__)


class Offers:
    """Flows by the hash of their plan, ours and those learned; nodes by name."""

    def __init__(
        self, store: Store, flows: Iterable[Flow[Any, Any]], nodes: Mapping[str, Node[Any, Any]]
    ) -> None:
        self._store = store
        self._flows = {flow.plan_hash: flow for flow in flows}
        self._nodes = nodes
        self._others: dict[str, Flow[Any, Any]] = {}  # without code: what they name we may have
        self._bound: dict[tuple[str, int, int, bool], Bound] = {}

    def knows(self, plan: str) -> bool:
        return plan in self._flows or plan in self._others

    def own(self, plan: str) -> Flow[Any, Any] | None:
        """The flow of that plan, if its code is here."""
        return self._flows.get(plan)

    async def learn(self, plans: Iterable[str]) -> None:
        """Read plans from Redis. One that is not there, or of a later release, stays unknown."""
        for plan_hash in plans:
            try:
                plan = await registry.load_plan(self._store, plan_hash)
            except ValueError as error:
                log.warning("plan %s cannot be read: %s", plan_hash, error)
                continue
            if plan is not None:
                self._others[plan_hash] = Flow(plan.flow, plan, plan_hash, {})

    def bound_for(self, entry: Entry) -> Bound | None:
        """The node that an entry is for; None where it cannot be run here.

        Raises LookupError where the plan has no such node.
        """
        flow = self._flows.get(entry.plan) or self._others.get(entry.plan)
        if flow is None:
            return None
        place, undo = flow.place(entry.pc, entry.index), entry.undo > 0
        key = (entry.plan, *place, undo)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bind(flow, place, undo=undo)
            if bound is not None:
                self._bound[key] = bound
        return bound

    def _bind(self, flow: Flow[Any, Any], place: tuple[int, int], *, undo: bool) -> Bound | None:
        try:
            name = flow.plan.node(*place).name
            named = flow.plan.named_at(*place, undo=undo)
            if named is not None:
                name = _name_of(flow, place, undo=undo)
                served = self._nodes.get(name)
                return served and Bound.of(flow, *place, undo=undo, served=served)
        except ResoluteError as error:
            raise LookupError(str(error)) from error
        if flow.plan_hash not in self._flows:
            return None
        if place not in flow.bindings:
            raise LookupError(f"the plan has no node {place[1]} at {place[0]}")
        return Bound.of(flow, *place, undo=undo)

    def stream_for(self, queue: str, entry: Entry) -> str:
        """Where an entry that cannot be run here waits for who can, as streams are named."""
        flow = self._flows.get(entry.plan) or self._others.get(entry.plan)
        if flow is not None:
            place, undo = flow.place(entry.pc, entry.index), entry.undo > 0
            if flow.plan.named_at(*place, undo=undo) is not None:
                return f"{queue}@{named_stream(_name_of(flow, place, undo=undo))}"
        return f"{queue}@{entry.plan}"


def _name_of(flow: Flow[Any, Any], place: tuple[int, int], *, undo: bool) -> str:
    node = flow.plan.node(*place)
    if undo and node.compensation is not None:
        return node.compensation.name
    return node.name
