"""What a client does with runs, and how a run is read back from its hash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from resolute.errors import DamagedRun, ErrorInfo
from resolute.model.claims import IfRunning
from resolute.model.messages import RunState
from resolute.model.plan import Plan, Question
from resolute.status import NodeStatus, RunStatus
from resolute.store.keys import Partition
from resolute.store.nodes import code_of
from resolute.store.script import Item, KeyList, pack, pack_item
from resolute.store.store import Store
from resolute.store.transitions import deadline_timer

HEADER = (
    "status", "flow", "plan", "pc", "seq", "rev", "pending", "queue", "token", "page", "skip",
    "undos", "undoing", "cancel", "terminate", "prev", "started", "ended", "moved", "error",
    "retry_of", "due", "deadline", "overran",
    "width", "unique", "replaces", "repeat",
)  # fmt: skip

_TOKEN = re.compile(r"[0-9]+-[^.|]+\.[0-9]+")

MAX_SIGNALS = 10_000  # of one name, that a run keeps until they are taken

FRESH_LOOK_MS = 30_000  # for so long a look at the cursors of the schedules is good enough

_decode_error = msgspec.msgpack.Decoder(ErrorInfo).decode


class StartItem(Item):
    flow_key: int
    index_key: int
    id: str
    flow: str
    queue: str
    nonce: str
    tick: int
    looked: int
    delay: int
    at: int
    folder: str
    sum: str
    claim: Sequence[str | int]


class CancelItem(Item):
    flow_key: int
    flow: str
    terminate: int


class SignalItem(Item):
    flow_key: int
    flow: str
    name: str
    sender: str


class Seen(NamedTuple):
    """Which run has a unique key, and which waits for it, as somebody saw it; '' for none."""

    holder: str = ""
    waiting: str = ""


NOBODY = Seen()


@dataclass(frozen=True, slots=True)
class Claim:
    """A unique key that a run is to have; `if_running` says what becomes of who has it now.

    For `period_ms` after the start it is taken, too, whatever became of the run.
    """

    key: str
    if_running: IfRunning = "fail"
    period_ms: int = 0
    seen: Seen = NOBODY

    def terms(self, partition: Partition, keys: KeyList) -> Sequence[str | int]:
        """What `lib_claim.lua` takes."""

        def place(run_id: str) -> int:
            return keys.index(partition.flow(run_id)) if run_id else 0

        recent = keys.index(partition.recent(self.key)) if self.period_ms else 0
        holder, waiting = self.seen
        return (
            self.key, self.if_running, self.period_ms, recent, holder, place(holder), waiting,
            place(waiting),
        )  # fmt: skip


@dataclass(slots=True)
class Start:
    """A run to start; `tick` is the cron tick in ms that it is for (0: none).

    `looked` is when, in Redis's ms, the cursors of the schedules were read before that. It begins
    at once, or `delay` ms from now, or at `at` (Unix time in ms). Of an input in the storage there
    is the `folder`, and the SHA-1 of the value.
    """

    id: str
    flow: str
    queue: str
    input: bytes
    tick: int = 0
    looked: int = 0
    delay: int = 0
    at: int = 0
    folder: str = ""
    sum: str = ""
    claim: Claim | None = None


class Header(msgspec.Struct, frozen=True):
    """The header of a run's hash. Times are Redis's, in seconds of Unix time."""

    id: str
    flow: str
    status: RunStatus
    plan: str
    pc: int
    seq: int
    rev: str
    pending: int
    queue: str
    token: str
    page: int
    skip: int
    undos: int
    undoing: int
    cancelled: bool
    terminated: bool
    previous: int | None
    started: float
    ended: float | None
    moved: float
    error: ErrorInfo | None
    retry_of: str | None
    due: float | None  # when it is to begin, where that is later
    deadline: float | None
    overran: bool  # it did not end by then
    width: int  # of the last `each`
    unique: str = ""  # its unique key among the claims, '' for none
    replaces: str = ""  # the run that it has replaced, for whose end it has waited
    repeats: bool = False  # a retry that goes on with the head of a loop, at `pc`


async def start(
    store: Store, partition: Partition, starts: Sequence[Start], retention_ms: int
) -> list[str]:
    """Start runs of one partition; a code for each."""
    answers = await send_starts(store, partition, starts, retention_ms)
    return [code_of(answer) for answer in answers]


async def send_starts(
    store: Store, partition: Partition, starts: Sequence[Start], retention_ms: int
) -> Sequence[Sequence[Any]]:
    """Start runs of one partition; what the script answers for each."""
    keys = KeyList(
        partition.inbox, partition.open, partition.timers, partition.folders, partition.claims
    )
    arguments: list[bytes] = []
    for one in starts:
        item = StartItem(
            keys.index(partition.flow(one.id)),
            keys.index(partition.open_of(one.flow)),
            one.id,
            one.flow,
            one.queue,
            store.nonce(),
            one.tick,
            one.looked,
            one.delay,
            one.at,
            one.folder,
            one.sum,
            one.claim.terms(partition, keys) if one.claim is not None else (),
        )
        arguments += (pack_item(item), one.input)
    return await store.call("start_flow", keys.keys, pack(retention_ms, FRESH_LOOK_MS), arguments)


async def cancel(store: Store, flow_id: str, error: ErrorInfo, *, terminate: bool) -> str:
    """Cancel or terminate a run; OK, EXISTS (too late) or GONE."""
    partition = store.keys.of(flow_id)
    keys = KeyList(partition.inbox)
    item = CancelItem(keys.index(partition.flow(flow_id)), flow_id, int(terminate))
    arguments = (pack_item(item), msgspec.msgpack.encode(error))
    reply = await store.call("cancel_flow", keys.keys, pack(store.nonce()), arguments)
    return code_of(reply[0])


@dataclass(slots=True)
class Signal:
    """A signal to a run; `sender` is the sender's own id of it, `payload` is encoded."""

    flow: str
    name: str
    sender: str
    payload: bytes


