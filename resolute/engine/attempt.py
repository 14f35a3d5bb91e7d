"""One attempt of a node: its input, its call, what came out. No Redis in here.

A bound node is prepared once (`Bound`), so that an attempt only walks through it: which fields to
read, how to decode them, what to call, how to encode what it returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from resolute.durations import milliseconds
from resolute.engine.serving import with_limits_of
from resolute.errors import (
    ErrorInfo,
    MissingOutput,
    StorageUnavailable,
    StoreUnavailable,
    TerminalError,
    UnknownSignal,
)
from resolute.model import codec
from resolute.model.flow import (
    Binding,
    Flow,
    Lister,
    Notice,
    Predicate,
    Question,
    Saver,
    Until,
    compensation_of,
)
from resolute.model.messages import Entry
from resolute.model.node_plans import places_plans
from resolute.model.nodes import PREVIOUS, Node
from resolute.model.paging import Pager
from resolute.model.plan import (
    Children,
    Loop,
    NamedPlan,
    NodePlan,
    PlacesPlan,
    Plan,
    Producer,
    Run,
    Wide,
    item_key,
    prepared_key,
)
from resolute.model.policies import Limit
from resolute.model.references import is_stub, stub_around
from resolute.model.schemas import problem_of
from resolute.model.state import (
    CHILDREN,
    COUNT,
    CURSOR,
    FIELD,
    NIL,
    ONE,
    SIGNAL,
    SIGNALS,
    TURN,
    FlowState,
    Outputs,
    whole,
)

_decode_undo = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode


class OutputsAway(StoreUnavailable):
    """What a node's input needs cannot be read now: that is not the node's failure."""


# The node is handed back, and no attempt is used up.
AWAY = (OutputsAway, StorageUnavailable)


class Source(StrEnum):
    """The kinds of input."""

    NOTHING = "nothing"
    VALUE = "value"
    PREVIOUS = "previous"
    FUNCTION = "function"
    STATE = "state"
    UNDO = "undo"
    ITEM = "item"
    PREPARED = "prepared"


@dataclass(frozen=True, eq=False)
class Bound:
    """A node of a plan with the user's function, ready to be attempted many times."""

    flow: Flow[Any, Any]
    pc: int
    index: int
    plan: NodePlan
    binding: Binding
    undo: bool = False
    named: NamedPlan | None = None  # what the plan says of a node that is run by name
    added: tuple[Limit, ...] = ()  # limits of the served node, behind those of the flow
    learned: set[str] = field(default_factory=set[str])  # output keys its input function reads

    @classmethod
    def of(
        cls,
        flow: Flow[Any, Any],
        pc: int,
        index: int,
        *,
        undo: bool = False,
        served: Node[Any, Any] | None = None,
    ) -> Bound:
        """The node at (pc, index) of a flow, or its compensation.

        One that is run by name is the node `served` here under that name.
        """
        named = flow.plan.named_at(pc, index, undo=undo)
        plan = flow.plan.node(pc, index)
        if named is not None and served is not None:
            asked = plan.compensation if undo else plan
            if asked is None:
                raise LookupError(f"node {plan.name!r} has no compensation")
            plan, added = with_limits_of(served, asked)
            return cls(flow, pc, index, plan, served, undo, named, added)
        binding = flow.bindings[flow.place(pc, index)]
        if not undo:
            return cls(flow, pc, index, plan, binding, named=named)
        compensation = compensation_of(binding)
        if plan.compensation is None or compensation is None:
            raise LookupError(f"node {plan.name!r} has no compensation")
        return cls(flow, pc, index, plan.compensation, compensation, undo=True, named=named)

    @cached_property
    def source(self) -> Source:
        """Where the input of the node comes from."""
        if isinstance(self.binding, Notice):
            return Source.NOTHING
        if self.undo:
            return Source.UNDO
        if self.is_item and self.takes_input:
            return Source.ITEM
        if isinstance(self.binding, Lister) and self.binding.fn is None:
            return Source.PREVIOUS
        if isinstance(self.binding, Question):
            return Source.STATE
        if not self.takes_input:
            return Source.NOTHING
        if self.named is not None:
            return Source.PREPARED if self.named.prepared else Source.PREVIOUS
        if self.binding.input is PREVIOUS:
            return Source.PREVIOUS
        return Source.FUNCTION if callable(self.binding.input) else Source.VALUE

    @cached_property
    def decode(self) -> Callable[[bytes], Any]:
        """From the encoded input to the value the function takes."""
        return codec.decoder(
            self.binding.input_type if isinstance(self.binding, Node) else list[Any]
        )

    @cached_property
    def previous(self) -> Previous:
        return Previous.of(self.flow.plan, self.pc)

    @cached_property
    def check_output(self) -> Callable[[bytes], Any] | None:
        """Decodes an output to its declared type; None where it declares none."""
        if not isinstance(self.binding, Node) or self.binding.output_type is Any:
            return None
        return codec.decoder(self.binding.output_type)

    @cached_property
    def compensation(self) -> NodePlan | None:
        return None if self.undo else self.plan.compensation

    @cached_property
    def undone(self) -> NodePlan:
        """The node that a compensation undoes."""
        return self.flow.plan.node(self.pc, self.index)

    @cached_property
    def is_item(self) -> bool:
        """Whether it runs once for each item of a list."""
        return isinstance(self.flow.plan.step(self.pc), Wide) and not self.undo

    def is_kept(self, output: bytes) -> bool:
        """Whether an encoded output goes to the storage."""
        if len(output) > self.flow.max_payload:
            return True
        return not self.undo and (self.pc, self.index) in self.flow.plan.kept

    def key(self, entry: Entry) -> str:
        """The output key of one hand-out of it."""
        return item_key(self.plan.key, entry.index) if self.is_item else self.plan.key

    @cached_property
    def is_threaded(self) -> bool:
        return isinstance(self.binding, Node) and not self.binding.is_async

    @property
    def input(self) -> Any:
        """What was given to `with_input`."""
        return self.binding.input if isinstance(self.binding, Node) else PREVIOUS

    @property
    def takes_input(self) -> bool:
        if isinstance(self.binding, Node):
            return self.binding.takes_input
        return isinstance(self.binding, Question)

    @cached_property
    def call(self) -> Callable[[Any], Any]:
        """The user's function, called with the input; what takes none is called without."""
        if isinstance(self.binding, Notice):
            raise LookupError(f"node {self.plan.name!r} has no function: it tells the hooks")
        fn: Callable[..., Any] = self.binding.fn or _itself
        if self.takes_input:
            return fn
        return lambda _: fn()

    @cached_property
    def limit_keys(self) -> tuple[Callable[[Any], str] | None, ...]:
        """For each limit of the plan, what splits its bucket by the input."""
        if not isinstance(self.binding, Node):
            return ()
        if self.named is not None:  # those of the flow come first, and split nothing
            own = [limit.key for limit in self.added]
            return (*[None] * (len(self.plan.limits) - len(own)), *own)
        return tuple(limit.key for limit in self.binding.limits)

    @cached_property
    def places(self) -> tuple[tuple[PlacesPlan, Callable[[Any], str] | None], ...]:
        """Its concurrency limits, each with what splits it by the input.

        What limits a served node holds beside what the flow asks for; who names it has no key.
        """
        node = self.binding
        if not isinstance(node, Node):
            return ()
        own = self.flow.plan.places_at(self.pc, self.index, undo=self.undo)
        if self.named is None:
            return tuple(zip(own, (limit.key for limit in node.concurrency_limits), strict=True))
        known = {limit.name for limit in own}
        served = () if node.is_named else node.concurrency_limits
        pairs = zip(places_plans(node), served, strict=False)
        added = [(plan, limit.key) for plan, limit in pairs if plan.name not in known]
        return (*((limit, None) for limit in own), *added)

    @property
    def is_limited(self) -> bool:
        """Whether something else than a slot must be free before it starts."""
        return bool(self.plan.limits or self.places)

    @cached_property
    def asides(self) -> dict[str, int]:
        """The hash fields that say how an attempt goes, by their place behind the other `fields`.

        The run's folder in the storage, where an input is read as it is asked for; how many
        compensations there are, where a loop may bring many; when the run began, where a cursor is
        saved; why it fails, where the hooks are told of its end.
        """
        names: list[str] = []
        match self.source:
            case Source.FUNCTION | Source.STATE:
                names.append(FOLDER)
            case Source.PREVIOUS if self.previous.has_lists:
                names.append(FOLDER)
            case Source.UNDO if self.flow.plan.named_at(self.pc, self.index) is not None:
                names.append(FOLDER)  # what it is made of the state is made only now: UNDO_OPEN
            case _:
                pass
        if self.compensation is not None and self._is_in_loop:
            names.append(UNDOS)
        if isinstance(self.binding, Saver):
            names.append(STARTED)
        if isinstance(self.binding, Notice) and self.undo:
            names += [ERROR, CANCEL]
        return {name: at - len(names) for at, name in enumerate(names)}

    @cached_property
    def _is_in_loop(self) -> bool:
        heads = enumerate(self.flow.plan.instructions)
        return any(isinstance(one, Loop) and at < self.pc < one.otherwise for at, one in heads)

    def aside(self, name: str, values: Sequence[bytes | None]) -> bytes | None:
        """One of `asides` from the values of `fields`; None where it is not read or not there."""
        at = self.asides.get(name)
        return None if at is None else values[at]

    @cached_property
    def pager(self) -> Pager | None:
        """Its function, where that fetches page by page."""
        fn = self.binding.fn if isinstance(self.binding, Node) else None
        return fn if isinstance(fn, Pager) else None

    def progress(self, values: Sequence[bytes | None]) -> bytes | None:
        """How far a pager has come, from the values of `fields`."""
        return values[-1 - len(self.asides)]

    def fields(self, entry: Entry) -> list[str]:
        """The hash fields an attempt needs before it starts."""
        paging = [f"p:{entry.seq}.{entry.index}"] if self.pager is not None else []
        return [*self._input_fields(entry), *paging, *self.asides]

    def _input_fields(self, entry: Entry) -> list[str]:
        match self.source:
            case Source.UNDO:
                return [f"ui:{entry.undo}"]
            case Source.ITEM:
                return [f"i:{entry.seq}.{entry.index}"]
            case Source.PREVIOUS:
                return self.previous.fields
            case Source.PREPARED:
                return [f"o:{prepared_key(self.plan.key)}"]
            case Source.FUNCTION | Source.STATE:
                return [self.field(key) for key in self.learned]
            case _:
                return []

    def field(self, key: str) -> str:
        """The hash field of a key that a state is asked for."""
        return field_of(self.flow, key)


