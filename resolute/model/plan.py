"""The plan: a flow as data. The coordinator knows flows by their plans alone."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import msgspec

from resolute.errors import ResoluteError
from resolute.priority import lane_within

FORMAT = 1


class RetryPlan(msgspec.Struct, frozen=True, array_like=True):
    """RetryPolicy on the wire: milliseconds, and the names of the final exceptions."""

    initial_ms: int = 1000
    coefficient: float = 2.0
    maximum_ms: int = 60_000
    max_attempts: int = 3
    jitter: float = 0.1
    non_retryable: tuple[str, ...] = ()


class LimitPlan(msgspec.Struct, frozen=True, array_like=True):
    """A token bucket: `burst` tokens, one more each `interval_us` microseconds."""

    bucket: str
    interval_us: int
    burst: int
    keyed: bool = False


class NodePlan(msgspec.Struct, frozen=True, array_like=True):
    """A node as the engine needs it. `queue` is empty where it is the run's own."""

    name: str
    key: str
    queue: str = ""
    timeout_ms: int = 300_000
    retry: RetryPlan = RetryPlan()
    limits: tuple[LimitPlan, ...] = ()
    compensation: NodePlan | None = None
    best_effort: bool = False
    heartbeat_ms: int = 0  # within which it must give a sign of life; 0: it need not


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run"):
    """Run the nodes of a step in parallel; go on when all are settled."""

    step: str
    nodes: tuple[NodePlan, ...]
    parallel: bool = False


class Branch(msgspec.Struct, frozen=True, array_like=True, tag="branch"):
    """Run a predicate; go on at the next instruction if it is true, else at `otherwise`."""

    nodes: tuple[NodePlan, ...]
    otherwise: int

    @property
    def step(self) -> str:
        return self.nodes[0].name


class Items(msgspec.Struct, frozen=True, array_like=True, tag="items"):
    """Ask a node for the items of the `each` or the `children` that come next."""

    nodes: tuple[NodePlan, ...]

    @property
    def step(self) -> str:
        return self.nodes[0].name


class Each(msgspec.Struct, frozen=True, array_like=True, tag="each"):
    """Run `nodes[0]` for each item, `window` of them at a time (0: all); the width is the run's."""

    step: str
    nodes: tuple[NodePlan, ...]
    window: int = 0


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag="prepare"):
    """Make the inputs of the named nodes of the step that comes next, as outputs.

    Who runs those nodes has the plan, but not the code that makes their inputs.
    """

    step: str
    nodes: tuple[NodePlan, ...]


class Children(msgspec.Struct, frozen=True, array_like=True, tag="children"):
    """Start a run of `flow` for each item and wait for all; `window` of them at a time (0: all).

    `nodes[0]` stands for each of them: it waits until its run has ended. `queue` is empty where
    it is that of the parent. In a loop the step comes by again, and ids say which time it was.
    """

    step: str
    nodes: tuple[NodePlan, ...]
    flow: str
    queue: str = ""
    window: int = 0
    in_loop: bool = False

    def child_id(self, parent: str, seq: int, index: int | str) -> str:
        """The id of one of the runs that the step number `seq` of `parent` starts; '' for the index
        gives what all of them begin with.
        """
        turn = f"@{seq}" if self.in_loop else ""
        return f"{parent}/{self.step}{turn}.{index}"


class Aside(msgspec.Struct, frozen=True, array_like=True, tag="save"):
    """Run nodes of ours that no step hears of: the next step's default input stays.

    They save cursors from the outputs of the step before, or tell the flow's hooks.
    """

    step: str
    nodes: tuple[NodePlan, ...]


class Loop(msgspec.Struct, frozen=True, array_like=True, tag="loop"):
    """The head of a loop: a branch that is come by before each turn.

    `otherwise` is behind the loop, whose body ends with a jump to here; `most` are the turns that
    there may be.
    """

    nodes: tuple[NodePlan, ...]
    otherwise: int
    most: int

    @property
    def step(self) -> str:
        return self.nodes[0].name


class Gate(msgspec.Struct, frozen=True, array_like=True, tag="gate"):
    """Wait for a signal, `timeout_ms` at most (0: for ever). No worker is asked.

    The signal's payload is the output of the step, which `nodes[0]` names.
    """

    nodes: tuple[NodePlan, ...]
    signal: str
    timeout_ms: int = 0

    @property
    def step(self) -> str:
        return self.nodes[0].name


class Moment(msgspec.Struct, frozen=True, array_like=True, tag="moment"):
    """Ask a node until when the `sleep` that comes next is to last."""

    nodes: tuple[NodePlan, ...]

    @property
    def step(self) -> str:
        return self.nodes[0].name


