"""The runs of a test: the one that was started, and those that it starts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from resolute.client.run import result_step
from resolute.engine.reading import step_output
from resolute.errors import ErrorInfo, FlowTesterError, PayloadTooLarge
from resolute.model.flow import Flow
from resolute.model.messages import Event
from resolute.model.plan import Run, Wide
from resolute.model.references import is_stub
from resolute.status import RunStatus
from resolute.store.transitions import Commit, StartChildren, StopChildren, TellParent
from resolute.testing.coordinating import MemoryCoordinator
from resolute.testing.memory import MemoryRun
from resolute.testing.working import MemoryOutputs, MemoryWorker


@dataclass(frozen=True)
class Member:
    """One run, with a coordinator and a worker of its own."""

    flow: Flow[Any, Any]
    run: MemoryRun
    coordinator: MemoryCoordinator
    worker: MemoryWorker

    @property
    def is_idle(self) -> bool:
        return not self.run.ready


class MemoryFamily:
    """All runs by id, and the `inbox` that they share. `make` gives a new run and its worker."""

    def __init__(
        self,
        flows: Mapping[str, Flow[Any, Any]],
        make: Callable[[Flow[Any, Any], str], tuple[MemoryRun, MemoryWorker]],
    ) -> None:
        self._flows = flows
        self._make = make
        self.members: dict[str, Member] = {}
        self.inbox: deque[Event] = deque()

    def start(
        self, flow_id: str, flow: Flow[Any, Any], queue: str, data: bytes, child_of: str = ""
    ) -> MemoryRun:
        """Start a run, in the place of one of that id."""
        run, worker = self._make(flow, flow_id)
        coordinator = MemoryCoordinator(flow, run, worker.cancel, self._follow)
        self.members[flow_id] = Member(flow, run, coordinator, worker)
        run.start(flow.name, queue, data, child_of)
        return run

    def coordinate(self) -> None:
        """Handle the events of all runs until there are none, in the order in which they came.

        So a run that is told to stop before its parent ends is, as in an inbox in Redis.
        """
        while self.inbox:
            event = self.inbox.popleft()
            self.members[event.flow].coordinator.handle(event)

    def _follow(self, run: MemoryRun, change: Commit) -> None:
        """What lib_child.lua does in the same script as the commit."""
        match change.family:
            case StartChildren() as start:
                self._start_children(run, change, start)
            case StopChildren() as stop:
                self._stop_children(run, change, stop)
            case TellParent() as tell:
                self._tell_parent(run, tell)
            case None:
                pass

    def _start_children(self, run: MemoryRun, change: Commit, start: StartChildren) -> None:
        flow = self._flows.get(start.flow)
        if flow is None:
            raise FlowTesterError(
                f"step {start.step!r} starts flow {start.flow!r}, which is known only by its name:"
                " give it to tester.with_flow()"
            )
        for index, child in enumerate(start.ids, start.first):
            data = run.fields[f"i:{change.seq}.{index}"]
            place = f"{run.id}|{change.seq}|{index}|{int(start.forgives)}"
            started = self.start(child, flow, start.queue, data, place)
            if "folder" in run.fields:
                started.fields["folder"] = run.fields["folder"]
            run.wait_for_run(change.seq, index, start.step, change.rev)

    def _stop_children(self, run: MemoryRun, change: Commit, stop: StopChildren) -> None:
        first = change.skip[0] if change.skip else 0
        for index, child in enumerate(stop.ids, first):
            if run.waits_for_run(change.seq, index):
                member = self.members[child].run
                member.terminate(stop.error) if stop.terminate else member.cancel(stop.error)

    def _tell_parent(self, run: MemoryRun, tell: TellParent) -> None:
        place = str(run.fields.get("child_of", b""), "utf-8").split("|")
        if len(place) != 4:
            return
        _, seq, index, forgives = place
        failed = ErrorInfo("ChildFailed", tell.failure)
        result = None
        if run.header().status is RunStatus.COMPLETED:
            flow = self.members[run.id].flow
            result = result_of(flow, run)
            if _is_made(flow, run) and len(result) > tell.limit and not is_stub(result):
                failed = ErrorInfo("PayloadTooLarge", str(PayloadTooLarge(len(result), tell.limit)))
                result = None
        self.members[tell.parent].run.child_ended(
            int(seq), int(index), result, failed, forgives=forgives == "1"
        )


def result_of(flow: Flow[Any, Any], run: MemoryRun) -> bytes:
    """What a completed run returned, encoded."""
    step = result_step(run.header(), flow.plan)
    outputs = MemoryOutputs(flow, run)
    return step_output(step, outputs.get) if step is not None else outputs.input()


def _is_made(flow: Flow[Any, Any], run: MemoryRun) -> bool:
    """Whether what a run returned is put together from several outputs."""
    step = result_step(run.header(), flow.plan)
    return isinstance(step, Wide) or (isinstance(step, Run) and step.parallel)
