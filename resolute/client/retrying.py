"""Where a retried run goes on: with the step that failed, or the first that was compensated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from resolute.client.history import StepEntry, steps_of
from resolute.model.plan import Aside, End, Jump, Loop, Plan, Producer, Wide
from resolute.status import NodeStatus
from resolute.store.runs import Header, read_record

_RESET = (
    "error", "ended", "cancel", "terminate", "undoing", "page", "skip", "pages", "token", "prev",
    "gate", "due", "deadline", "overran", "child_of", "trim", "debounce", "replaces",
    "window", "width", "repeat",
)  # fmt: skip


TOLD = (
    "s:",
    "w:",
    "n:",
    "u:",
    "ui:",
    "uo:",
    "ux:",
    "o:",
    "x:",
    "p:",
    "e:",
    "l:",
    "d:",
)  # what a retry needs of a hash


@dataclass(frozen=True)
class Resumption:
    """The fields that the new run must not have, and those that say where it goes on."""

    drop: list[str]
    fields: list[str | int]


def plan_retry(header: Header, plan: Plan, fields: Mapping[str, bytes]) -> Resumption:
    """How to retry an ended run.

    `fields` are those of its hash that begin with one of `TOLD`.
    """
    steps = [step for step in steps_of(fields) if not step.undo]
    undone = _last_undone(header, plan, fields)
    first, loop = _first_to_repeat(header, plan, steps, undone, fields)
    head = None if undone else _head_to_repeat(header, plan, steps, first)
    kept = [step for step in steps if step.seq < first]
    repeated = [step for step in steps if step.seq >= first]
    made = _made_in(plan, repeated, fields)
    if loop is not None:  # its former turns too, which left no steps
        made |= {key for pc in range(loop - 1, _loop_end(plan, loop)) for key in _keys(plan, pc)}
    tried = {key for step in repeated for key in _keys(plan, step.pc)}
    undos = [n for n in range(1, header.undos + 1) if _undo_seq(fields, n) < first]
    # Pages that were fetched by the step that failed need not be fetched again.
    goes_on = not undone and (kept[-1].seq if kept else 0) + 1 == first
    offered = _signals_of_repeated(fields, first) if undone else {}
    drop: list[str] = list(_RESET)
    for name in fields:
        kind, _, rest = name.partition(":")
        if kind in ("o", "x"):
            gone = rest.partition("[")[0] in (made if kind == "o" else tried)
        elif kind in ("n", "s", "w", "e"):
            gone = int(rest.partition(".")[0]) >= first
        elif kind in ("l", "d"):
            gone = name in offered
        elif kind == "p":
            seq = int(rest.partition(".")[0])
            gone = seq > first or (seq == first and not goes_on)
        elif kind in ("uo", "ux"):
            gone = True  # what came of telling that the run ended: of nothing else that is kept
        else:
            gone = int(rest) not in undos
        if gone:
            drop.append(name)
    seq, pc = (kept[-1].seq, kept[-1].pc) if kept else (0, 0)
    setting: list[str | int] = ["undos", len(undos)]
    if head is not None:
        seq, pc = first - 1, head
        setting += ["repeat", 1]
    setting += ["seq", seq, "pc", pc]
    previous = _previous(plan, kept, fields) if undone else header.previous
    if previous is not None:
        setting += ["prev", previous]
    for name, start in offered.items():
        setting += [f"st:{name.split(':', 2)[2]}", start]
    return Resumption(drop, setting)


def _previous(plan: Plan, kept: Sequence[StepEntry], fields: Mapping[str, bytes]) -> int | None:
    """The step whose output is the default input behind the steps `kept`; None for none.

    A wide one without items was passed over on the way to a step, which says so.
    """
    found: int | None = None
    for step in kept:
        passed = fields.get(f"e:{step.seq}")
        if passed is not None:
            found = int(passed)
        if isinstance(plan.instructions[step.pc], Producer):
            found = step.pc
    return found


def _head_to_repeat(
    header: Header, plan: Plan, steps: Sequence[StepEntry], first: int
) -> int | None:
    """The head of a loop that is the step to repeat; None where it is another step.

    The turn was counted and has its signals, and the steps of the turn before are forgotten: who
    came to the head by the step before it would begin the loop anew.
    """
    if header.repeats:  # a retry that was stopped before it did
        return header.pc
    last = steps[-1] if steps else None
    is_head = last is not None and isinstance(plan.instructions[last.pc], Loop)
    return last.pc if last is not None and is_head and last.seq == first else None


def _signals_of_repeated(fields: Mapping[str, bytes], first: int) -> dict[str, int]:
    """Of the loops that are begun anew: what says which signals their last turns took, and from
    where on these are to be taken again.

    Else the first turn would throw them away as those of the turn before.
    """
    taken = {
        name: int(value.partition(b"|")[0])
        for name, value in fields.items()
        if name.startswith("d:") and int(fields.get(f"l:{name.split(':')[1]}", 0)) >= first
    }
    earliest: dict[str, int] = {}
    for name, start in taken.items():
        signal = name.split(":", 2)[2]
        earliest[signal] = min(start, earliest.get(signal, start))
    return {name: earliest[name.split(":", 2)[2]] for name in taken}


def _keys(plan: Plan, pc: int) -> list[str]:
    """The output keys of the nodes at `pc`."""
    instruction = plan.instructions[pc]
    return [] if isinstance(instruction, Jump | End) else [one.key for one in instruction.nodes]


def _made_in(plan: Plan, steps: Sequence[StepEntry], fields: Mapping[str, bytes]) -> set[str]:
    """The output keys of what completed in these steps.

    In a loop the output of a node that did not is that of the turn before, which is read again.
    """
    made: set[str] = set()
    for step in steps:
        keys = _keys(plan, step.pc)
        if isinstance(plan.step(step.pc), Wide):
            made.update(keys)
            continue
        for index, key in enumerate(keys):
            record = read_record(fields.get(f"n:{step.seq}.{index}"))
            if record is not None and record.status is NodeStatus.COMPLETED:
                made.add(key)
    return made


def _last_undone(header: Header, plan: Plan, fields: Mapping[str, bytes]) -> int:
    """The number of the step of the flow's that was undone last, in all from the top; 0 for none.

    Below it may be the telling that the run had begun, which is undone by telling of its end.
    """
    for number in range(header.undoing, header.undos + 1) if header.undoing else ():
        pc = int(fields[f"u:{number}"].split(b"|")[0])
        if not isinstance(plan.instructions[pc], Aside):
            return number
    return 0


def _first_to_repeat(
    header: Header,
    plan: Plan,
    steps: Sequence[StepEntry],
    undone: int,
    fields: Mapping[str, bytes],
) -> tuple[int, int | None]:
    """The seq of the first step to repeat, and the head of the loop that is begun anew by that.

    The state of a loop is that of its last turn: who repeats an earlier one repeats them all.
    """
    last = steps[-1].seq if steps else 1
    if not undone and header.repeats:
        return header.seq + 1, None
    if not undone:
        return last + _is_over(plan, steps, fields), None
    # Undone were those from the last down to the one that was being undone at the end.
    pc, _, seq = (int(part) for part in fields[f"u:{undone}"].split(b"|"))
    loop = _outermost_loop(plan, pc)
    if loop is None:
        return min(last, seq), None
    began = [step.seq for step in steps if step.pc == loop - 1 and step.seq < seq]
    return min(last, began[-1] if began else 1), loop


def _is_over(plan: Plan, steps: Sequence[StepEntry], fields: Mapping[str, bytes]) -> bool:
    """Whether the last step did all it had to, and the run was stopped before it left it.

    What it read may be gone: a loop's state is that of the turn before until the turn is over.
    """
    if not steps:
        return False
    step = steps[-1]
    for index in range(plan.width(step.pc, int(fields.get(f"w:{step.seq}", 0)))):
        record = read_record(fields.get(f"n:{step.seq}.{index}"))
        forgiven = plan.node(step.pc, index).best_effort
        over = (NodeStatus.COMPLETED, NodeStatus.FAILED) if forgiven else (NodeStatus.COMPLETED,)
        if record is None or record.status not in over:
            return False
    return True


def _outermost_loop(plan: Plan, pc: int) -> int | None:
    """Where the head of the outermost loop is in whose body `pc` is."""
    loops = (at for at, one in enumerate(plan.instructions) if isinstance(one, Loop))
    return next((at for at in loops if at < pc < _loop_end(plan, at)), None)


def _loop_end(plan: Plan, head: int) -> int:
    """The instruction behind a loop."""
    loop = plan.instructions[head]
    return loop.otherwise if isinstance(loop, Loop) else head


def _undo_seq(fields: Mapping[str, bytes], number: int) -> int:
    return int(fields[f"u:{number}"].split(b"|")[2])
