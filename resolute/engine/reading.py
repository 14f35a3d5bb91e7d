"""From the fields of a run's hash to the outputs of its steps, its signals, its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from resolute.errors import ErrorInfo, MissingOutput, UnknownSignal
from resolute.model import codec
from resolute.model.flow import Flow
from resolute.model.plan import Plan, Producer, Run, Wide, item_key
from resolute.model.references import is_stub, stub_around
from resolute.model.state import (
    CHILDREN,
    COUNT,
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

INPUT = "\0input"  # among learned keys: the flow's input


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
        return list_of([get(key) or NIL for key in keys])
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


def list_of(items: Sequence[bytes]) -> bytes:
    """The encoded list of encoded items; a stub where there is one among them."""
    return _joined([msgspec.Raw(item) for item in items], items)


def _joined(parts: object, values: Iterable[bytes]) -> bytes:
    data = msgspec.msgpack.encode(parts)
    return stub_around(data) if any(map(is_stub, values)) else data


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