def _itself(value: Any) -> Any:
    return value


def field_of(flow: Flow[Any, Any], key: str) -> str:
    """The hash field of a key that a state of a run of `flow` is asked for."""
    if key == INPUT:
        return "input"
    if key.startswith(TURN):
        return f"t:{flow.loops[key.removeprefix(TURN)]}"
    if key.startswith(CHILDREN):
        return f"c:{key.removeprefix(CHILDREN)}"
    if key.startswith(FIELD):
        return key.removeprefix(FIELD)
    if key.startswith(SIGNAL):
        name, _, number = key.removeprefix(SIGNAL)[:-1].partition("[")
        return f"sg:{name}:{number}"
    return f"o:{key.removeprefix(COUNT).removeprefix(ONE)}"


def signals_of(
    flow: Flow[Any, Any], pc: int | None, name: str, get: Callable[[str], bytes | None]
) -> bytes:
    """The encoded list of the signals of a name that a node at `pc` sees. Raises UnknownSignal."""
    if name not in flow.plan.signals:
        raise UnknownSignal(flow.name, name, flow.plan.signals)
    loop = None if pc is None else flow.plan.loop_around(pc)
    if loop is None:
        first, last = (int(get(f"{FIELD}{kind}:{name}") or 0) for kind in ("st", "sn"))
    else:
        first, last = map(int, (get(f"{FIELD}d:{loop}:{name}") or b"0|0").split(b"|"))
    found = (get(item_key(SIGNAL + name, number)) for number in range(first, last))
    return msgspec.msgpack.encode([msgspec.Raw(data) for data in found if data is not None])


