"""The state machine of a run: pure, without I/O or clock. There is no other."""

from __future__ import annotations

import msgspec

from resolute.engine.run import (
    PAGE,
    PAGE_OF_RUNS,
    PAGE_OF_SKIPS,
    Decision,
    Dispatch,
    NeedsRun,
    Stale,
    Transition,
)
from resolute.errors import ResoluteError
from resolute.model.messages import Event, RunState
from resolute.model.plan import (
    Branch,
    Children,
    Each,
    End,
    Items,
    Jump,
    Loop,
    Moment,
    Plan,
    Producer,
    Question,
    Sleep,
    Step,
    Wide,
)
from resolute.status import EventKind, RunStatus


def advance(plan: Plan, run: RunState | None, event: Event) -> Decision:
    """What follows from `event` for a run of `plan`.

    Without `run` the plain cases are decided from the event alone: it carries the `rev` that the
    commit will compare. Everything else answers NeedsRun.
    """
    if run is not None:
        return _look(plan, run)
    match event.kind:
        case EventKind.SETTLED:
            return _next_step(plan, event.pc, event.seq, event.arg)
        case EventKind.PAGE:
            start, _, *width = event.arg.split(" ")
            items = int(width[0]) if width else 0
            return _page(plan, event.pc, event.seq, int(start), plan.width(event.pc, items))
        case _:
            return NeedsRun()


def _look(plan: Plan, run: RunState) -> Decision:
    """Do what is due, whatever brought us here."""
    if run.status.is_terminal:
        return Stale()
    if run.terminated:
        return _terminate(plan, run)
    match run.status:
        case RunStatus.RUNNING:
            return _look_running(plan, run)
        case RunStatus.FAILING:
            return _look_failing(plan, run)
        case _:
            return Stale() if run.pending else _undo(run, run.undoing - 1)


def _terminate(plan: Plan, run: RunState) -> Transition:
    """End at once; the runs that it has started, and that have not ended, are told before."""
    has_children = run.pending and isinstance(plan.step(run.pc), Children)
    if not has_children or run.skip >= run.page:
        return Transition(RunStatus.TERMINATED, run.seq)
    stop = min(run.page, run.skip + PAGE_OF_RUNS)
    return Transition(
        run.status, run.seq, skip=(run.skip, stop), skip_more=True, is_terminating=True
    )


def _look_running(plan: Plan, run: RunState) -> Decision:
    if run.seq == 0:
        return _go(plan, 0, run.seq, None)
    if run.repeats:
        return Transition(run.status, run.seq + 1, Dispatch(run.pc, 0, 1, 1, repeats=True))
    step = plan.step(run.pc)
    if run.pending == 0:
        if isinstance(step, Question) and not run.answer:
            raise ResoluteError(f"run {run.flow!r}: step {run.pc} settled without an answer")
        return _next_step(plan, run.pc, run.seq, run.answer)
    width = plan.width(run.pc, run.width)
    room = room_for(step, width, run.page, run.pending)
    return _page(plan, run.pc, run.seq, run.page, width, room) if room else Stale()


def room_for(step: Step, width: int, page: int, pending: int) -> int:
    """How many more nodes of a step, of which `page` were dispatched, are to be dispatched now.

    In a windowed `each` a node that settles lets the next one follow, without a coordinator; what
    is missing of the window all the same was lost. Of `children` a coordinator starts the next.
    """
    left = width - page
    window = step.window if isinstance(step, Wide) else 0
    return min(left, window - (page - (width - pending))) if window else left


def _look_failing(plan: Plan, run: RunState) -> Decision:
    if run.pending == 0:
        return _undo(run, run.undos)
    width = plan.width(run.pc, run.width)
    if run.skip < width:
        is_of_runs = isinstance(plan.step(run.pc), Children)
        stop = min(width, run.skip + (PAGE_OF_RUNS if is_of_runs else PAGE_OF_SKIPS))
        return Transition(run.status, run.seq, skip=(run.skip, stop), skip_more=stop < width)
    return Stale()


def _undo(run: RunState, number: int) -> Transition:
    """Compensate number `number` of those on the stack; at 0 the run is over."""
    if number <= 0:
        ended = RunStatus.CANCELLED if run.cancelled else RunStatus.FAILED
        return Transition(ended, run.seq)
    pc, index = run.undo_at
    dispatch = Dispatch(pc, index, index + 1, width=1, undo=number)
    return Transition(RunStatus.COMPENSATING, run.seq + 1, dispatch)


def _next_step(plan: Plan, pc: int, seq: int, answer: str) -> Transition:
    match plan.step(pc):
        case Branch(otherwise=otherwise) | Loop(otherwise=otherwise):
            return _go(plan, pc + 1 if answer == "1" else otherwise, seq, None, came_from=pc)
        case Moment() | Items():
            return _go(plan, pc + 1, seq, None, answer, came_from=pc)
        case instruction:
            previous = pc if isinstance(instruction, Producer) else None
            return _go(plan, pc + 1, seq, previous, came_from=pc)


def _go(
    plan: Plan, pc: int, seq: int, previous: int | None, answer: str = "", came_from: int = -1
) -> Transition:
    """The step at or after `pc`, through the jumps. A wide one without items is passed over."""
    while isinstance(instruction := plan.instructions[pc], Jump):
        pc = instruction.to
    match instruction:
        case End():
            return Transition(RunStatus.COMPLETED, seq, previous=previous)
        case Sleep(ms=ms):
            dispatch = Dispatch(pc, 0, 1, 1, until=f"+{ms}" if ms else answer)
        case Each(window=window) | Children(window=window):
            width = int(answer)
            if not width:
                found = _go(plan, pc + 1, seq, pc, came_from=came_from)
                return msgspec.structs.replace(found, empty=(*found.empty, pc))
            limit = min(width, window or width)
            page = min(limit, _page_size(instruction))
            dispatch = Dispatch(pc, 0, page, width, limit=_below(limit, width))
        case Loop(otherwise=otherwise):
            dispatch = Dispatch(pc, 0, 1, 1, turn=pc < came_from < otherwise)
        case step:
            width = len(step.nodes)
            dispatch = Dispatch(pc, 0, min(width, PAGE), width)
    return Transition(RunStatus.RUNNING, seq + 1, dispatch, previous)


def _page(
    plan: Plan, pc: int, seq: int, start: int, width: int, room: int | None = None
) -> Transition:
    """A page of a step, of as many nodes as there is `room` for."""
    step = plan.step(pc)
    if room is None:
        window = step.window if isinstance(step, Wide) else 0
        room = (min(width, window) if window else width) - start
    limit = start + max(0, room)
    stop = min(limit, start + _page_size(step))
    dispatch = Dispatch(pc, start, stop, width, limit=_below(limit, width))
    return Transition(RunStatus.RUNNING, seq, dispatch)


def _page_size(step: Step) -> int:
    """How many nodes of a step one commit dispatches."""
    return PAGE_OF_RUNS if isinstance(step, Children) else PAGE


def _below(limit: int, width: int) -> int:
    """A `Dispatch.limit`: -1 where it is none."""
    return limit if limit < width else -1