class Sleep(msgspec.Struct, frozen=True, array_like=True, tag="sleep"):
    """Wait for `ms`, or until the moment that the instruction before told (ms is 0)."""

    nodes: tuple[NodePlan, ...]
    ms: int = 0

    @property
    def step(self) -> str:
        return self.nodes[0].name


class Jump(msgspec.Struct, frozen=True, array_like=True, tag="jump"):
    """Go on at `to`."""

    to: int


class End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    """The run is completed."""


Question = Branch | Loop | Moment | Items  # the node's answer goes to the coordinator
Wait = Gate | Sleep  # settled by a signal or a timer; no worker is asked
Wide = Each | Children  # as wide as the list that the `items` before it told
# What is dispatched and has nodes.
Step = Run | Branch | Loop | Moment | Items | Wide | Prepare | Aside | Wait
Producer = Run | Wide | Gate  # steps that have an output
Instruction = Step | Jump | End


class SchedulePlan(msgspec.Struct, frozen=True, array_like=True):
    """A cron trigger with the encoded input of the runs it starts."""

    cron: str
    timezone: str
    input: bytes


class NamedPlan(msgspec.Struct, frozen=True, array_like=True):
    """That the node at (pc, index), or with `undo` its compensation, is run by whoever offers it.

    `prepared`: its input was made by the step before; else it is the default one. `returns` is the
    JSON schema of what the flow expects of it.
    """

    pc: int
    index: int
    undo: bool = False
    prepared: bool = False
    returns: dict[str, Any] = {}


class PlacesPlan(msgspec.Struct, frozen=True, array_like=True):
    """A concurrency limit: `n` places, for each key if it is `keyed`."""

    name: str
    n: int
    keyed: bool = False


class ConcurrencyPlan(msgspec.Struct, frozen=True, array_like=True):
    """The concurrency limits of the node at (pc, index), or with `undo` of its compensation."""

    pc: int
    index: int
    undo: bool
    limits: tuple[PlacesPlan, ...]


class PriorityPlan(msgspec.Struct, frozen=True, array_like=True):
    """The priority of the node at (pc, index), or with `undo` of its compensation.

    At a step that starts runs it is that of those runs.
    """

    pc: int
    index: int
    undo: bool
    priority: str


Note = TypeVar("Note", NamedPlan, ConcurrencyPlan, PriorityPlan)


class WebhookPlan(msgspec.Struct, frozen=True, array_like=True):
    """A webhook trigger; `secret_from` is the variable that has the key, '' for none."""

    path: str
    secret_from: str = ""


class StartPlan(msgspec.Struct, frozen=True, array_like=True):
    """How a trigger starts runs, where not as any: with a unique key, or debounced (`wait_ms`).

    `trigger` is as in `trigger_priorities`. The key is the text `key`, or that at `path` of the
    input.
    """

    trigger: str
    key: str = ""
    path: str | None = None
    if_running: str = ""
    period_ms: int = 0
    wait_ms: int = 0
    most_ms: int = 0