MAX_ITEMS = 1_000_000  # of one wide step
MAX_RUN_ID = 1_000  # characters of a child's id, which has the ids of all above it


def encoded_items(
    bound: Bound, flow_id: str, items: Iterable[Any], most: int = 0
) -> Iterator[bytes]:
    """What a `Lister` said, as it is kept; `most` is as in `encode_output`.

    Raises as `codec.encode` does; TypeError, ValueError.
    """
    limit = max(most, bound.flow.max_payload)
    step = bound.flow.plan.instructions[bound.pc + 1]
    if isinstance(step, Children) and len(step.child_id(flow_id, 1, MAX_ITEMS)) > MAX_RUN_ID:
        raise ValueError(f"expected ids of children of {MAX_RUN_ID:,} characters at most")
    expected = bound.binding.item_type if isinstance(bound.binding, Lister) else Any
    check = None if expected is Any else codec.decoder(expected)
    for number, item in enumerate(items):
        if number == MAX_ITEMS:
            raise ValueError(f"expected at most {MAX_ITEMS:,} items")
        what = f"items[{number}]"
        data = codec.encode(item, max_payload=limit, what=what)
        if check is not None:
            _check_item(check, data, what)
        yield data


def _check_item(check: Callable[[bytes], Any], data: bytes, what: str) -> None:
    try:
        check(data)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{what}: {error}") from None


