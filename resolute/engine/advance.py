"""The state machine of a run: pure, without I/O or clock. There is no other."""

from __future__ import annotations

from resolute.engine.run import PAGE, Decision, Dispatch, NeedsRun, Stale, Transition
from resolute.errors import ResoluteError
from resolute.model.messages import Event, RunState
from resolute.model.plan import Branch, End, Jump, Moment, Plan, Producer, Sleep
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
            start = int(event.arg.partition(" ")[0])
            return _page(plan, event.pc, event.seq, start)
        case _:
            return NeedsRun()


def _look(plan: Plan, run: RunState) -> Decision:
    """Do what is due, whatever brought us here."""
    if run.status.is_terminal:
        return Stale()
    if run.terminated:
        return Transition(RunStatus.TERMINATED, run.seq)
    match run.status:
        case RunStatus.RUNNING:
            return _look_running(plan, run)
        case RunStatus.FAILING:
            return _look_failing(plan, run)
        case _:
            return Stale() if run.pending else _undo(run, run.undoing - 1)


def _look_running(plan: Plan, run: RunState) -> Decision:
    if run.seq == 0:
        return _go(plan, 0, run.seq, None)
    if run.pending == 0:
        if isinstance(plan.step(run.pc), Branch | Moment) and not run.answer:
            raise ResoluteError(f"run {run.flow!r}: step {run.pc} settled without an answer")
        return _next_step(plan, run.pc, run.seq, run.answer)
    if run.page < len(plan.step(run.pc).nodes):
        return _page(plan, run.pc, run.seq, run.page)
    return Stale()


def _look_failing(plan: Plan, run: RunState) -> Decision:
    if run.pending == 0:
        return _undo(run, run.undos)
    width = len(plan.step(run.pc).nodes)
    if run.skip < width:
        stop = min(width, run.skip + PAGE)
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
        case Branch(otherwise=otherwise):
            return _go(plan, pc + 1 if answer == "1" else otherwise, seq, None)
        case Moment():
            return _go(plan, pc + 1, seq, None, until=answer)
        case instruction:
            previous = pc if isinstance(instruction, Producer) else None
            return _go(plan, pc + 1, seq, previous)


def _go(plan: Plan, pc: int, seq: int, previous: int | None, until: str = "") -> Transition:
    """The step at or after `pc`, through the jumps."""
    while isinstance(instruction := plan.instructions[pc], Jump):
        pc = instruction.to
    match instruction:
        case End():
            return Transition(RunStatus.COMPLETED, seq, previous=previous)
        case step:
            width = len(step.nodes)
            if isinstance(step, Sleep) and step.ms:
                until = f"+{step.ms}"
            dispatch = Dispatch(pc, 0, min(width, PAGE), width, until=until)
            return Transition(RunStatus.RUNNING, seq + 1, dispatch, previous)


def _page(plan: Plan, pc: int, seq: int, start: int) -> Transition:
    width = len(plan.step(pc).nodes)
    dispatch = Dispatch(pc, start, min(width, start + PAGE), width)
    return Transition(RunStatus.RUNNING, seq, dispatch)
