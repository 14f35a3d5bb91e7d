"""What a flow is compiled into: instructions, bindings, and the problems found so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from resolute.durations import Duration, milliseconds
from resolute.errors import ResoluteError
from resolute.ids import check_name
from resolute.model import codec
from resolute.model.fitting import fits, type_name
from resolute.model.flow import Binding, Flow, Notice
from resolute.model.hooks import FlowHooks
from resolute.model.naming import passing, problems_of_named
from resolute.model.node_plans import node_plan, places_plans, retry_plan
from resolute.model.nodes import PREVIOUS, Node, same_of
from resolute.model.plan import (
    Aside,
    ConcurrencyPlan,
    Instruction,
    NamedPlan,
    NodePlan,
    Prepare,
    PriorityPlan,
    RetentionPlan,
    Run,
    prepared_key,
)
from resolute.model.saving import check_cursor, saver_of
from resolute.model.state import FlowState
from resolute.model.templates import Scope, Template, has_markers, make_template, misfit
from resolute.priority import PriorityName, check_priority

QUESTION_TIMEOUT_MS = 30_000


@dataclass
class OpenBranch:
    """A `when` that has no `end_when` yet, and what its arms can have left behind."""

    at: int
    keys_before: frozenset[str]
    types_before: tuple[Any, ...]
    otherwise: int | None = None
    jump: int | None = None
    keys_then: frozenset[str] = frozenset()
    types_then: tuple[Any, ...] = ()


@dataclass
class Assembly:
    """The plan of a flow as far as it is written, and what is wrong with it so far."""

    flow: str
    input_type: Any
    hooks: FlowHooks
    produced: dict[str, Any]  # the types of all outputs, by key
    problems: list[str] = field(default_factory=list[str])
    instructions: list[Instruction | None] = field(default_factory=list[Instruction | None])
    bindings: dict[tuple[int, int], Binding] = field(default_factory=dict[tuple[int, int], Binding])
    functions: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: set[str] = field(default_factory=set[str])
    branches: list[OpenBranch] = field(default_factory=list[OpenBranch])
    keys: frozenset[str] = frozenset()
    turning: frozenset[str] = frozenset()  # keys of the loops we are in, there from a turn before
    types: tuple[Any, ...] = ()  # what the step before can have returned
    queries: dict[str, Callable[[FlowState], Any]] = field(
        default_factory=dict[str, Callable[[FlowState], Any]]
    )
    children: dict[str, Flow[Any, Any]] = field(default_factory=dict[str, Flow[Any, Any]])
    namespace: str = ""
    loops: int = 0  # those open
    predicates: int = 0
    sleeps: int = 0
    retention: RetentionPlan | None = None
    deadline_ms: int = 0
    signals: dict[str, Any] = field(default_factory=dict[str, Any])
    named: list[NamedPlan] = field(default_factory=list[NamedPlan])
    concurrency: list[ConcurrencyPlan] = field(default_factory=list[ConcurrencyPlan])
    kept: set[str] = field(default_factory=set[str])  # outputs that are given by reference
    priorities: list[PriorityPlan] = field(default_factory=list[PriorityPlan])
    max_payload: int = codec.DEFAULT_MAX_PAYLOAD

    def __post_init__(self) -> None:
        self.types = (self.input_type,)

    def check(self, verify: Callable[[], Any]) -> None:
        try:
            verify()
        except (ValueError, TypeError, ResoluteError) as error:
            self.problems.append(str(error))

    def tell(self, notice: Notice) -> None:
        undo = self.question(notice.ending.name) if notice.ending else None
        plan = self.question(notice.name)
        plan = msgspec.structs.replace(plan, best_effort=True, compensation=undo)
        self.bindings[len(self.instructions), 0] = notice
        self.instructions.append(Aside(notice.name, (plan,)))

    def name_step(self, name: str) -> None:
        self.check(lambda: check_name("step", name))
        if name in self.steps:
            self.problems.append(f"step {name!r} is there twice")
        self.steps.add(name)

    def add_key(self, key: str) -> None:
        if key in self.keys:
            self.problems.append(
                f"output key {key!r} is there twice on one path: give one an as_()"
            )
        self.keys |= {key}

    def span(self, what: str, span: Duration | None) -> int:
        """A span above 0 in ms; 0 for None."""
        if span is None:
            return 0
        try:
            found = milliseconds(span)
        except (TypeError, ValueError) as error:
            self.problems.append(f"{what}: {error}")
            return 0
        if not found:
            self.problems.append(f"{what}: expected a time above 0, got {span!r}")
        return found

    def inner(self, name: str, key: str, type_: Any, read: Callable[[FlowState], Any]) -> None:
        """A node of our own: what `read` says of the state is its output."""
        node: Node[Any, Any] = Node(name, same_of(type_), read, output=key)
        self.bindings[len(self.instructions), 0] = node
        plan = msgspec.structs.replace(self.question(name), key=key)
        self.instructions.append(Run(name, (plan,)))
        self.types = (type_,)

    def question(self, name: str) -> NodePlan:
        return NodePlan(name, name, timeout_ms=QUESTION_TIMEOUT_MS)

    def step(self, name: str, nodes: tuple[Node[Any, Any], ...], *, parallel: bool) -> None:
        nodes = tuple(self.check_node(node) for node in nodes)
        for node in nodes:
            self.add_key(node.key)
        self._prepare(name if parallel else nodes[0].key, nodes)
        pc = len(self.instructions)
        for index, node in enumerate(nodes):
            self.bindings[pc, index] = node
            self.note(pc, index, node)
        plans = tuple(node_plan(self.flow, node) for node in nodes)
        self.instructions.append(Run(name, plans, parallel))
        self.save(name, nodes)

    def save(self, name: str, nodes: tuple[Node[Any, Any], ...]) -> None:
        """A step that saves the cursors of those nodes that have one."""
        plans: list[NodePlan] = []
        for node in nodes:
            if node.cursor is None:
                continue
            saver = saver_of(node, node.cursor)
            self.check(lambda node=node, target=node.cursor: check_cursor(node, target))
            self.bindings[len(self.instructions), len(plans)] = saver
            self.prioritize(len(plans), node.priority)
            plans.append(self.question(saver.name))
        if plans:
            self.instructions.append(Aside(f"{name}.save", tuple(plans)))

    def _prepare(self, name: str, nodes: tuple[Node[Any, Any], ...]) -> None:
        """A step that makes the inputs of those named nodes whose input is not the default one."""
        plans: list[NodePlan] = []
        for node in nodes:
            if not node.is_named or node.input is PREVIOUS:
                continue
            asked = f"{node.key}.input"
            self.bindings[len(self.instructions), len(plans)] = passing(asked, node.input)
            self.prioritize(len(plans), node.priority)
            plan = msgspec.structs.replace(
                self.question(asked),
                key=prepared_key(node.key),
                retry=retry_plan(node.retry),
                best_effort=node.is_best_effort,
            )
            plans.append(plan)
        if plans:
            self.instructions.append(Prepare(f"{name}.input", tuple(plans)))

    def prioritize(
        self, index: int, priority: PriorityName | None, *, is_undo: bool = False
    ) -> None:
        """Note the priority of a node of the instruction that comes next, if it says one."""
        if priority is not None:
            pc = len(self.instructions)
            self.priorities.append(PriorityPlan(pc, index, is_undo, check_priority(priority)))

    def note(self, pc: int, index: int, node: Node[Any, Any]) -> None:
        """Note of a node and its compensation: run by name? how many at a time? how urgent?"""
        undo = node.compensation
        if node.is_named:
            prepared = node.input is not PREVIOUS
            returns = codec.schema(node.output_type)
            self.named.append(NamedPlan(pc, index, False, prepared, returns))
        if undo is not None and undo.is_named:
            self.named.append(NamedPlan(pc, index, True, False, codec.schema(undo.output_type)))
        for one, is_undo in ((node, False), (undo, True)):
            limits = places_plans(one) if one is not None else ()
            if limits:
                self.concurrency.append(ConcurrencyPlan(pc, index, is_undo, limits))
            if one is not None:  # a compensation without its own has that of its node
                self.prioritize(index, one.priority or node.priority, is_undo=is_undo)

    def check_node(
        self, node: Node[Any, Any], *, before: tuple[Any, ...] | None = None, own: str = ""
    ) -> Node[Any, Any]:
        """The node as it is bound: with functions for the markers in its inputs.

        `before` are the types of the default input, unless what the step before can have returned;
        `own` is the key under which its compensation finds its output, unless its own.
        """
        known = self.functions.setdefault(node.name, node.fn)
        if known is not node.fn and known != node.fn:
            self.problems.append(f"two nodes are named {node.name!r}")
        self.problems += problems_of_named(node)
        self.check(lambda: codec.check_type(f"node {node.name!r}: its input", node.input_type))
        self.check(lambda: codec.check_type(f"node {node.name!r}: its output", node.output_type))
        if node.input is PREVIOUS:
            for produced in self.types if before is None else before:
                if not node.takes_input or fits(produced, node.input_type):
                    continue
                if produced is type(None) and self.types != (produced,):
                    self.problems.append(
                        f"node {node.name!r} takes {type_name(node.input_type)}, but the step"
                        " before may give None, as one that is best effort does when it failed:"
                        " let it take None, or add a with_input()"
                    )
                else:
                    self.problems.append(
                        f"node {node.name!r} takes {type_name(node.input_type)}, but the step"
                        f" before gives {type_name(produced)}: add a with_input()"
                    )
        elif not callable(node.input) and not has_markers(node.input):
            problem = misfit(node.input, node.input_type)
            if problem:
                self.problems.append(
                    f"node {node.name!r}: its input does not fit {type_name(node.input_type)}:"
                    f" {problem}"
                )
        given = self.filled(node.input, node.input_type, f"node {node.name!r}: its input")
        compensation = self._check_compensation(node, own)
        if given is node.input and compensation is node.compensation:
            return node
        return replace(node, input=given, compensation=compensation)

    def _check_compensation(self, node: Node[Any, Any], own: str) -> Node[Any, Any] | None:
        compensation = node.compensation
        if compensation is None:
            return None
        if compensation.compensation is not None:
            self.problems.append(
                f"compensation {compensation.name!r} has a compensation of its own"
            )
            return None
        # Its input is computed when the node completes: the node's output is there by then.
        around, produced = self.keys, self.produced
        key = own or node.key
        self.keys, self.produced = around | {key}, {**produced, key: node.output_type}
        found = self.check_node(compensation, before=(node.output_type,))
        self.keys, self.produced = around, produced
        if isinstance(found.input, Template) and key in found.input.kept:
            self.problems.append(
                f"compensation {found.name!r}: output_ref({key!r}) is the output of the node that"
                " it undoes, which is there by value only"
            )
        return found

    def filled(self, value: Any, expected: Any, what: str) -> Any:
        """`value`, or a function of FlowState that fills in the markers in it."""
        if callable(value) or not has_markers(value):
            return value
        keys = self.keys | self.turning
        outputs = {key: self.produced.get(key, Any) for key in keys}
        scope = Scope(outputs, self.input_type)
        found = make_template(value, expected, scope, self.problems, what)
        self.kept |= found.kept
        return found
