"""A run in memory: what the scripts do to the hash, in a page of Python, with `advance` on top.

It keeps the rules of the scripts (the fan-in counter, the compare-and-set of `rev`, the stack of
compensations) and none of their machinery, so that the state machine can be driven a million times.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from resolute.engine.advance import advance
from resolute.engine.run import Dispatch, NeedsRun, Stale, Transition
from resolute.model.messages import Event, RunState
from resolute.model.plan import Branch, Gate, NodePlan, Plan, Sleep
from resolute.status import EventKind, NodeStatus, RunStatus

Instance = tuple[int, int]  # (seq, index)


@dataclass
class Handed:
    """A node instance that was dispatched."""

    pc: int
    index: int
    undo: int
    node: NodePlan
    status: NodeStatus = NodeStatus.READY


@dataclass
class MemoryRun:
    """One run of `plan`. `inbox` are its events; whoever drives takes one and calls `handle`."""

    plan: Plan
    state: RunState = field(init=False)
    inbox: list[Event] = field(default_factory=list[Event])
    nodes: dict[Instance, Handed] = field(default_factory=dict[Instance, Handed])
    undo_stack: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    undone: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    settled_events: Counter[int] = field(default_factory=Counter[int])
    transitions: list[Transition] = field(default_factory=list[Transition])
    errors: list[Instance] = field(default_factory=list[Instance])
    signals: Counter[str] = field(default_factory=Counter[str])  # sent, and taken by nobody yet

    def __post_init__(self) -> None:
        self.state = RunState("run", "plan", 0, 0, "0", 0, RunStatus.RUNNING, "q")
        self.inbox.append(self._event(EventKind.LOOK))

    # What a coordinator does.

    def handle(self, event: Event) -> bool:
        """Decide and commit; False where there was nothing to do."""
        decision = advance(self.plan, None, event)
        if isinstance(decision, Transition) and event.rev != self.state.rev:
            decision = NeedsRun()  # a lost compare-and-set: load the run, look again
        if isinstance(decision, NeedsRun):
            decision = advance(self.plan, self._loaded(), self._event(EventKind.LOOK))
        if isinstance(decision, Stale):
            return False
        assert isinstance(decision, Transition)
        self._commit(decision)
        return True

    def _commit(self, made: Transition) -> None:
        assert not self.state.status.is_terminal, "a terminal state was left"
        self.transitions.append(made)
        self._bump()
        self._set(status=made.status)
        if made.previous is not None:
            self._set(previous_pc=made.previous)
        if made.dispatch is not None:
            self._dispatch(made.dispatch, made.seq)
        if made.skip is not None:
            self._skip(*made.skip, more=made.skip_more)

    def _dispatch(self, dispatch: Dispatch, seq: int) -> None:
        if dispatch.is_first:
            assert self.state.pending == 0, "a step was left before it was settled"
            self._set(
                pc=dispatch.pc, seq=seq, pending=dispatch.width, undoing=dispatch.undo, answer=""
            )
        self._set(page=dispatch.stop)
        plan = self.plan.step(dispatch.pc)
        for index in range(dispatch.start, dispatch.stop):
            node = plan.nodes[index]
            if dispatch.undo:
                assert node.compensation is not None
                node = node.compensation
            assert (seq, index) not in self.nodes, "a node was dispatched twice"
            handed = Handed(dispatch.pc, index, dispatch.undo, node)
            if isinstance(plan, Gate | Sleep):
                handed.status = NodeStatus.WAITING
            self.nodes[seq, index] = handed
        if isinstance(plan, Gate) and self.signals[plan.signal]:
            self.signals[plan.signal] -= 1
            self._settle((seq, 0), NodeStatus.COMPLETED)
        if dispatch.has_more:
            self.inbox.append(self._event(EventKind.PAGE, f"{dispatch.stop} token"))

    def _skip(self, start: int, stop: int, *, more: bool) -> None:
        self._set(skip=stop)
        plan = self.plan.step(self.state.pc)
        for index in range(start, stop):
            instance = (self.state.seq, index)
            handed = self.nodes.setdefault(
                instance, Handed(self.state.pc, index, 0, plan.nodes[index])
            )
            if handed.status in (NodeStatus.READY, NodeStatus.WAITING):
                self._settle(instance, NodeStatus.SKIPPED)
        if more and self.state.pending:
            self.inbox.append(self._event(EventKind.LOOK))

    # What a worker does.

    def ready(self) -> list[Instance]:
        """The instances that can be begun."""
        if self.state.status is RunStatus.FAILING:
            return []
        return self._with_status(NodeStatus.READY)

    def running(self) -> list[Instance]:
        return self._with_status(NodeStatus.RUNNING)

    def begin(self, instance: Instance) -> None:
        self.nodes[instance].status = NodeStatus.RUNNING

    def complete(self, instance: Instance, *, answer: bool = True) -> None:
        handed = self.nodes[instance]
        if isinstance(self.plan.step(handed.pc), Branch):
            self._set(answer=str(int(answer)))
        if handed.undo:
            self.undone.append((handed.pc, handed.index))
        elif handed.node.compensation is not None:
            self.undo_stack.append((handed.pc, handed.index))
            self._set(undos=len(self.undo_stack))
        self._settle(instance, NodeStatus.COMPLETED, "1" if answer else "0")

    def fail(self, instance: Instance) -> None:
        handed = self.nodes[instance]
        if handed.undo:
            self.undone.append((handed.pc, handed.index))
        elif not handed.node.best_effort:
            self.errors.append(instance)
            self._fail_run()
        self._settle(instance, NodeStatus.FAILED)

    def skip(self, instance: Instance) -> None:
        """Settle a node that was handed back or taken back in a failing run."""
        self._settle(instance, NodeStatus.SKIPPED)

    def _settle(self, instance: Instance, status: NodeStatus, arg: str = "") -> None:
        handed = self.nodes[instance]
        assert handed.status not in (NodeStatus.COMPLETED, NodeStatus.FAILED, NodeStatus.SKIPPED)
        handed.status = status
        self._set(pending=self.state.pending - 1)
        assert self.state.pending >= 0
        if self.state.pending == 0:
            self.settled_events[self.state.seq] += 1
            kind = EventKind.SETTLED if self.state.status is RunStatus.RUNNING else EventKind.LOOK
            self.inbox.append(self._event(kind, arg))

    def _fail_run(self) -> None:
        if self.state.status is RunStatus.RUNNING:
            self._set(status=RunStatus.FAILING)
            self._bump()
            self.inbox.append(self._event(EventKind.LOOK))

    # What a client does.

    def cancel(self) -> None:
        if self.state.status is RunStatus.RUNNING:
            self._set(cancelled=True)
            self._fail_run()

    def signal(self, name: str) -> None:
        """Pass the gate that waits for it, else keep it."""
        waits = self._with_status(NodeStatus.WAITING)
        step = self.plan.instructions[self.state.pc]
        is_running = self.state.status is RunStatus.RUNNING
        if waits and is_running and isinstance(step, Gate) and step.signal == name:
            self._settle(waits[0], NodeStatus.COMPLETED)
        else:
            self.signals[name] += 1

    def fire(self) -> None:
        """Let the timer be due of the gate or the sleep that the run waits for."""
        step = self.plan.instructions[self.state.pc]
        for instance in self._with_status(NodeStatus.WAITING):
            if isinstance(step, Gate):
                self.errors.append(instance)
                self._fail_run()
                self._settle(instance, NodeStatus.FAILED)
            elif isinstance(step, Sleep):
                self._settle(instance, NodeStatus.COMPLETED)

    def terminate(self) -> None:
        if not self.state.status.is_terminal and not self.state.terminated:
            running = self.state.status is RunStatus.RUNNING
            status = RunStatus.FAILING if running else self.state.status
            self._set(terminated=True, status=status)
            self._bump()
            self.inbox.append(self._event(EventKind.LOOK))

    def _with_status(self, status: NodeStatus) -> list[Instance]:
        if self.state.status.is_terminal:
            return []
        return [
            instance
            for instance, handed in self.nodes.items()
            if handed.status is status and instance[0] == self.state.seq
        ]

    def _loaded(self) -> RunState:
        number = self.state.undoing - 1 if self.state.undoing else self.state.undos
        undo_at = self.undo_stack[number - 1] if number > 0 else (0, 0)
        return msgspec.structs.replace(self.state, undo_at=undo_at)

    def _bump(self) -> None:
        self._set(rev=str(int(self.state.rev) + 1))

    def _event(self, kind: EventKind, arg: str = "") -> Event:
        state = self.state
        return Event(kind, "run", "plan", state.pc, state.seq, state.rev, "q", arg)

    def _set(self, **changes: object) -> None:
        changes.pop("previous_pc", None)
        self.state = msgspec.structs.replace(self.state, **changes)
