"""Runs that start runs: what a commit does of the children, and what the parent is told."""

from __future__ import annotations

from resolute.engine.run import Dispatch, Transition
from resolute.errors import ErrorInfo
from resolute.ids import parent_of
from resolute.model.codec import DEFAULT_MAX_PAYLOAD
from resolute.model.messages import Event
from resolute.model.plan import Children, Plan, Producer, Run, Wide
from resolute.status import RunStatus
from resolute.store.transitions import StartChildren, StopChildren, TellParent


def started_by(
    plan: Plan, step: Children, event: Event, dispatch: Dispatch, seq: int
) -> StartChildren:
    """The runs that a page of the step number `seq` starts."""
    ids = [step.child_id(event.flow, seq, index) for index in range(dispatch.start, dispatch.stop)]
    queue = plan.lane_at(dispatch.pc, 0, event.queue)
    forgives = step.nodes[0].best_effort
    return StartChildren(step.flow, queue, step.step, forgives, dispatch.start, ids)


def stopped_by(plan: Plan, event: Event, transition: Transition) -> StopChildren | None:
    """The runs that are told to stop, where nodes of a step are skipped that wait for such."""
    step = plan.step(event.pc)
    if not isinstance(step, Children) or transition.skip is None:
        return None
    kind = "Terminated" if transition.is_terminating else "Cancelled"
    error = ErrorInfo(kind, f"by its parent {event.flow}")
    ids = [step.child_id(event.flow, event.seq, index) for index in range(*transition.skip)]
    return StopChildren(ids, error, transition.is_terminating)


def end_of_child(
    flow_id: str, status: RunStatus, error: ErrorInfo | None, plan: Plan | None = None
) -> TellParent | None:
    """What the parent of a run that ends is told; None where it has none.

    Without a `plan` the run did not begin.
    """
    parent = parent_of(flow_id)
    if not parent:
        return None
    if status is RunStatus.COMPLETED and plan is not None:
        limit = plan.max_payload or DEFAULT_MAX_PAYLOAD
        return TellParent(parent, _results(plan), limit=limit)
    return TellParent(parent, (), f"run {flow_id} {status}" + (f": {error}" if error else ""))


def _results(plan: Plan) -> list[list[int | str]]:
    """The steps that can have been the last one of a run, and how their output is put together."""
    found: list[list[int | str]] = []
    for pc in plan.predecessors(len(plan.instructions) - 1):
        step = plan.instructions[pc]
        if not isinstance(step, Producer):
            continue
        is_map = isinstance(step, Run) and step.parallel
        kind = "map" if is_map else "list" if isinstance(step, Wide) else "one"
        found.append([pc, kind, *(node.key for node in step.nodes)])
    return found
