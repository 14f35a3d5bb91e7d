"""From a transition to what is written: fields, entries, the next page."""

from __future__ import annotations

import msgspec

from resolute.coordinator.family import end_of_child, started_by, stopped_by
from resolute.engine.run import Dispatch, Transition
from resolute.errors import ErrorInfo
from resolute.model.messages import Entry, Event, RunState
from resolute.model.plan import (
    Children,
    Each,
    End,
    Gate,
    Jump,
    Loop,
    Plan,
    Sleep,
    Wide,
)
from resolute.status import EventKind, RunStatus, TimerKind
from resolute.store.runs import Header
from resolute.store.transitions import (
    FORGOTTEN_AT_ONCE,
    LISTED,
    LISTED_AT_ONCE,
    Commit,
    Family,
    TellParent,
    Turn,
    Waiting,
    deadline_timer,
    wait_timer,
)

# What parts of a commit weigh, in bytes of a batch: those that hold the server for as long. A batch
# of MAX_BYTES takes some 7 ms of it.
DISPATCHED = 1_000  # a node
SKIPPED = 5_000  # a node, whose record is read and written
OF_A_RUN = 7_000  # a run that is started, or told to stop
WAITING = 5_000  # a gate, a sleep
ENDED = 4_000  # a run; 250 of them, which is most in a batch, are one script
TOLD = 8_000  # a parent, of the end of a child
FORGOTTEN = 100  # a field of the turn before
LISTED_RESULT = 20_000  # a child that returns a list: up to LONGEST items (lib_child) are read

_encode = msgspec.msgpack.Encoder().encode


def make_commit(
    plan: Plan,
    event: Event,
    event_id: str,
    transition: Transition,
    nonce: str,
    error: ErrorInfo | None = None,
) -> Commit:
    """The commit of a transition.

    `event` has the run's plan, queue and the rev to compare; its arg ends with the step's token
    where the transition dispatches a later page. `error` is that of a run that fails.
    """
    rev = next_rev(event.rev, nonce)
    fields: list[str | int] = []
    if event.kind is EventKind.START:
        fields += ("plan", event.plan)
    if transition.status is not RunStatus.RUNNING:
        fields += ("status", transition.status.value)
    if transition.previous is not None:
        fields += ("prev", transition.previous)
    if transition.skip is not None:
        fields += ("skip", transition.skip[1])
    for pc in transition.empty:
        fields += (f"o:{plan.step(pc).step}", 0)
    if transition.empty and plan.loop_around(transition.empty[0]) is None:
        # These have no step of their own, from which a retry could tell the default input.
        fields += (f"e:{transition.seq}", transition.empty[0])
    commit = Commit(event.flow, event_id, event.rev, rev, transition.seq, fields, flow=plan.flow)
    if event.kind is EventKind.START:
        commit.deadline_ms = plan.deadline_ms
    if transition.status.is_terminal:
        commit.ended = transition.status
        commit.timers = _timers(plan, event)
        commit.family = end_of_child(event.flow, transition.status, error, plan)
        commit.size += weight_of_end(commit.family)
    if transition.skip is not None:
        commit.skip = (*transition.skip, transition.skip_more)
        commit.family = stopped_by(plan, event, transition)
        start, stop = transition.skip
        commit.size += (stop - start) * (SKIPPED if commit.family is None else OF_A_RUN)
    if transition.dispatch is not None:
        _dispatch(plan, event, transition.dispatch, commit)
    return commit


def weight_of_end(family: Family | None) -> int:
    """What the end of a run weighs, and what its parent is told of it."""
    if not isinstance(family, TellParent):
        return ENDED
    has_list = any(kind == "list" for _, kind, *_ in family.results)
    return ENDED + TOLD + (LISTED_RESULT if has_list else 0)


def _weight_of(turn: Turn) -> int:
    """Of the steps of a turn one row each, and one field of each node, or two of an item."""
    if not turn.again:
        return 0
    fields = sum(1 + (2 * LISTED_AT_ONCE if w == LISTED else w) for w in turn.widths.values())
    return min(fields, FORGOTTEN_AT_ONCE) * FORGOTTEN


def _timers(plan: Plan, event: Event) -> list[str]:
    """The timers of a run that ends, which are of no use any more."""
    found = [deadline_timer(event.flow)] if plan.deadline_ms else []
    instruction = plan.instructions[event.pc]
    if isinstance(instruction, Gate | Sleep):
        kind = TimerKind.GATE if isinstance(instruction, Gate) else TimerKind.SLEEP
        token = event.arg.rpartition(" ")[2]
        found.append(wait_timer(kind, instruction.step, event.flow, event.seq, token))
    return found


