"""Holds what happened against the invariants I1 to I9.

`judge_run` looks at the hash of one run that has ended; `judge_lines` at everything that the oracle
was told, together with what the hashes said.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from resolute.client.history import StepEntry, read_fields, steps_of
from resolute.ids import root_of
from resolute.model.messages import Entry, Event
from resolute.model.plan import Branch, NodePlan, Plan
from resolute.status import SETTLED, NodeStatus, RunStatus
from resolute.store import dead, runs
from resolute.store.runs import Header, Record, parse_record
from resolute.store.store import Store
from tests.faults.app import BURST, RATE, Work, outputs
from tests.faults.cases import CASES, OTHER_ENDS, POISON
from tests.faults.oracle import Line

Instance = tuple[str, int, int]  # (run, seq, index)

STOPPED_AS = {"cancel": RunStatus.CANCELLED, "terminate": RunStatus.TERMINATED}
NOBODY = "nobody"  # the run of the nemesis's garbage
MAX_LETTER = 65_536  # bytes; no entry and no event is longer
LATE = 0.1  # s by which a start under a limit may be late: FAULTS.md, I7
CLOCK_GRAIN = 0.005  # s between the start of a node and its line


@dataclass(frozen=True)
class Broken:
    """An invariant that does not hold."""

    invariant: str
    run: str
    why: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.run}: {self.why}"


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
    repeated: tuple[str, ...] = ()  # nodes that used up more than one attempt, or crashed

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
    async def read(cls, store: Store, header: Header, plan: Plan) -> Snapshot:
        prefixes = ("s:", "n:", "u:", "uo:", "ux:", "o:", "x:", "input")
        return cls(header, plan, await read_fields(store, header.id, *prefixes))

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
        tuple(_repeated(snapshot)),
    )
    return ended, broken


def _repeated(snapshot: Snapshot) -> Iterable[str]:
    for (seq, index), record in snapshot.records().items():
        if record.attempt > 1 or record.crashes:
            what = f"{record.attempt} attempts, {record.crashes} crashes"
            error = snapshot.header.error
            yield f"{snapshot.header.id} {snapshot.header.flow} {seq}.{index}: {what} {error or ''}"


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
    last = [s for s in snapshot.steps() if not s.undo and not _is_branch(snapshot.plan, s)][-1]
    (node,) = snapshot.plan.step(last.pc).nodes
    found = msgspec.msgpack.decode(snapshot.fields[f"o:{node.key}"])["value"]
    if found != expected:
        yield f"its result is {found}, expected {expected}"


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
    if [step.seq for step in steps] != list(range(1, len(steps) + 1)):
        yield f"the seqs of its steps are {[step.seq for step in steps]}"
    forward = [step.pc for step in steps if not step.undo]
    if len(set(forward)) != len(forward) or forward != sorted(forward):
        yield f"its path is {forward}"


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
        for index, node in enumerate(snapshot.plan.step(step.pc).nodes)
        if node.compensation is not None
        and (record := snapshot.record(step.seq, index)) is not None
        and record.status is NodeStatus.COMPLETED
    }
    if stack != completed:
        yield f"to be compensated were {sorted(stack)}, completed {sorted(completed)}"


def _indices(snapshot: Snapshot, step: StepEntry) -> Sequence[int]:
    if step.undo:
        return [runs.parse_undo(snapshot.fields[f"u:{step.undo}"])[1]]
    return range(len(snapshot.plan.step(step.pc).nodes))


def _is_branch(plan: Plan, step: StepEntry) -> bool:
    return isinstance(plan.instructions[step.pc], Branch)


def _marks(snapshot: Snapshot) -> dict[str, str]:
    """The mark of each committed output, by the name of the node."""
    found: dict[str, str] = {}
    for step in snapshot.steps():
        if step.undo or _is_branch(snapshot.plan, step):
            continue
        for node in snapshot.plan.step(step.pc).nodes:
            mark = _mark_of(node, snapshot.fields)
            if mark:
                found[node.name] = mark
    return found


def _mark_of(node: NodePlan, fields: Mapping[str, bytes]) -> str:
    output = fields.get(f"o:{node.key}")
    found = outputs(msgspec.msgpack.decode(output)) if output else []
    return found[0].mark if found else ""


@dataclass
class CutOff:
    """A span in which a process could not work: stopped, or without Redis.

    For `after` seconds more it may run on as before: who is let go cannot know at once.
    """

    pid: int
    since: float
    until: float
    after: float = 0.0

    def excuses(self, older: Line, began: float) -> bool:
        """Whether an execution may still have been running when another one began."""
        is_in_it = self.since < began and self.until + self.after > older.at
        return self.pid == older.pid and is_in_it


@dataclass
class Execution:
    """One execution of a node: `end` is None where it never said that it was over."""

    line: Line
    end: float | None = None
    is_left: bool = False  # an exception left it: it was stopped, or failed


@dataclass
class Account:
    """What all lines come to."""

    broken: list[Broken] = field(default_factory=list[Broken])
    executions: int = 0
    unfinished: int = 0
    overlaps: int = 0
    limited: int = 0


def judge_lines(
    lines: Sequence[Line],
    ended: Mapping[str, Ended],
    cut_off: Sequence[CutOff],
    *,
    lease: float,
    extra_bursts: int = 0,
) -> Account:
    """I1 to I4, I7 and I9 over all processes; `lines` are in order of time."""
    account = Account()
    instances: dict[Instance, list[Execution]] = defaultdict(list)
    by_mark: dict[str, Execution] = {}
    acknowledged: set[str] = set()
    for line in lines:
        match line.what:
            case "start":
                execution = Execution(line)
                instances[line.run, line.seq, line.index].append(execution)
                by_mark[line.mark] = execution
            case "end" | "stop":
                by_mark[line.mark].end = line.at
                by_mark[line.mark].is_left = line.what == "stop"
            case "started":
                acknowledged.add(line.run)
            case _:
                pass
    account.executions = len(by_mark)
    account.unfinished = sum(execution.end is None for execution in by_mark.values())
    account.broken += [Broken("I1", run, "never ended") for run in acknowledged - ended.keys()]
    account.broken += _wrong_stop(lines, ended)
    alive = {(line.pid, line.who): line.at for line in lines}
    excuses = _beyond_lease(cut_off, lease)
    for instance, executions in instances.items():
        account.broken += _not_at_once(instance, executions, alive, excuses, account)
    account.broken += _one_result(by_mark.values(), ended)
    account.broken += _one_place(instances)
    account.broken += _over_limit(lines, account, extra_bursts)
    return account


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


def _wrong_stop(lines: Iterable[Line], ended: Mapping[str, Ended]) -> Iterable[Broken]:
    """I1: a run that was cancelled or terminated ends so, and no other does.

    A "stopping" that no "stopped" follows is one whose answer was lost: it may have been done.
    """
    unanswered: dict[str, Counter[str]] = defaultdict(Counter)
    done: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        if line.what == "stopping":
            unanswered[line.run][line.note] += 1
        elif line.what == "stopped":
            how, answer = line.note.split()
            unanswered[line.run][how] -= 1
            if answer == "True":
                done[line.run].add(how)
    for run, one in ended.items():
        was = done.get(run, set())
        maybe = {how for how, count in unanswered.get(run, Counter()).items() if count > 0}
        allowed = {STOPPED_AS[how] for how in was | maybe}
        if "terminate" in was:
            allowed = {RunStatus.TERMINATED}
        if (was and one.status not in allowed) or one.status in OTHER_ENDS - allowed:
            told = f"stopped by {sorted(was)}, perhaps by {sorted(maybe)}"
            yield Broken("I1", run, f"it {one.status}, but was {told}")


def _not_at_once(
    instance: Instance,
    executions: Sequence[Execution],
    alive: Mapping[tuple[int, str], float],
    cut_off: Sequence[CutOff],
    account: Account,
) -> Iterable[Broken]:
    """I3: each execution of an instance has ended before the next begins.

    One that never said so ran on at least as long as its process is known to have been alive.
    """
    running: list[tuple[Execution, float]] = []
    for newer in executions:
        began = newer.line.at
        running = [(older, end) for older, end in running if end > began]
        for older, end in running:
            account.overlaps += 1
            if not any(span.excuses(older.line, began) for span in cut_off):
                name = f"{older.line.node} {instance[1]}.{instance[2]}"
                yield Broken(
                    "I3",
                    instance[0],
                    f"{name} ran at once in {older.line.pid} until {end:.3f} and in"
                    f" {newer.line.pid} from {began:.3f}",
                )
        end = alive[newer.line.pid, newer.line.who] if newer.end is None else newer.end
        running.append((newer, end))


def _beyond_lease(cut_off: Iterable[CutOff], lease: float) -> list[CutOff]:
    """The spans in which a lease may have ended, with those that follow each other closely as one.

    A lease is renewed each third of it, so two thirds of it may be left when a span begins.
    """
    joined: list[CutOff] = []
    for span in sorted(cut_off, key=lambda span: (span.pid, span.since)):
        last = joined[-1] if joined else None
        if last and last.pid == span.pid and span.since - last.until < lease / 3:
            until, after = max(last.until, span.until), max(last.after, span.after)
            joined[-1] = CutOff(span.pid, last.since, until, after)
        else:
            joined.append(span)
    return [span for span in joined if span.until - span.since > lease * 2 / 3]


def _one_result(executions: Iterable[Execution], ended: Mapping[str, Ended]) -> Iterable[Broken]:
    """I2: the committed result is that of one execution, and everybody saw the same."""
    made: dict[str, set[str]] = defaultdict(set)
    everything = list(executions)
    for execution in everything:
        if execution.end is not None and not execution.is_left:
            made[root_of(execution.line.run)].add(execution.line.mark)
    committed = {run: set(one.marks.values()) for run, one in ended.items()}
    for run, marks in committed.items():
        unknown = marks - made[root_of(run)]  # a retried run has the outputs of the one before
        if unknown:
            yield Broken("I2", run, f"no execution ended with {sorted(unknown)}")
    for execution in everything:
        line = execution.line
        wrong = set(line.saw) - committed.get(line.run, set(line.saw))
        if wrong:
            yield Broken(
                "I2", line.run, f"{line.node} saw {sorted(wrong)}, which was not committed"
            )


def _one_place(instances: Mapping[Instance, Sequence[Execution]]) -> Iterable[Broken]:
    """I4, I9: without loops, a node of a run has one place among its steps."""
    places: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for (run, seq, index), executions in instances.items():
        places[run, executions[0].line.node].add((seq, index))
    for (run, name), found in places.items():
        if len(found) > 1:
            yield Broken("I4", run, f"{name} was dispatched at {sorted(found)}")


def _over_limit(lines: Sequence[Line], account: Account, extra_bursts: int) -> Iterable[Broken]:
    """I7: in every window w, starts <= burst + refill x (w + 100 ms); the first that breaks it."""
    starts = [line for line in lines if line.what == "start" and line.node == "limited"]
    account.limited = len(starts)
    allowed = BURST * (1 + extra_bursts) + RATE * (LATE + CLOCK_GRAIN)
    # `ahead` is how far the starts are ahead of the refill. From a start to a later one it grows
    # by their number less what was refilled: most of all from where it was lowest.
    lowest, since = float("inf"), 0
    for number, line in enumerate(starts):
        ahead = number - RATE * line.at
        if ahead < lowest:
            lowest, since = ahead, number
        if ahead - lowest + 1 > allowed:
            seconds = line.at - starts[since].at
            why = f"{number - since + 1} starts in {seconds:.3f} s"
            yield Broken("I7", line.run, f"{why}, allowed {allowed + RATE * seconds:.1f}")
            return
