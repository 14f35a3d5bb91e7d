"""Holds what Redis has at the end against the invariants: the hash of a run, and the dead letters.

I1, I2, I4 and I5, as far as one run by itself shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from resolute.client.history import StepEntry, read_fields, steps_of
from resolute.client.objects import Objects
from resolute.engine.reading import step_output
from resolute.model.messages import Entry, Event
from resolute.model.plan import Aside, Branch, Items, Jump, Loop, Plan, Producer
from resolute.status import SETTLED, NodeStatus, RunStatus
from resolute.store import dead, runs
from resolute.store.costs import costs_of
from resolute.store.runs import Header, Record, parse_record
from resolute.store.store import Store
from tests.faults.app import CALLS, Work, marks, value_of
from tests.faults.cases import CASES, CHILD_FAILED, OTHER_ENDS, POISON
from tests.faults.checker.broken import Broken

NOBODY = "nobody"  # the run of the nemesis's garbage
MAX_LETTER = 65_536  # bytes; no entry and no event is longer


@dataclass(frozen=True)
class Ended:
    """What is kept of a run that was judged; `marks` are those of its committed outputs by node."""

    id: str
    flow: str
    status: RunStatus
    rev: str
    ended: float
    nodes: int
    attempts: int
    crashes: int
    marks: Mapping[str, str]
    is_poisoned: bool
    number: int = 0  # of its input
    repeated: tuple[str, ...] = ()  # nodes that used up more than one attempt, or crashed
    is_told: bool = False  # its hooks have been told how it ends

    @classmethod
    def before_it_began(cls, header: Header) -> Ended:
        """A run that was cancelled or terminated before its first transition."""
        return cls(
            header.id, header.flow, header.status, header.rev, header.ended or 0.0, 0, 0, 0, {},
            is_poisoned=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """The hash of a run, taken apart."""

    header: Header
    plan: Plan
    fields: Mapping[str, bytes]

    @classmethod
    async def read(
        cls, store: Store, header: Header, plan: Plan, objects: Objects | None = None
    ) -> Snapshot:
        """With `objects` also what is in the storage."""
        prefixes = ("s:", "n:", "u:", "uo:", "ux:", "o:", "x:", "w:", "input", "cost")
        fields = await read_fields(store, header.id, *prefixes)
        if objects is not None:
            whole = await objects.whole(fields)
            fields = {name: value for name, value in whole.items() if value is not None}
        return cls(header, plan, fields)

    def steps(self) -> list[StepEntry]:
        return steps_of(self.fields)

    def record(self, seq: int, index: int) -> Record | None:
        value = self.fields.get(f"n:{seq}.{index}")
        return parse_record(value) if value else None

    def records(self) -> dict[tuple[int, int], Record]:
        found: dict[tuple[int, int], Record] = {}
        for name, value in self.fields.items():
            if name.startswith("n:"):
                seq, _, index = name[2:].partition(".")
                found[int(seq), int(index)] = parse_record(value)
        return found


def judge_run(snapshot: Snapshot, *, was_stopped: bool) -> tuple[Ended, list[Broken]]:
    """A run that has ended: I1, I4, I5 and what it came to."""
    header = snapshot.header
    broken = [
        Broken(invariant, header.id, why)
        for invariant, found in (
            ("I1", _wrong_end(snapshot, was_stopped=was_stopped)),
            ("I2", _unsettled(snapshot)),
            ("I4", _wrong_path(snapshot)),
            ("I5", _wrong_undoing(snapshot)),
            ("I1", _wrong_costs(snapshot)),
        )
        for why in found
    ]
    records = snapshot.records().values()
    ended = Ended(
        header.id,
        header.flow,
        header.status,
        header.rev,
        header.ended or 0.0,
        len(records),
        sum(record.attempt for record in records),
        sum(record.crashes for record in records),
        _marks(snapshot),
        header.error is not None and header.error.type == POISON,
        _number(snapshot),
        tuple(_repeated(snapshot)),
        _is_told(snapshot),
    )
    return ended, broken


def _number(snapshot: Snapshot) -> int:
    if snapshot.header.flow not in CASES:
        return 0
    return msgspec.msgpack.decode(snapshot.fields["input"], type=Work).number


def _repeated(snapshot: Snapshot) -> Iterable[str]:
    for (seq, index), record in snapshot.records().items():
        if record.attempt > 1 or record.crashes:
            what = f"{record.attempt} attempts, {record.crashes} crashes"
            error = snapshot.header.error
            yield f"{snapshot.header.id} {snapshot.header.flow} {seq}.{index}: {what} {error or ''}"


def _is_told(snapshot: Snapshot) -> bool:
    """Whether the node that tells the hooks how it ends completed.

    A run may be terminated after that: it ends otherwise than it had told.
    """
    if not snapshot.steps() or snapshot.header.status is RunStatus.TERMINATED:
        return False
    last = snapshot.steps()[-1]
    record = snapshot.record(last.seq, 0)
    node = snapshot.plan.node(last.pc, 0)
    told = node.compensation if last.undo else node
    is_done = record is not None and record.status is NodeStatus.COMPLETED
    return is_done and told is not None and told.name == "after_flow"


def _wrong_end(snapshot: Snapshot, *, was_stopped: bool) -> Iterable[str]:
    header = snapshot.header
    if not header.status.is_terminal:
        yield f"it is {header.status}"
        return
    case = CASES.get(header.flow)
    if case is None or (was_stopped and header.status in OTHER_ENDS):
        return
    work = msgspec.msgpack.decode(snapshot.fields["input"], type=Work)
    expected = case.expect(work.number)
    error = header.error.type if header.error else ""
    if error == CHILD_FAILED and POISON in str(header.error):
        return  # the child is judged by itself
    if error == POISON and expected.error != POISON:
        # Three processes were killed under the same node: that is what poison looks like.
        if all(r.crashes < 3 for r in snapshot.records().values()):
            yield "it failed as poison, but no node has three crashes"
        return
    if (header.status, error) != (expected.status, expected.error):
        yield f"it {header.status} ({header.error}), expected {expected.status} {expected.error}"
    elif expected.value is not None:
        yield from _wrong_value(snapshot, expected.value)


def _wrong_value(snapshot: Snapshot, expected: int) -> Iterable[str]:
    last = [s for s in snapshot.steps() if not s.undo and not _has_none(snapshot.plan, s)][-1]
    step = snapshot.plan.instructions[last.pc]
    assert isinstance(step, Producer)
    output = step_output(step, lambda key: snapshot.fields.get(f"o:{key}"))
    found = value_of(msgspec.msgpack.decode(output))
    if found != expected:
        yield f"its result is {found}, expected {expected}"


def _wrong_costs(snapshot: Snapshot) -> Iterable[str]:
    """Of a completed run: that of the last attempt counts, and none counts twice.

    An attempt that ended with its process has used up its number, and its costs are not known.
    """
    if snapshot.header.flow != "retrying" or snapshot.header.status is not RunStatus.COMPLETED:
        return
    attempts = max(record.attempt for record in snapshot.records().values())
    found = costs_of(snapshot.fields).get(CALLS, 0)
    if not 1 <= found <= attempts:
        yield f"it counts {found} costs of {attempts} attempts"


def _unsettled(snapshot: Snapshot) -> Iterable[str]:
    """In a run that has ended, each dispatched node is settled, once; `pending` is 0."""
    if snapshot.header.status is RunStatus.TERMINATED:
        return
    if snapshot.header.pending:
        yield f"pending is {snapshot.header.pending}"
    for step in snapshot.steps():
        for index in _indices(snapshot, step):
            record = snapshot.record(step.seq, index)
            if record is None or record.status not in SETTLED:
                yield f"node {step.seq}.{index} is {record.status if record else 'without record'}"


def _wrong_path(snapshot: Snapshot) -> Iterable[str]:
    """Steps follow each other without a gap, and none is dispatched twice."""
    steps = snapshot.steps()
    if any(isinstance(one, Loop) for one in snapshot.plan.instructions):
        yield from _wrong_turns(snapshot, steps)
        return
    if [step.seq for step in steps] != list(range(1, len(steps) + 1)):
        yield f"the seqs of its steps are {[step.seq for step in steps]}"
    forward = [step.pc for step in steps if not step.undo]
    if len(set(forward)) != len(forward) or forward != sorted(forward):
        yield f"its path is {forward}"


def _wrong_turns(snapshot: Snapshot, steps: Sequence[StepEntry]) -> Iterable[str]:
    """Of earlier turns nothing is left; what is there follows from what is before it."""
    seqs = [step.seq for step in steps]
    if seqs and seqs[-1] != snapshot.header.seq:
        yield f"its last step is {seqs[-1]}, and not {snapshot.header.seq}"
    for one, other in pairwise(step for step in steps if not step.undo):
        legal = set(_next_steps(snapshot.plan, one.pc))
        if other.seq == one.seq + 1 and other.pc not in legal:
            yield f"step {other.pc} came after {one.pc}"


def _next_steps(plan: Plan, pc: int) -> Iterable[int]:
    """Where a run can be after the step at `pc`."""
    step = plan.instructions[pc]
    ways = [pc + 1, *([step.otherwise] if isinstance(step, Branch | Loop) else [])]
    ways += [pc + 2] if isinstance(step, Items) else []  # past a list that has none
    for to in ways:
        while isinstance(found := plan.instructions[to], Jump):
            to = found.to
        yield to


def _wrong_undoing(snapshot: Snapshot) -> Iterable[str]:
    """Each completed node with a compensation has one that was settled, in reverse order."""
    header = snapshot.header
    if header.status is RunStatus.TERMINATED:
        return
    undone = [step.undo for step in snapshot.steps() if step.undo]
    must = header.status is not RunStatus.COMPLETED
    expected = list(range(header.undos, 0, -1)) if must else []
    if undone != expected:
        yield f"compensated were {undone}, expected {expected}"
    stack = {
        (int(seq), int(index))
        for name, value in snapshot.fields.items()
        if name.startswith("u:")
        for _, index, seq in [value.split(b"|")]
    }
    completed = {
        (step.seq, index)
        for step in snapshot.steps()
        if not step.undo
        for index in _indices(snapshot, step)
        if snapshot.plan.node(step.pc, index).compensation is not None
        and (record := snapshot.record(step.seq, index)) is not None
        and record.status is NodeStatus.COMPLETED
    }
    if stack != completed:
        yield f"to be compensated were {sorted(stack)}, completed {sorted(completed)}"


def _indices(snapshot: Snapshot, step: StepEntry) -> Sequence[int]:
    if step.undo:
        return [runs.parse_undo(snapshot.fields[f"u:{step.undo}"])[1]]
    return range(snapshot.plan.width(step.pc, int(snapshot.fields.get(f"w:{step.seq}", 0))))


def _has_none(plan: Plan, step: StepEntry) -> bool:
    """Whether a step has no output."""
    return isinstance(plan.instructions[step.pc], Branch | Aside)


def _marks(snapshot: Snapshot) -> dict[str, str]:
    """The mark of each committed output, by the name of the node."""
    found: dict[str, str] = {}
    for step in snapshot.steps():
        if step.undo or _has_none(snapshot.plan, step):
            continue
        for index in _indices(snapshot, step):
            key = snapshot.plan.key(step.pc, index)
            for at, mark in enumerate(_marks_of(key, snapshot.fields)):
                found[f"{key} page {at}" if at else key] = mark
    return found


def _marks_of(key: str, fields: Mapping[str, bytes]) -> list[str]:
    """One for each page that the output is made of, and mostly just one."""
    output = fields.get(f"o:{key}")
    return marks(msgspec.msgpack.decode(output)) if output else []


def judge_letters(letters: Iterable[tuple[bytes, str]]) -> list[Broken]:
    """I1: among the dead letters, each with its reason, is nothing but the nemesis's garbage."""
    broken: list[Broken] = []
    for raw, why in letters:
        for kind in (Entry, Event):
            with suppress(msgspec.MsgspecError, ValueError):
                found = msgspec.msgpack.decode(raw, type=kind)
                if found.flow != NOBODY:
                    broken.append(Broken("I1", found.flow or "-", f"buried ({why}): {found}"))
    return broken


async def read_buried(store: Store) -> list[tuple[bytes, str]]:
    """Every dead letter there is: its raw bytes, and why it was buried."""
    return [
        (letter.raw, letter.why)
        for partition in store.keys.partitions
        for letter in await dead.read_letters(
            store, partition, count=2 * dead.MAX_DEAD, cut=MAX_LETTER
        )
    ]