INPUT = "\0input"  # among learned keys: the flow's input
FOLDER, UNDOS, STARTED = "folder", "undos", "started"  # fields of the hash
ERROR, CANCEL = "error", "cancel"  # and these
MANY_UNDOS = 1000  # compensations of a run; of one in a loop beyond that the input is stored


@dataclass(frozen=True)
class Previous:
    """The default input: the output of the step before, or of the arm that ran, or the input."""

    steps: Mapping[int, Producer]
    fields: list[str]

    @property
    def has_lists(self) -> bool:
        return any(isinstance(step, Wide) for step in self.steps.values())

    @classmethod
    def of(cls, plan: Plan, pc: int) -> Previous:
        sources = plan.predecessors(pc)
        steps = {at: step for at in sources if isinstance(step := plan.instructions[at], Producer)}
        keys = [f"o:{node.key}" for step in steps.values() for node in step.nodes]
        return cls(steps, ["prev", "input", *dict.fromkeys(keys)])

    def encoded(self, values: Sequence[bytes | None], remote: Outputs) -> bytes:
        """The encoded input from the values of `fields`. Raises MissingOutput."""
        at, flow_input = values[0], values[1]
        if at is None:
            return whole(remote, flow_input) or NIL
        step = self.steps[int(at)]
        outputs = dict(zip(self.fields, values, strict=True))

        def get(key: str) -> bytes | None:
            name = f"o:{key}"
            return whole(remote, outputs[name] if name in outputs else remote.get(key))

        return step_output(step, get)


def step_output(step: Producer, get: Callable[[str], bytes | None]) -> bytes:
    """The encoded output of a step: its node's, a map by key where it was parallel, or a list.

    In a list there is nil for an item whose node failed. Where `get` gives stubs, it is one too.
    """
    if isinstance(step, Wide):
        count = get(step.step)
        if count is None:
            raise MissingOutput(step.step)
        keys = (item_key(step.step, index) for index in range(int(count)))
        items = [get(key) or NIL for key in keys]
        return _joined([msgspec.Raw(item) for item in items], items)
    if not isinstance(step, Run) or not step.parallel:
        key = step.nodes[0].key
        data = get(key)
        if data is None:
            if step.nodes[0].best_effort:
                return b"\xc0"
            raise MissingOutput(key)
        return data
    found = {node.key: data for node in step.nodes if (data := get(node.key))}
    return _joined({key: msgspec.Raw(data) for key, data in found.items()}, found.values())


def _joined(parts: object, values: Iterable[bytes]) -> bytes:
    data = msgspec.msgpack.encode(parts)
    return stub_around(data) if any(map(is_stub, values)) else data


@dataclass(slots=True)
class Preloaded:
    """Outputs that came with the claim; what is missing is fetched, and learned for next time."""

    bound: Bound
    values: dict[str, bytes | None]
    remote: Outputs
    own: tuple[str, bytes] | None = None  # key and output of a node, for its compensation's input

    def get(self, key: str) -> bytes | None:
        if self.own is not None and key == self.own[0]:
            return self.own[1]
        if key.startswith(SIGNALS):
            name = key.removeprefix(SIGNALS)
            return signals_of(self.bound.flow, self.bound.pc, name, self.remote.get)
        if key.startswith((CURSOR, ONE)):
            return self.remote.get(key)
        each = self.bound.flow.lists.get(key)
        if each is None or self._get(key) is None:
            return self._get(key)
        return step_output(each, lambda one: whole(self.remote, self._get(one)))

    def _get(self, key: str) -> bytes | None:
        name = self.bound.field(key)
        if name in self.values:
            return self.values[name]
        if "[" in key:  # one item of many: neither learned nor kept
            return self.remote.get(key)
        self.bound.learned.add(key)
        self.values[name] = value = self.remote.get(key)
        return value

    def keys(self) -> list[str]:
        found = list(self.remote.keys())
        if self.own is not None and self.own[0] not in found:
            found.append(self.own[0])
        return found

    def input(self) -> bytes:
        data = self.values.get("input")
        if data is None:
            self.bound.learned.add(INPUT)
            data = self.values["input"] = self.remote.input()
        return data

    def error(self, key: str) -> ErrorInfo | None:
        return self.remote.error(key)

    def whole(self, stub: bytes) -> bytes:
        return self.remote.whole(stub)