def pin(event: Event, plan_hash: str) -> tuple[Event, RunState]:
    """A `start` event with the plan of its run, and the run as it is before its first step."""
    pinned = msgspec.structs.replace(event, plan=plan_hash)
    fresh = RunState(event.flow, plan_hash, 0, 0, event.rev, 0, RunStatus.RUNNING, event.queue)
    return pinned, fresh


def look_event(header: Header) -> Event:
    """The event of a run that was loaded: with the rev to compare and the token of its step."""
    return Event(
        EventKind.LOOK, header.id, header.plan, header.pc, header.seq, header.rev,
        header.queue, f"{header.page} {header.token}",
    )  # fmt: skip


def next_rev(rev: str, nonce: str) -> str:
    """The rev after `rev`: one more, with a nonce so that no two timelines share one."""
    return f"{int(rev.partition('-')[0]) + 1}-{nonce}"


def _dispatch(plan: Plan, event: Event, dispatch: Dispatch, commit: Commit) -> None:
    step = plan.step(dispatch.pc)
    token = f"{commit.rev}.0"
    if dispatch.is_first:
        commit.step = f"{dispatch.pc}|{dispatch.undo}"
        commit.fields += (
            "pc", dispatch.pc, "seq", commit.seq, "pending", dispatch.width, "token", token,
            "page", dispatch.stop,
        )  # fmt: skip
        if dispatch.undo:
            commit.fields += ("undoing", dispatch.undo)
        if dispatch.repeats:
            commit.fields += ("repeat", "")
        left = plan.instructions[event.pc]
        if isinstance(left, Wide) and left.window:
            commit.fields += ("window", "")
    else:
        token = event.arg.split(" ")[1]
        commit.page_from = dispatch.start
        commit.fields += ("page", dispatch.stop)
    if not dispatch.undo:
        match step:
            case Gate(step=name, signal=signal, timeout_ms=timeout):
                until = f"+{timeout}" if timeout else ""
                commit.waiting = Waiting(TimerKind.GATE, name, until, signal)
                commit.size += WAITING
                return
            case Sleep(step=name):
                commit.waiting = Waiting(TimerKind.SLEEP, name, dispatch.until)
                commit.size += WAITING
                return
            case Loop() as loop if not dispatch.repeats:
                commit.turn = _turn(plan, dispatch, loop)
                commit.size += _weight_of(commit.turn)
            case Children() as children:
                commit.family = started_by(plan, children, event, dispatch, commit.seq)
            case _:
                pass
        if isinstance(step, Wide) and dispatch.is_first:
            _widen(step, dispatch, commit)
    if dispatch.has_more:
        commit.page = Event(
            EventKind.PAGE, event.flow, event.plan, dispatch.pc, commit.seq, commit.rev,
            event.queue, f"{dispatch.stop} {token} {dispatch.width}",
        )  # fmt: skip
    count = dispatch.stop - dispatch.start
    if commit.family is not None:
        commit.size += count * OF_A_RUN
        return
    commit.size += count * DISPATCHED
    commit.entries = [
        (
            plan.lane_at(dispatch.pc, index, event.queue, undo=dispatch.undo > 0),
            _encode(
                Entry(
                    event.flow, event.plan, dispatch.pc, commit.seq, index, token, 1, 0,
                    dispatch.undo,
                )
            ),
        )
        for index in range(dispatch.start, dispatch.stop)
    ]  # fmt: skip


def _widen(step: Each | Children, dispatch: Dispatch, commit: Commit) -> None:
    """What the run keeps of a step that is as wide as a list."""
    width = dispatch.width
    commit.fields += ("width", width, f"w:{commit.seq}", width, f"o:{step.step}", width)
    if isinstance(step, Children):
        commit.fields += (f"c:{step.step}", step.child_id(commit.id, commit.seq, ""))
    if step.window:
        commit.fields += ("window", f"{commit.seq}|{step.window}|{width}")


def _turn(plan: Plan, dispatch: Dispatch, loop: Loop) -> Turn:
    """The turn that begins; what the one before wrote of its steps, by their pc, goes."""
    body = range(dispatch.pc, loop.otherwise)
    steps = ((pc, plan.instructions[pc]) for pc in body)
    widths = {
        pc: LISTED if isinstance(step, Wide) else len(step.nodes)
        for pc, step in steps
        if not isinstance(step, Jump | End)
    }
    return Turn(dispatch.pc, dispatch.turn, widths, plan.drained())
