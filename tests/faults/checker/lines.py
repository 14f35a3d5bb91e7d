"""Holds what the oracle was told, by all processes of all runs, against the invariants.

I1 to I4, I7 and I9 to I11: what no single run shows. What the runs came to is known by then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from resolute.ids import parent_of, root_of
from resolute.status import RunStatus
from tests.faults.app import BURST, RATE, REPEATED, ROOM, TABLE
from tests.faults.cases import OTHER_ENDS
from tests.faults.checker.broken import Broken
from tests.faults.checker.ended import Ended
from tests.faults.oracle import Line

Instance = tuple[str, int, int]  # (run, seq, index)

STOPPED_AS = {"cancel": RunStatus.CANCELLED, "terminate": RunStatus.TERMINATED}
LATE = 0.1  # s by which a start under a limit may be late: docs/reliability.md, I7
CLOCK_GRAIN = 0.005  # s between the start of a node and its line


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
    seated: int = 0


def judge_lines(
    lines: Sequence[Line],
    ended: Mapping[str, Ended],
    cut_off: Sequence[CutOff],
    *,
    lease: float,
    extra_bursts: int = 0,
) -> Account:
    """I1 to I4, I7 and I9 to I11 over all processes; `lines` are in order of time."""
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
    account.broken += _untold(lines, ended)
    alive = {(line.pid, line.who): line.at for line in lines}
    excuses = _beyond_lease(cut_off, lease)
    for instance, executions in instances.items():
        account.broken += _not_at_once(instance, executions, alive, excuses, account)
    account.broken += _one_result(by_mark.values(), ended)
    account.broken += _one_place(instances)
    account.broken += _over_limit(lines, account, extra_bursts)
    seated = [one for one in by_mark.values() if one.line.node.startswith("seated")]
    account.seated = len(seated)
    account.broken += _over_full("I10", "the room", ROOM, seated, alive, excuses)
    tables: dict[str, list[Execution]] = defaultdict(list)
    for one in seated:
        tables[one.line.note].append(one)
    for table, those in tables.items():
        account.broken += _over_full("I10", table, TABLE, those, alive, excuses)
    keys: dict[str, list[Execution]] = defaultdict(list)
    for one in by_mark.values():
        if one.line.node == "alone":
            keys[one.line.note].append(one)
    for key, those in keys.items():
        account.broken += _over_full("I11", key, 1, those, alive, excuses)
    account.broken += _not_the_last(lines, ended)
    return account


def _untold(lines: Iterable[Line], ended: Mapping[str, Ended]) -> Iterable[Broken]:
    """I1: the hooks of a run heard how it ended, once at least."""
    heard = {(line.run, line.note) for line in lines if line.what == "told"}
    for run, one in ended.items():
        if one.is_told and (run, one.status) not in heard:
            yield Broken("I1", run, f"its hooks were not told that it {one.status}")


def _not_the_last(lines: Iterable[Line], ended: Mapping[str, Ended]) -> Iterable[Broken]:
    """I11: a debounced run has the input of the last start that went into it."""
    last: dict[str, int] = {}
    for line in lines:
        if line.what == "started" and line.note:
            last[line.run] = max(last.get(line.run, 0), int(line.note))
    for run, number in last.items():
        one = ended.get(run)
        # A later one may have been done without an answer; a run that never began is not read.
        if one is not None and one.nodes and one.number < number:
            why = f"it has the input {one.number}, and {number} was acknowledged"
            yield Broken("I11", run, why)


def _over_full(
    invariant: str,
    where: str,
    places: int,
    executions: Iterable[Execution],
    alive: Mapping[tuple[int, str], float],
    cut_off: Sequence[CutOff],
) -> Iterable[Broken]:
    """I10, I11: no more run at one time than there are places; the first that is one too many.

    Not counted is what runs on, or begins, in a process that was cut off for longer than a lease.
    """
    running: list[tuple[Execution, float]] = []
    for newer in sorted(executions, key=lambda one: one.line.at):
        began = newer.line.at
        running = [(older, end) for older, end in running if end > began]
        counted = [
            older.line.pid
            for older, _ in running
            if not any(span.excuses(older.line, began) for span in cut_off)
        ]
        is_excused = any(span.excuses(newer.line, began + CLOCK_GRAIN) for span in cut_off)
        if len(counted) >= places and not is_excused:
            why = f"{newer.line.node} began in {newer.line.pid} beside {counted}"
            yield Broken(invariant, newer.line.run, f"{where} has {places} places: {why}")
            return
        end = alive[newer.line.pid, newer.line.who] if newer.end is None else newer.end
        running.append((newer, end))


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
        if one.flow == "alone":
            allowed = allowed | {RunStatus.CANCELLED}  # one that was replaced
        if "terminate" in was:
            allowed = {RunStatus.TERMINATED}
        parent = ended.get(parent_of(run))
        if parent is not None and parent.status is not RunStatus.COMPLETED:
            allowed |= OTHER_ENDS  # one that does not complete stops its children
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
    """I4, I9: a node of a run has one place among its steps, but for those of lists and loops."""
    places: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for (run, seq, index), executions in instances.items():
        places[run, executions[0].line.node].add((seq, index))
    for (run, name), found in places.items():
        if len(found) > 1 and name not in REPEATED:
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