def is_slow(bound: Bound, values: Sequence[bytes | None]) -> bool:
    """Whether the input, or what the node asks of the state, may have to be read from elsewhere.

    `values` are those of the fields of `bound`.
    """
    if bound.aside(FOLDER, values) is not None:
        return True
    if bound.flow.cursors is not None and bound.source in (Source.FUNCTION, Source.STATE):
        return True
    if bound.source is Source.UNDO:
        return values[0] is not None and is_stub(values[0][UNDO_HEAD:])
    return any(value is not None and is_stub(value) for value in values)


@dataclass(frozen=True)
class WholeOutputs:
    """Outputs for who is at no place in the flow: of a list the whole, of signals what is left."""

    flow: Flow[Any, Any]
    outputs: Outputs

    def get(self, key: str) -> bytes | None:
        if key.startswith(SIGNALS):
            return signals_of(self.flow, None, key.removeprefix(SIGNALS), self.outputs.get)
        found, step = self.outputs.get(key), self.flow.lists.get(key)
        if found is None or step is None:
            return found
        return step_output(step, self.outputs.get)

    def keys(self) -> Iterable[str]:
        return self.outputs.keys()

    def input(self) -> bytes:
        return self.outputs.input()

    def error(self, key: str) -> ErrorInfo | None:
        return self.outputs.error(key)

    def whole(self, stub: bytes, /) -> bytes:
        return self.outputs.whole(stub)


def answer(flow: Flow[Any, Any], query: str, outputs: Outputs) -> bytes:
    """The encoded answer to a query. Raises what its function and `codec.encode` do."""
    found = flow.queries[query](FlowState(WholeOutputs(flow, outputs)))
    return codec.encode(found, max_payload=flow.max_payload, what=f"answer to {query}")


def input_value(
    bound: Bound, fields: Sequence[str], values: Sequence[bytes | None], remote: Outputs
) -> Any:
    """What the function is called with. Raises what a user's input function raises."""
    count = len(fields) - len(bound.asides) - (bound.pager is not None)
    fields, values = fields[:count], values[:count]
    match bound.source:
        case Source.NOTHING:
            return None
        case Source.PREVIOUS:
            return bound.decode(bound.previous.encoded(values, remote))
        case Source.ITEM:
            if values[0] is None:
                raise MissingOutput(bound.plan.key, "the item is not stored")
            return bound.decode(whole(remote, values[0]) or NIL)
        case Source.PREPARED:
            if values[0] is None:
                raise MissingOutput(
                    bound.plan.key, f"its input {bound.plan.key}.input was not made"
                )
            return bound.decode(whole(remote, values[0]) or NIL)
        case Source.UNDO:
            return _undo_value(bound, values[0], remote)
        case Source.STATE:
            return state_of(bound, fields, values, remote)
        case Source.VALUE:
            # Encoded and decoded: each attempt has its own copy, as if it came over the wire.
            return bound.decode(codec.encode(bound.input, what="input"))
        case Source.FUNCTION:
            made = bound.input(state_of(bound, fields, values, remote))
            return bound.decode(codec.encode(made, max_payload=codec.UNBOUNDED, what="input"))


def state_of(
    bound: Bound, fields: Sequence[str], values: Sequence[bytes | None], remote: Outputs
) -> FlowState:
    """The state that an input function or a predicate sees."""
    return FlowState(Preloaded(bound, dict(zip(fields, values, strict=True)), remote))


def _undo_value(bound: Bound, data: bytes | None, remote: Outputs) -> Any:
    if data is None:
        raise MissingOutput(bound.plan.key, "the input of the compensation is not stored")
    kind, raw = _decode_undo(data)
    if kind == UNDO_OPEN and bound.named is None and bound.input is not PREVIOUS:
        own = (bound.undone.key, whole(remote, bytes(raw)) or NIL)
        state = FlowState(Preloaded(bound, {}, remote, own=own))
        given = _given(bound.input, state, "input of the compensation", codec.UNBOUNDED)
        return bound.decode(given)
    if kind == UNDO_FAILED:
        error = msgspec.msgpack.decode(raw, type=ErrorInfo)
        raise TerminalError(f"the input of the compensation could not be computed: {error}")
    return bound.decode(whole(remote, bytes(raw)) or NIL) if bound.takes_input else None