class RetentionPlan(msgspec.Struct, frozen=True, array_like=True):
    """How long ended runs are kept: for `after_ms`, and no more than `keep_last` of them.

    None is what the coordinators do with every flow: their time, and however many.
    """

    after_ms: int | None = None
    keep_last: int | None = None


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """A flat list of instructions and what a client must know to start and read a run.

    What comes after `format` is left off on the wire where it is not set, so that the hashes of
    plans without it stay what they were.
    """

    flow: str
    instructions: tuple[Instruction, ...]
    queue: str = ""
    schedules: tuple[SchedulePlan, ...] = ()
    input_schema: dict[str, Any] = {}
    result_schema: dict[str, Any] = {}
    format: int = FORMAT
    retention: RetentionPlan | None = None
    deadline_ms: int = 0
    signals: dict[str, dict[str, Any]] = {}  # those declared, with the schema of their payload
    webhooks: tuple[WebhookPlan, ...] = ()
    started_by: tuple[str, ...] = ()  # the signals that start it
    queries: tuple[str, ...] = ()
    named: tuple[NamedPlan, ...] = ()
    concurrency: tuple[ConcurrencyPlan, ...] = ()
    kept: tuple[tuple[int, int], ...] = ()  # where nodes are whose outputs all go to the storage
    priorities: tuple[PriorityPlan, ...] = ()  # of those nodes that say one
    trigger_priorities: dict[str, str] = {}  # of those triggers that say one; see `trigger_key`
    starts: tuple[StartPlan, ...] = ()
    max_payload: int = 0  # bytes of a value in Redis; 0: the default

    def encode(self) -> bytes:
        values = list(msgspec.structs.astuple(self))
        while len(values) > _BEFORE_OPTIONS and not values[-1]:
            values.pop()
        return _encoder.encode(values)

    @property
    def hash(self) -> str:
        """The content hash: 80 bits of SHA-256, in hexadecimal."""
        return hashlib.sha256(self.encode()).hexdigest()[:20]

    def step(self, pc: int) -> Step:
        """The instruction at `pc`, which must be one that is dispatched."""
        instruction = self.instructions[pc]
        if isinstance(instruction, Jump | End):
            raise ResoluteError(f"flow {self.flow!r}: instruction {pc} runs no nodes")
        return instruction

    def node(self, pc: int, index: int) -> NodePlan:
        """The node that runs at (pc, index)."""
        step = self.step(pc)
        return step.nodes[0] if isinstance(step, Wide) else step.nodes[index]

    def key(self, pc: int, index: int) -> str:
        """The output key of the node that runs at (pc, index): of an item it has its number."""
        step = self.step(pc)
        return (
            item_key(step.nodes[0].key, index) if isinstance(step, Wide) else step.nodes[index].key
        )

    def named_at(self, pc: int, index: int, *, undo: bool = False) -> NamedPlan | None:
        """What the plan says of the node at (pc, index) if that is run by name; else None."""
        return self._noted(self.named, pc, index, undo=undo)

    def places_at(self, pc: int, index: int, *, undo: bool = False) -> tuple[PlacesPlan, ...]:
        """The concurrency limits of the node at (pc, index), or of its compensation."""
        found = self._noted(self.concurrency, pc, index, undo=undo)
        return found.limits if found is not None else ()

    def lane_at(self, pc: int, index: int, run_lane: str, *, undo: bool = False) -> str:
        """The lane of the node at (pc, index), or of its compensation, or of a run started there.

        `run_lane` is the lane of the run. What the step does not say is the run's.
        """
        step = self.step(pc)
        if isinstance(step, Children):
            queue = step.queue
        else:
            node = self.node(pc, index)
            queue = (node.compensation or node).queue if undo else node.queue
        if not queue and not self.priorities:
            return run_lane
        found = self._noted(self.priorities, pc, index, undo=undo)
        return lane_within(run_lane, queue, found.priority if found is not None else "")

    def _noted(self, notes: tuple[Note, ...], pc: int, index: int, *, undo: bool) -> Note | None:
        """Of `notes` the one on the node at (pc, index); that of an item is on all of them."""
        at = 0 if isinstance(self.instructions[pc], Wide) else index
        return next((one for one in notes if (one.pc, one.index, one.undo) == (pc, at, undo)), None)

    def width(self, pc: int, items: int) -> int:
        """How many nodes the step at `pc` has; `items` is that of a wide one."""
        step = self.step(pc)
        return items if isinstance(step, Wide) else len(step.nodes)

    def loop_around(self, pc: int) -> int | None:
        """Where the head of the innermost loop is in whose body `pc` is; None outside of all."""
        heads = [
            at
            for at, one in enumerate(self.instructions)
            if isinstance(one, Loop) and at < pc < one.otherwise
        ]
        return max(heads, default=None)

    def drained(self) -> list[str]:
        """The signals that the turns of loops take: those that no gate waits for."""
        gates = {one.signal for one in self.instructions if isinstance(one, Gate)}
        return [name for name in self.signals if name not in gates]

    def predecessors(self, pc: int) -> list[int]:
        """The steps whose output can be the last one before `pc`; empty: none, the input."""
        return _predecessors(self, pc)


def trigger_key(kind: str, name: str | int) -> str:
    """How a trigger is called in `Plan.trigger_priorities`: a schedule by its number."""
    return f"{kind} {name}"


def item_key(key: str, index: int) -> str:
    """The output key of one item of a wide step; no name has brackets."""
    return f"{key}[{index}]"


def prepared_key(key: str) -> str:
    """Under which output key the input of a named node is made; no name has brackets."""
    return f"[{key}]"


_BEFORE_OPTIONS = Plan.__struct_fields__.index("format") + 1
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Plan)


def decode_plan(data: bytes) -> Plan:
    """Raises msgspec.ValidationError for what is no plan of this format."""
    return _decoder.decode(data)


def _predecessors(plan: Plan, pc: int) -> list[int]:
    found: set[int] = set()
    seen: set[int] = set()
    sources: dict[int, list[int]] = {}
    for at, instruction in enumerate(plan.instructions):
        match instruction:
            case Jump(to=to):
                sources.setdefault(to, []).append(at)
            case Branch(otherwise=otherwise) | Loop(otherwise=otherwise):
                sources.setdefault(otherwise, []).append(at)
                sources.setdefault(at + 1, []).append(at)
            case End():
                pass
            case _:
                sources.setdefault(at + 1, []).append(at)
    todo = [pc]
    while todo:
        for before in sources.get(todo.pop(), ()):
            if before in seen:
                continue
            seen.add(before)
            if isinstance(plan.instructions[before], Producer):
                found.add(before)
            else:
                todo.append(before)
    return sorted(found)
