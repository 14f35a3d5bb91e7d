"""The coordinator of a run in memory: from its events, through `advance`, to its commits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resolute.coordinator.committing import look_event, make_commit, pin
from resolute.engine.advance import advance
from resolute.engine.run import NeedsRun, Transition
from resolute.model.flow import Flow
from resolute.model.messages import Event
from resolute.status import Code, EventKind
from resolute.store import runs
from resolute.testing.memory import MemoryRun


class MemoryCoordinator:
    """Decides what follows from each event; `cancel(seq, index)` stops a node that runs."""

    def __init__(
        self, flow: Flow[Any, Any], run: MemoryRun, cancel: Callable[[int, int], None]
    ) -> None:
        self._flow = flow
        self._run = run
        self._cancel = cancel

    def coordinate(self) -> None:
        """Handle events until there are none."""
        while self._run.inbox:
            event = self._run.inbox.popleft()
            while self._handle(event) == Code.CONFLICT:
                event = Event(EventKind.LOOK, event.flow)

    def _handle(self, event: Event) -> Code:
        if event.kind is EventKind.START:
            event, fresh = pin(event, self._flow.plan_hash)
            decision = advance(self._flow.plan, fresh, event)
        else:
            decision = advance(self._flow.plan, None, event)
        if isinstance(decision, NeedsRun):
            return self._look()
        return self._commit(event, decision) if isinstance(decision, Transition) else Code.STALE

    def _look(self) -> Code:
        """Load the run and do what is due."""
        header = self._run.header()
        if header.status.is_terminal:
            return Code.STALE
        values = self._run.read(runs.state_fields(header, self._flow.plan))
        event = look_event(header)
        decision = advance(self._flow.plan, runs.state_of(header, values), event)
        if not isinstance(decision, Transition):
            return Code.STALE
        if decision.skip and (header.cancelled or header.overran):
            for index in range(*decision.skip):
                self._cancel(header.seq, index)
        return self._commit(event, decision)

    def _commit(self, event: Event, made: Transition) -> Code:
        nonce = self._run.nonce()
        return self._run.commit(make_commit(self._flow.plan, event, "", made, nonce))