async def signal(store: Store, partition: Partition, signals: Sequence[Signal]) -> list[str]:
    """Send signals to runs of one partition; OK, EXISTS (it has ended), GONE or FULL for each."""
    keys = KeyList(partition.inbox, partition.timers)
    arguments: list[bytes] = []
    for one in signals:
        key = keys.index(partition.flow(one.flow))
        arguments += (pack_item(SignalItem(key, one.flow, one.name, one.sender)), one.payload)
    reply = await store.call("signal_flow", keys.keys, pack(MAX_SIGNALS), arguments)
    return [code_of(answer) for answer in reply]


async def retry(
    store: Store,
    source: Header,
    target: str,
    drop: Sequence[str],
    fields: Sequence[str | int],
    deadline_ms: int = 0,
) -> str:
    """Copy an ended run to `target` and let it go on; OK, EXISTS, GONE or CONFLICT.

    It has `deadline_ms` from now, 0: as long as it takes. TAKEN: see `claims.retry`.
    """
    return code_of(await send_retry(store, source, target, drop, fields, deadline_ms, NOBODY))


async def send_retry(
    store: Store,
    source: Header,
    target: str,
    drop: Sequence[str],
    fields: Sequence[str | int],
    deadline_ms: int,
    seen: Seen,
) -> Sequence[Any]:
    """What the script answers; `seen` is who has the unique key of the source."""
    partition = store.keys.of(source.id)
    keys = KeyList(
        partition.inbox,
        partition.open,
        partition.flow(source.id),
        partition.flow(target),
        partition.open_of(source.flow),
        partition.folders,
        partition.folders_due,
        partition.timers,
        partition.claims,
    )
    timer = deadline_timer(target)
    terms = Claim(source.unique, seen=seen).terms(partition, keys) if source.unique else ()
    common = pack(source.id, target, store.nonce(), drop, fields, deadline_ms, timer, terms)
    return await store.call("retry_flow", keys.keys, common)


async def read_header(store: Store, flow_id: str) -> Header | None:
    """The header of a run, None where there is no such run. Raises DamagedRun."""
    header = (await read_headers(store, [flow_id]))[0]
    if isinstance(header, DamagedRun):
        raise header
    return header


async def read_headers(store: Store, ids: Sequence[str]) -> list[Header | DamagedRun | None]:
    """The headers of runs, in one round trip; what cannot be read is told in its place."""
    commands = [("HMGET", store.keys.of(i).flow(i), *HEADER) for i in ids]
    replies = await store.execute_all(commands)
    return [_header_or_damage(i, reply) for i, reply in zip(ids, replies, strict=True)]


def _header_or_damage(flow_id: str, values: Sequence[bytes | None]) -> Header | DamagedRun | None:
    try:
        return parse_header(flow_id, values)
    except ValueError as error:
        return DamagedRun(flow_id, str(error))


def parse_header(flow_id: str, values: Sequence[bytes | None]) -> Header | None:
    """A header from the values of HEADER. Raises ValueError where one cannot be read."""
    if values[0] is None:
        return None
    h = dict(zip(HEADER, values, strict=True))
    return Header(
        id=flow_id,
        flow=_text(h["flow"]),
        status=RunStatus(_text(h["status"])),
        plan=_text(h["plan"]),
        pc=_number(h["pc"]),
        seq=_number(h["seq"]),
        rev=_text(h["rev"]),
        pending=_number(h["pending"]),
        queue=_text(h["queue"]),
        token=_token(_text(h["token"])),
        page=_number(h["page"]),
        skip=_number(h["skip"]),
        undos=_number(h["undos"]),
        undoing=_number(h["undoing"]),
        cancelled=h["cancel"] is not None,
        terminated=h["terminate"] is not None,
        previous=_number(h["prev"]) if h["prev"] is not None else None,
        started=_number(h["started"]) / 1000,
        ended=_number(h["ended"]) / 1000 if h["ended"] is not None else None,
        moved=_number(h["moved"]) / 1000,
        error=_error(h["error"]),
        retry_of=_text(h["retry_of"]) or None,
        due=_number(h["due"]) / 1000 if h["due"] is not None else None,
        deadline=_number(h["deadline"]) / 1000 if h["deadline"] is not None else None,
        overran=h["overran"] is not None,
        width=_number(h["width"]),
        unique=_text(h["unique"]),
        replaces=_text(h["replaces"]),
        repeats=_text(h["repeat"]) == "1",
    )


