"""A run in memory: the fields of its hash, and what the scripts of `resolute/store/lua` do to them.

Each method is the script of its name for one item, without what only a distributed system needs:
there is one process, nobody dies, and no call is sent twice. The fields are those of the hash in
Redis, so that the code that reads a run reads this one too.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import msgspec

from resolute.coordinator.committing import next_rev
from resolute.coordinator.timers import error_of
from resolute.engine.admission import read_hold
from resolute.engine.paging import page_fields, pages_kept
from resolute.engine.progress import progress_field
from resolute.errors import ErrorInfo, ResoluteError
from resolute.model.messages import Entry, Event
from resolute.model.plan import item_key
from resolute.status import CHILD, SETTLED, Code, EventKind, NodeStatus, RunStatus, TimerKind
from resolute.storage import Storage
from resolute.store import costs, runs
from resolute.store.runs import Header, Record
from resolute.store.transitions import LISTED, Commit, DueTimer, Turn, Waiting
from resolute.testing.objects import MemoryObjects

PROCESS = "flow-tester"
UNCLAIMED = (NodeStatus.READY, NodeStatus.WAITING)

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Timer(msgspec.Struct, frozen=True, order=True):
    """What is to be done at `due` (ms), if the node's token is still this one by then."""

    due: int
    number: int  # in order of making
    kind: TimerKind
    step: str = ""  # of a gate or a sleep
    seq: int = 0
    index: int = 0
    token: str = ""


