"""The coordinator of a run in memory: from its events, through `advance`, to its commits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resolute.coordinator.committing import look_event, make_commit, pin
from resolute.engine.advance import advance
from resolute.engine.run import NeedsRun, Transition
from resolute.errors import ErrorInfo
from resolute.model.flow import Flow
from resolute.model.messages import Event
from resolute.status import Code, EventKind
from resolute.store import runs
from resolute.store.transitions import Commit
from resolute.testing.memory import MemoryRun


class MemoryCoordinator:
    """Decides what follows from each event.

    `cancel(seq, index)` stops a node that runs; `follow(run, commit)` does what a commit does of
    other runs.
    """

    def __init__(
        self,
        flow: Flow[Any, Any],
        run: MemoryRun,
        cancel: Callable[[int, int], None],
        follow: Callable[[MemoryRun, Commit], None],
    ) -> None:
        self._flow = flow
        self._run = run
        self._cancel = cancel
        self._follow = follow

    def handle(self, event: Event) -> None:
        """Do what follows from an event."""
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
        state = runs.state_of(header, values)
        decision = advance(self._flow.plan, state, event)
        if not isinstance(decision, Transition):
            return Code.STALE
        stopped = decision.skip or (0, 0)
        if header.terminated and header.seq:
            stopped = runs.at_work(state, self._flow.plan)
        if header.cancelled or header.overran or header.terminated:
            for index in range(*stopped):
                self._cancel(header.seq, index)
        return self._commit(event, decision, header.error)

    def _commit(self, event: Event, made: Transition, error: ErrorInfo | None = None) -> Code:
        nonce = self._run.nonce()
        commit = make_commit(self._flow.plan, event, "", made, nonce, error)
        return self._run.commit(commit, lambda: self._follow(self._run, commit))