def encode_output(bound: Bound, value: Any, most: int = 0) -> tuple[bytes, str]:
    """The encoded output, checked against its type, and the answer of a question for its event.

    With a storage it may have `most` bytes, where that is more than the flow's `max_payload`.
    """
    match bound.binding:
        case Predicate():
            answer = bool(value)
            return codec.encode(answer), "1" if answer else "0"
        case Lister():
            return codec.encode(value), str(value)  # how many there were
        case Until():
            until = moment(value, bound.plan.name)
            return codec.encode(until), until
        case _:
            pass
    limit = max(most, bound.flow.max_payload)
    data = codec.encode(value, max_payload=limit, what="output")
    if bound.check_output is not None:
        try:
            bound.check_output(data)
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(f"output of node {bound.plan.name!r}: {error}") from None
    if bound.named is not None and bound.named.returns:
        problem = problem_of(bound.named.returns, codec.decode(data))
        if problem:
            flow, name = bound.flow.name, bound.plan.name
            raise msgspec.ValidationError(
                f"output of node {name!r} is not what flow {flow!r} expects: {problem}"
            )
    return data, ""


def moment(value: Any, name: str) -> str:
    """When a sleep is over, as `Dispatch.until` has it, from what a function said. A TypeError
    where that is neither a time nor a span.
    """
    match value:
        case datetime():
            if value.tzinfo is None:
                raise TypeError(f"{name}: expected a datetime with a time zone, got {value!r}")
            return str(max(0, round(value.timestamp() * 1000)))
        case timedelta():
            return f"+{max(0, round(value.total_seconds() * 1000))}"
        case bool():
            pass
        case int() | float() | str():
            return f"+{milliseconds(value)}"
        case _:
            pass
    raise TypeError(f"{name}: expected a datetime, a timedelta or a duration, got {value!r}")


class UndoInput(NamedTuple):
    """What is stored for a compensation, encoded; `kind` says what it is."""

    kind: int
    data: bytes

    def pack(self, kept: bytes | None = None) -> bytes:
        """As the hash has it; `kept` is the stub that stands for the data, if it is stored."""
        return msgspec.msgpack.encode((self.kind, msgspec.Raw(kept or self.data)))

    def is_stored(self, bound: Bound, values: Sequence[bytes | None]) -> bool:
        """Whether it goes to the storage, if there is one: too large, or one of very many.

        `values` are those of the fields of `bound`.
        """
        many = int(bound.aside(UNDOS, values) or 0) >= MANY_UNDOS
        large = len(self.data) > bound.flow.max_payload
        return self.kind != UNDO_FAILED and (many or large)


UNDO_HEAD = 2  # bytes of a packed UndoInput before its data: those of the list and of `kind`


def undo_input(bound: Bound, output: bytes, remote: Outputs, most: int = 0) -> UndoInput | None:
    """The stored input of the node's compensation: the snapshot at completion. `most` is as above.

    Of a node that is run by name it is the output: what the flow's code makes of that is computed
    by whoever runs the compensation, and has the code.
    """
    if bound.compensation is None:
        return None
    if bound.named is not None:
        return UndoInput(UNDO_OPEN, output)
    compensation = compensation_of(bound.binding)
    if compensation is None:
        raise LookupError(f"node {bound.plan.name!r} has no compensation")
    if isinstance(compensation, Notice) or compensation.input is PREVIOUS:
        return UndoInput(UNDO_MADE, output)
    try:
        state = FlowState(Preloaded(bound, {}, remote, own=(bound.plan.key, output)))
        limit = max(most, bound.flow.max_payload)
        made = _given(compensation.input, state, "input of the compensation", limit)
        return UndoInput(UNDO_MADE, made)
    except AWAY:
        raise  # what it reads cannot be read now, which says nothing about it
    except BaseException as error:  # SystemExit too: it is the user's function
        info = ErrorInfo.of(error, compensation.name)
        return UndoInput(UNDO_FAILED, msgspec.msgpack.encode(info))


# What is stored for a compensation: its input, why that could not be made, or what it is made of.
UNDO_MADE, UNDO_FAILED, UNDO_OPEN = 0, 1, 2


def _given(source: Any, state: FlowState, what: str, most: int) -> bytes:
    """What was given to `with_input`, encoded: a value, or what a function says."""
    made = source(state) if callable(source) else source
    return codec.encode(made, max_payload=most, what=what)