class MemoryRun:
    """One run. `inbox` has its events, and those of its family, `ready` what its queues hold.

    `now` is the time in ms, 0 at `epoch`, which is Unix time in ms. As in Redis, nothing happens by
    itself: a coordinator handles the events, a worker begins the entries, and somebody calls
    `fire_due`.
    """

    def __init__(
        self,
        flow_id: str,
        now: Callable[[], int],
        epoch: int = 0,
        storage: Storage | None = None,
        above: Sequence[MemoryRun] = (),
        inbox: deque[Event] | None = None,
    ) -> None:
        self.id = flow_id
        self._epoch = epoch
        self.fields: dict[str, bytes] = {}
        self.cursors: dict[str, bytes] = {}  # those of all runs of the test
        self.objects = MemoryObjects(storage, self.fields, above)
        self.inbox: deque[Event] = deque() if inbox is None else inbox
        self.ready: deque[Entry] = deque()
        self._timers: list[Timer] = []
        self._now = now
        self._count = 0

    def header(self) -> Header:
        found = runs.parse_header(self.id, self.read(runs.HEADER))
        if found is None:
            raise ResoluteError(f"run {self.id!r} was not started")
        return found

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """What HMGET answers."""
        return [self.fields.get(name) for name in names]

    def record(self, seq: int, index: int) -> Record:
        """The record of a node; one that has none is ready with the step's token."""
        found = self.fields.get(f"n:{seq}.{index}")
        if found is not None:
            return runs.parse_record(found)
        token = self.header().token
        return Record(NodeStatus.READY, token, 1, 0, "", "", "", None, None, "")

    def nonce(self) -> str:
        """What makes a rev; the same in every run of a test."""
        return f"t{self._number()}"

    @property
    def next_due(self) -> int | None:
        """When the earliest timer is due, in ms."""
        return self._timers[0].due if self._timers else None

    # What a client does.

    def start(self, flow: str, queue: str, data: bytes, child_of: str = "") -> None:
        """`child_of` is the node that waits for its end: <parent>|<seq>|<index>|<1: may fail>."""
        if child_of:
            self._set("child_of", child_of)
        rev = f"0-{self.nonce()}"
        now = self._now()
        self._set(
            "status", RunStatus.RUNNING, "flow", flow, "plan", "", "pc", 0, "seq", 0, "rev", rev,
            "pending", 0, "queue", queue, "input", data, "started", now, "moved", now,
        )  # fmt: skip
        self.inbox.append(Event(EventKind.START, self.id, rev=rev, queue=queue, arg=flow))

    def cancel(self, error: ErrorInfo) -> bool:
        """False where it is too late."""
        if self.header().status is not RunStatus.RUNNING:
            return False
        self._set("cancel", 1)
        self._fail_run(_encode(error))
        return True

    def terminate(self, error: ErrorInfo) -> bool:
        """False where it has ended."""
        header = self.header()
        if header.status.is_terminal or header.terminated:
            return not header.status.is_terminal
        is_running = header.status is RunStatus.RUNNING
        status = RunStatus.FAILING if is_running else header.status
        rev = next_rev(header.rev, self.nonce())
        self._set(
            "terminate", self.nonce(), "status", status, "error", _encode(error), "skip", 0,
            "rev", rev,
        )  # fmt: skip
        self._push(EventKind.LOOK, self.header())
        return True

    def signal(self, name: str, sender: str, payload: bytes) -> None:
        """Pass the gate that waits for it, or keep it. A run that has ended takes none."""
        header = self.header()
        if f"si:{sender}" in self.fields or header.status.is_terminal:
            return
        count, taken = self._signals(name)
        self._set(f"si:{sender}", self._now(), f"sn:{name}", count + 1)
        if header.status is RunStatus.RUNNING and self._gate(header.seq) == name:
            self._set(f"st:{name}", taken + 1)
            self._pass_gate(header.seq, payload)
        else:
            self._set(f"sg:{name}:{count}", payload)

    # What a coordinator does.

    def commit(self, change: Commit, follow: Callable[[], None]) -> Code:
        """Write a transition, if the run is still what it was when that was decided.

        `follow` does what it does of other runs.
        """
        header = self.header()
        if header.rev != change.expect:
            return Code.CONFLICT
        is_left = change.step or (change.ended and change.ended is not RunStatus.TERMINATED)
        if (is_left and header.pending) or change.page_from not in (-1, header.page):
            return Code.CONFLICT
        now = self._now()
        self._set(*change.fields, "rev", change.rev, "moved", now)
        if change.turn is not None:
            self._begin_turn(change.seq, change.turn)
        if change.step:
            self._set(f"s:{change.seq}", f"{change.step}|{now}")
        self.ready.extend(_decode_entry(blob) for _, blob in change.entries)
        if change.waiting is not None:
            self._begin_wait(change.seq, change.rev, change.waiting)
        if change.deadline_ms:
            due = now + change.deadline_ms
            self._set("deadline", due)
            self._add_timer(due, TimerKind.DEADLINE)
        if change.page is not None:
            self.inbox.append(change.page)
        if change.skip is not None:
            self._skip(change.seq, *change.skip[:2])
        if change.ended is not None:
            self._set("ended", now)
            self._timers.clear()
        follow()
        if change.skip is not None and change.skip[2] and self.header().pending:
            self._push(EventKind.LOOK, self.header())
        return Code.OK

    # Runs that this one starts: what lib_child.lua does in the parent.

    def wait_for_run(self, seq: int, index: int, step: str, rev: str) -> None:
        """Let a node wait for the end of another run."""
        record = Record(
            NodeStatus.WAITING, f"{rev}.0", attempt=1, crashes=0, process="", queue=step,
            entry="", begun=self._now(), ended=None, hold=CHILD,
        )  # fmt: skip
        self._write(seq, index, record)

    def _forget_output(self, key: str) -> None:
        """The run goes on without it, and not with the one of a former turn of a loop."""
        if not self.header().undoing:
            self.fields.pop(f"o:{key}", None)

    def waits_for_run(self, seq: int, index: int) -> bool:
        record = self.record(seq, index)
        is_current = self.header().seq == seq and not self.header().status.is_terminal
        return is_current and record.status is NodeStatus.WAITING and record.hold == CHILD

    def child_ended(
        self, seq: int, index: int, result: bytes | None, failed: ErrorInfo, *, forgives: bool
    ) -> None:
        """The run that a node waits for has ended; without a `result` the node has `failed`."""
        if not self.waits_for_run(seq, index):
            return
        key = item_key(self.record(seq, index).queue, index)
        if result is not None:
            self._set(f"o:{key}", result)
            self._settle(seq, index, NodeStatus.COMPLETED)
        else:
            error = _encode(msgspec.structs.replace(failed, node=key))
            if forgives:
                self._forget_output(key)
            else:
                self._fail_run(error)
            self._set(f"x:{key}", error)
            self._settle(seq, index, NodeStatus.FAILED)
        header = self.header()
        if header.status is RunStatus.RUNNING and header.pending > 0 and header.page < header.width:
            self._push(EventKind.LOOK, header)

    def _begin_turn(self, seq: int, turn: Turn) -> None:
        """Count a turn of a loop, take the signals, and forget the steps of the one before."""
        for name in turn.signals:
            self._take_signals(turn.pc, name)
        last, count = self.read([f"l:{turn.pc}", f"t:{turn.pc}"])
        if not turn.again:
            last, count = None, None
        self._set(f"t:{turn.pc}", int(count or 0) + 1, f"l:{turn.pc}", seq)
        first = int(last) if last is not None else seq
        for at in (at for at in range(first, seq) if at - first < 100 or seq - at <= 100):
            step = self.fields.get(f"s:{at}")
            width = turn.widths.get(int(step.partition(b"|")[0])) if step is not None else None
            if width == LISTED:
                width = int(self.fields.get(f"w:{at}", b"0"))
            parts = ((f"n:{at}.{index}", f"i:{at}.{index}") for index in range(width or 0))
            names = (f"s:{at}", f"w:{at}", *chain.from_iterable(parts))
            for name in names if width is not None else ():
                self.fields.pop(name, None)

    def _take_signals(self, pc: int, name: str) -> None:
        mine = f"d:{pc}:{name}"
        first, last = map(int, self.fields.get(mine, b"0|0").split(b"|"))
        for number in range(first, last):
            self.fields.pop(f"sg:{name}:{number}", None)
        came, taken = self._signals(name)
        self._set(mine, f"{taken}|{came}", f"st:{name}", came)

    def fire_due(self) -> None:
        """Do what is due; a timer whose run has gone on is dropped."""
        while self._timers and self._timers[0].due <= self._now():
            self._fire(heapq.heappop(self._timers))

    def _fire(self, timer: Timer) -> None:
        header = self.header()
        if timer.kind is TimerKind.DEADLINE:
            if header.status is RunStatus.RUNNING:
                self._set("overran", 1)
                self._fail_run(self._error_of(timer))
            return
        record = self.record(timer.seq, timer.index)
        is_waiting = record.status is NodeStatus.WAITING and record.token == timer.token
        if header.status.is_terminal or header.seq != timer.seq or not is_waiting:
            return
        match timer.kind:
            case TimerKind.SLEEP:
                self._settle(timer.seq, timer.index, NodeStatus.COMPLETED)
            case TimerKind.GATE:
                error = self._error_of(timer)
                self._set(f"x:{timer.step}", error)
                self._fail_run(error)
                self._settle(timer.seq, timer.index, NodeStatus.FAILED)
            case _:
                self._release(timer.seq, timer.index, header, record)

    def _release(self, seq: int, index: int, header: Header, record: Record) -> None:
        self._write(seq, index, record, status=NodeStatus.READY, ended=None)
        self._hand_out(seq, index, header)

    def _hand_out(self, seq: int, index: int, header: Header) -> None:
        record = self.record(seq, index)
        self.ready.append(
            Entry(
                self.id, header.plan, header.pc, seq, index, record.token, record.attempt,
                record.crashes, header.undoing,
            )
        )  # fmt: skip

    def _error_of(self, timer: Timer) -> bytes:
        due = DueTimer(b"", timer.kind, timer.step, self.id, timer.seq, timer.index, timer.token)
        return _encode(error_of(due))

    # Gates, sleeps, signals.

    def _begin_wait(self, seq: int, rev: str, waiting: Waiting) -> None:
        """A signal that came before the gate was reached is taken at once."""
        due = self._moment(waiting.until)
        token = f"{rev}.0"
        record = Record(
            NodeStatus.WAITING, token, attempt=1, crashes=0, process="", queue=waiting.name,
            entry="", begun=None, ended=due, hold=waiting.kind,
        )  # fmt: skip
        self._write(seq, 0, record)
        self._set("gate", waiting.signal)
        if due is not None:
            self._add_timer(due, waiting.kind, waiting.name, seq, 0, token)
        if waiting.kind is not TimerKind.GATE:
            return
        count, taken = self._signals(waiting.signal)
        if count > taken:
            self._set(f"st:{waiting.signal}", taken + 1)
            self._pass_gate(seq, self.fields.pop(f"sg:{waiting.signal}:{taken}"))

    def _moment(self, until: str) -> int | None:
        """`Waiting.until` by the clock of this run."""
        if not until:
            return None
        return self._now() + int(until) if until[0] == "+" else int(until) - self._epoch

    def _gate(self, seq: int) -> str | None:
        """The signal that the gate waits for at which the run is."""
        record = self.record(seq, 0)
        is_gate = record.status is NodeStatus.WAITING and record.hold == TimerKind.GATE
        return str(self.fields["gate"], "utf-8") if is_gate else None

    def _pass_gate(self, seq: int, payload: bytes) -> None:
        self._set(f"o:{self.record(seq, 0).queue}", payload)
        self._settle(seq, 0, NodeStatus.COMPLETED)

    def _signals(self, name: str) -> tuple[int, int]:
        """How many signals of that name came, and how many of them were taken."""
        came, taken = self.read([f"sn:{name}", f"st:{name}"])
        return int(came or 0), int(taken or 0)

    # What a worker does.

    def begin(self, entry: Entry, queue: str, fields: Sequence[str]) -> list[bytes | None] | None:
        """Claim a node; the values of `fields`, or None where the run does not want it."""
        header, record = self.header(), self.record(entry.seq, entry.index)
        is_ready = record.status is NodeStatus.READY and record.token == entry.token
        if not is_ready or header.seq != entry.seq or header.status.is_terminal:
            return None
        if header.status is RunStatus.FAILING:
            return None
        self._write(
            entry.seq, entry.index, record, status=NodeStatus.RUNNING, process=PROCESS,
            queue=queue, entry=f"{self._number()}-0", begun=self._now(), ended=None,
        )  # fmt: skip
        return self.read(fields)

    def keep_items(self, entry: Entry, items: Iterable[bytes]) -> int:
        """Keep the items of the wide step that comes next, if all are sound; how many there are."""
        found = list(items)
        for index, item in enumerate(found):
            self._set(f"i:{entry.seq + 1}.{index}", item)
        return len(found)

    def complete(
        self,
        entry: Entry,
        key: str,
        output: bytes,
        undo_input: bytes | None,
        arg: str,
        spent: str = "",
        pages: int | None = None,
    ) -> None:
        header = self.header()
        if not self._is_held(entry, header):
            return
        if pages is not None:
            self._drop_progress(entry, pages)
        if header.status is RunStatus.COMPENSATING:
            self._set(f"uo:{header.undoing}", output)
        else:
            self._set(f"o:{key}", output)
        if undo_input is not None:
            count = header.undos + 1
            place = f"{entry.pc}|{entry.index}|{entry.seq}"
            self._set("undos", count, f"u:{count}", place, f"ui:{count}", undo_input)
        costs.add_costs(self.fields, spent)
        hold = self.record(entry.seq, entry.index).hold
        self._settle(entry.seq, entry.index, NodeStatus.COMPLETED, arg, hold)
        self._refill(entry.seq)

    def fail(
        self,
        entry: Entry,
        key: str,
        error: ErrorInfo,
        delay: int | None,
        spent: str = "",
        *,
        best_effort: bool,
    ) -> None:
        """A failed attempt; `delay` (ms) is until the next, None where it was the last."""
        header = self.header()
        if not self._is_held(entry, header):
            return
        costs.add_costs(self.fields, spent)
        blob = _encode(error)
        self._set(f"ux:{header.undoing}" if header.undoing else f"x:{key}", blob)
        if delay is not None and header.status is not RunStatus.FAILING:
            attempt = self.record(entry.seq, entry.index).attempt + 1
            self._defer(entry, delay, attempt=attempt)
            return
        if best_effort:
            self._forget_output(key)
            self._forget_progress(entry)
        elif not header.undoing:
            self._fail_run(blob)
        self._settle(entry.seq, entry.index, NodeStatus.FAILED)
        self._refill(entry.seq)

    def keep_progress(self, entry: Entry, progress: bytes) -> None:
        """Keep how far a node has come, for its next attempt."""
        if self._is_held(entry, self.header()):
            self._set(progress_field(entry), progress)

    def _forget_progress(self, entry: Entry) -> None:
        """Of a node that may fail, and did: the run goes on without it."""
        progress = self.fields.get(progress_field(entry))
        if progress is not None and not self.header().undoing:
            self._drop_progress(entry, pages_kept(progress))

    def _drop_progress(self, entry: Entry, pages: int) -> None:
        for name in [progress_field(entry), *page_fields(entry, pages)]:
            self.fields.pop(name, None)

    def turn_page(
        self, entry: Entry, number: int, page: bytes, progress: bytes, spent: str
    ) -> None:
        """Keep a page, and hand the node out again for the next one; its attempts begin anew."""
        header = self.header()
        if not self._is_held(entry, header):
            return
        costs.add_costs(self.fields, spent)
        if header.status is RunStatus.FAILING:
            self._settle(entry.seq, entry.index, NodeStatus.SKIPPED)
            return
        field = progress_field(entry)
        self._set(field, progress, f"{field}.{number}", page)
        record = self.record(entry.seq, entry.index)
        self._write(
            entry.seq, entry.index, record, status=NodeStatus.READY, process="", attempt=1,
            token=_next_token(record.token), begun=None, hold="",
        )  # fmt: skip
        self._hand_out(entry.seq, entry.index, header)

    def give_back(self, entry: Entry, delay: int, hold: str) -> None:
        """Hand a node back for later; no attempt is used up."""
        header = self.header()
        if not self._is_held(entry, header):
            return
        if header.status is RunStatus.FAILING:
            self._settle(entry.seq, entry.index, NodeStatus.SKIPPED)
        else:
            self._defer(entry, delay, hold=hold)

    def wake(self, seq: int, index: int) -> bool:
        """Hand a node out that waits for a place; whether it is to come."""
        header, record = self.header(), self.record(seq, index)
        is_over = header.status.is_terminal or header.seq != seq or record.status in SETTLED
        if is_over:
            return False
        if record.status is NodeStatus.WAITING and read_hold(record.hold).limit is not None:
            self._release(seq, index, header, record)
        return True

    # The common parts, as in lib_node.lua.

    def _is_held(self, entry: Entry, header: Header) -> bool:
        record = self.record(entry.seq, entry.index)
        is_claimed = record.status is NodeStatus.RUNNING and record.token == entry.token
        return is_claimed and header.seq == entry.seq and not header.status.is_terminal

    def _settle(
        self, seq: int, index: int, status: NodeStatus, arg: str = "", hold: str = ""
    ) -> None:
        record = self.record(seq, index)
        if record.status in SETTLED:
            raise ResoluteError(f"node {seq}.{index} of run {self.id!r} was settled twice")
        self._write(seq, index, record, status=status, ended=self._now(), hold=hold)
        header = self.header()
        self._set("pending", header.pending - 1)
        if header.pending == 1:
            is_running = header.status is RunStatus.RUNNING
            self._push(EventKind.SETTLED if is_running else EventKind.LOOK, header, arg)

    def _refill(self, seq: int) -> None:
        """A node of a windowed step was settled: the next one follows it."""
        window = self.fields.get("window") or b"0|0|0"
        of, most, width = map(int, window.split(b"|"))
        header = self.header()
        page = header.page
        if of != seq or header.status is not RunStatus.RUNNING or header.pending == 0:
            return
        if page >= width or page - (width - header.pending) >= most:
            return
        self.ready.append(Entry(self.id, header.plan, header.pc, seq, page, header.token))
        self._write(seq, page, self.record(seq, page))
        self._set("page", page + 1)

    def _defer(
        self, entry: Entry, delay: int, *, attempt: int | None = None, hold: str = ""
    ) -> None:
        record = self.record(entry.seq, entry.index)
        token = _next_token(record.token)
        due = self._now() + delay
        self._write(
            entry.seq, entry.index, record, status=NodeStatus.WAITING, token=token, process="",
            attempt=attempt or record.attempt, entry="", begun=None, hold=hold, ended=due,
        )  # fmt: skip
        self._add_timer(due, TimerKind.NODE, "", entry.seq, entry.index, token)

    def _add_timer(
        self,
        due: int,
        kind: TimerKind,
        step: str = "",
        seq: int = 0,
        index: int = 0,
        token: str = "",
    ) -> None:
        timer = Timer(due, self._number(), kind, step, seq, index, token)
        heapq.heappush(self._timers, timer)

    def _skip(self, seq: int, start: int, stop: int) -> None:
        for index in range(start, stop):
            record = self.record(seq, index)
            if record.status in UNCLAIMED and record.hold != CHILD:
                self._settle(seq, index, NodeStatus.SKIPPED)

    def _fail_run(self, error: bytes) -> None:
        header = self.header()
        if header.status is not RunStatus.RUNNING:
            return
        rev = next_rev(header.rev, self.nonce())
        self._set("status", RunStatus.FAILING, "rev", rev, "error", error)
        self._push(EventKind.LOOK, self.header())

    def _push(self, kind: EventKind, header: Header, arg: str = "") -> None:
        self.inbox.append(
            Event(
                kind, self.id, header.plan, header.pc, header.seq, header.rev, header.queue, arg
            )
        )  # fmt: skip

    def _write(self, seq: int, index: int, record: Record, **changes: object) -> None:
        changed = msgspec.structs.replace(record, **changes)
        self.fields[f"n:{seq}.{index}"] = runs.format_record(changed)

    def _set(self, *values: str | int | bytes) -> None:
        """What HSET does: names and values in turn."""
        for name, value in zip(values[::2], values[1::2], strict=True):
            self.fields[str(name)] = value if isinstance(value, bytes) else str(value).encode()

    def _number(self) -> int:
        self._count += 1
        return self._count


def _next_token(token: str) -> str:
    base, _, count = token.rpartition(".")
    return f"{base}.{int(count) + 1}"
