"""What happened in a run, read from its hash: every node instance with its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resolute.errors import ErrorInfo
from resolute.model.messages import NodeRecord
from resolute.model.plan import Children, Loop, NodePlan, Plan, Wait
from resolute.priority import priority_of, without_priority
from resolute.status import NodeStatus
from resolute.store import runs
from resolute.store.runs import Header
from resolute.store.store import Store

CHUNK = 1000
HISTORY = ("n:", "s:", "w:", "x:", "u:", "ux:")  # the prefixes of the fields that tell a history


class StepEntry:
    """A dispatched step: ``s:<seq>`` is pc|undo|time in ms."""

    __slots__ = ("at", "pc", "seq", "undo")

    def __init__(self, seq: int, value: bytes) -> None:
        pc, undo, at = value.split(b"|")
        self.seq, self.pc, self.undo, self.at = seq, int(pc), int(undo), int(at) / 1000


async def read_fields(store: Store, flow_id: str, *prefixes: str) -> dict[str, bytes]:
    """The fields of a run's hash whose name begins so."""
    key = store.keys.of(flow_id).flow(flow_id)
    names = [str(name, "utf-8") for name in await store.execute("HKEYS", key)]
    wanted = [name for name in names if name.startswith(prefixes)]
    found: dict[str, bytes] = {}
    for at in range(0, len(wanted), CHUNK):
        batch = wanted[at : at + CHUNK]
        values = await store.execute("HMGET", key, *batch)
        found.update({n: v for n, v in zip(batch, values, strict=True) if v is not None})
    return found


def steps_of(fields: Mapping[str, bytes]) -> list[StepEntry]:
    """The dispatched steps in order."""
    steps = [StepEntry(int(n[2:]), v) for n, v in fields.items() if n.startswith("s:")]
    return sorted(steps, key=lambda step: step.seq)


async def read_children(store: Store, header: Header, plan: Plan, step: str = "") -> list[str]:
    """The ids of the runs that a run started, in order; those of one `step`, if it is named."""
    fields = await read_fields(store, header.id, "s:", "w:", "n:")
    found: list[str] = []
    for entry in steps_of(fields):
        children = plan.instructions[entry.pc]
        if not isinstance(children, Children) or step not in ("", children.step):
            continue
        width = plan.width(entry.pc, int(fields.get(f"w:{entry.seq}", 0)))
        for index in range(width):
            record = runs.read_record(fields.get(f"n:{entry.seq}.{index}"))
            if record is not None and record.begun is not None:
                found.append(children.child_id(header.id, entry.seq, index))
    return found


async def read_history(store: Store, header: Header, plan: Plan) -> list[NodeRecord]:
    """Every node instance of a run, in order of dispatch."""
    return history_of(plan, await read_fields(store, header.id, *HISTORY))


def history_of(plan: Plan, fields: Mapping[str, bytes]) -> list[NodeRecord]:
    """Every node instance of a run, in order of dispatch, from the fields of its hash."""
    history: list[NodeRecord] = []
    for step in steps_of(fields):
        indices: Sequence[int] = range(plan.width(step.pc, int(fields.get(f"w:{step.seq}", 0))))
        if step.undo:
            indices = [runs.parse_undo(fields[f"u:{step.undo}"])[1]]
        waits = isinstance(plan.instructions[step.pc], Wait | Children)
        for index in indices:
            node = plan.node(step.pc, index)
            key = plan.key(step.pc, index)
            undone = ""
            if step.undo and node.compensation is not None:
                node, undone = node.compensation, node.name
            raw = fields.get(f"n:{step.seq}.{index}")
            error = runs.decode_error(fields.get(f"ux:{step.undo}" if step.undo else f"x:{key}"))
            if not step.undo and not _is_own(error, plan, step.pc, node.name, key, raw):
                error = None
            name = plan.step(step.pc).step
            record = _record(step, index, node, name, raw, error, undone, is_served=not waits)
            history.append(record)
    return history


def _is_own(
    error: ErrorInfo | None, plan: Plan, pc: int, name: str, key: str, raw: bytes | None
) -> bool:
    """Whether the last error under `key` is that of the node `name` with this record.

    The nodes of a loop that make its state have one key, and those in it come by in every turn.
    """
    if error is None or raw is None or error.node not in ("", key, name):
        return False
    if not isinstance(plan.instructions[pc], Loop) and plan.loop_around(pc) is None:
        return True
    record = runs.parse_record(raw)
    return record.status is NodeStatus.FAILED or record.attempt > 1


def _record(
    step: StepEntry,
    index: int,
    node: NodePlan,
    name: str,
    raw: bytes | None,
    error: ErrorInfo | None,
    undone: str,
    *,
    is_served: bool,
) -> NodeRecord:
    if raw is None:
        return NodeRecord(
            step.seq, index, node.name, name, NodeStatus.READY, 0, dispatched=step.at,
            compensates=undone,
        )  # fmt: skip
    record = runs.parse_record(raw)
    waits = record.status is NodeStatus.WAITING
    untried = record.status in (NodeStatus.READY, NodeStatus.WAITING, NodeStatus.SKIPPED)
    queue = record.queue if is_served else ""  # a gate's record has its name there
    end = record.ended / 1000 if record.ended is not None else None
    return NodeRecord(
        seq=step.seq,
        index=index,
        name=node.name,
        step=name,
        status=record.status,
        attempts=record.attempt - 1 if untried else record.attempt,
        crashes=record.crashes,
        process=record.process,
        queue=without_priority(queue),
        begun=record.begun / 1000 if record.begun is not None else None,
        ended=None if waits else end,
        due=end if waits else None,
        dispatched=step.at,
        error=error,
        compensates=undone,
        priority=priority_of(queue),
    )