async def load_state(store: Store, header: Header, plan: Plan) -> RunState:
    """The run as the state machine sees it, with the answer of a settled question."""
    fields = state_fields(header, plan)
    key = store.keys.of(header.id).flow(header.id)
    return state_of(header, await store.execute("HMGET", key, *fields))


def state_fields(header: Header, plan: Plan) -> tuple[str, str, str]:
    """The fields that are needed beside the header: the next undo, the current one, an answer."""
    undo = header.undoing - 1 if header.status is RunStatus.COMPENSATING else header.undos
    instruction = plan.instructions[header.pc] if header.seq else None
    key = instruction.nodes[0].key if isinstance(instruction, Question) else ""
    return f"u:{undo}", f"u:{header.undoing}", f"o:{key}"


def state_of(header: Header, values: Sequence[bytes | None]) -> RunState:
    """The run as the state machine sees it, from its header and the values of `state_fields`."""
    undo_at, undoing, answer = values
    return RunState(
        flow=header.id,
        plan=header.plan,
        pc=header.pc,
        seq=header.seq,
        rev=header.rev,
        pending=header.pending,
        status=header.status,
        queue=header.queue,
        token=header.token,
        page=header.page,
        skip=header.skip,
        undos=header.undos,
        undoing=header.undoing,
        undo_at=parse_undo(undo_at) if undo_at else (0, 0),
        undoing_index=parse_undo(undoing)[1] if undoing else 0,
        cancelled=header.cancelled,
        terminated=header.terminated,
        answer=_answer(answer) if answer else "",
        width=header.width,
        repeats=header.repeats,
    )


def _answer(output: bytes) -> str:
    """The answer to a question, as its event has it. Raises ValueError for what is none."""
    said = msgspec.msgpack.decode(output, type=str | int | bool)
    return said if isinstance(said, str) else str(int(said))


def at_work(run: RunState, plan: Plan) -> tuple[int, int]:
    """Which of the nodes of the run's step can run: from the first to before the second.

    Of compensations it is one at a time, at the node's own index: the width may be of another.
    """
    if run.undoing:
        return run.undoing_index, run.undoing_index + 1
    return 0, plan.width(run.pc, run.width)


def parse_undo(value: bytes) -> tuple[int, int]:
    """(pc, index) of the node that an undo field is for."""
    pc, index, _ = value.split(b"|")
    return int(pc), int(index)


def _text(value: bytes | None) -> str:
    return str(value or b"", "utf-8")


def _token(text: str) -> str:
    """A token, or '' before the first step. Raises ValueError where a script could not count it."""
    if text and not _TOKEN.fullmatch(text):
        raise ValueError(f"a token is <rev>.<count>, got {text!r}")
    return text


def _number(value: bytes | None) -> int:
    return int(value or 0)


def _error(value: bytes | None) -> ErrorInfo | None:
    return _decode_error(value) if value else None


def decode_error(value: Any) -> ErrorInfo | None:
    """An error field of the hash; a damaged one is shown as what it is."""
    try:
        return _error(value)
    except ValueError:
        return ErrorInfo("Damaged", repr(value)[:200])


class Record(msgspec.Struct, frozen=True):
    """A node's record as the hash has it; times in ms, `ended` is the due time while waiting."""

    status: NodeStatus
    token: str
    attempt: int
    crashes: int
    process: str
    queue: str
    entry: str
    begun: int | None
    ended: int | None
    hold: str


def read_record(value: bytes | None) -> Record | None:
    """A record from its field; None where there is none, or none that can be read."""
    try:
        return parse_record(value) if value else None
    except ValueError:
        return None


def format_record(record: Record) -> bytes:
    """The field of a record: what `parse_record` reads."""
    r = record
    parts = (
        r.status, r.token, r.process, r.attempt, r.crashes, r.queue, r.entry, r.begun, r.hold,
        r.ended,
    )  # fmt: skip
    return "|".join("" if part is None else str(part) for part in parts).encode()


def parse_record(value: bytes) -> Record:
    """A record from its field. Raises ValueError for a damaged one."""
    parts = str(value, "utf-8").split("|")
    if len(parts) != 10:
        raise ValueError(f"a node record has 10 parts, got {len(parts)}")
    status, token, process, attempt, crashes, queue, entry, begun, hold, ended = parts
    return Record(
        status=NodeStatus(status),
        token=_token(token),
        attempt=int(attempt),
        crashes=int(crashes),
        process=process,
        queue=queue,
        entry=entry,
        begun=int(begun) if begun else None,
        ended=int(ended) if ended else None,
        hold=hold,
    )
