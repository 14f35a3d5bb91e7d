"""From what a builder gathered to a plan, with every mistake reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import msgspec

from resolute.durations import Duration, milliseconds
from resolute.errors import FlowDefinitionError, ResoluteError
from resolute.ids import check_name, check_queue
from resolute.model import codec
from resolute.model.fitting import fits, type_name
from resolute.model.flow import Binding, Flow, Lister, Notice, Predicate, Until
from resolute.model.functions import check_count, check_plain
from resolute.model.gates import GateResult
from resolute.model.hooks import FlowHooks
from resolute.model.loops import LoopFunctions
from resolute.model.naming import passing, problems_of_named
from resolute.model.node_plans import node_plan, places_plans, retry_plan
from resolute.model.nodes import PREVIOUS, Node, same_of
from resolute.model.operations import (
    Draft,
    Else,
    EndWhen,
    KeepLast,
    Operation,
    Parallel,
    Recall,
    SaveCursor,
    Then,
    ThenChildren,
    ThenEach,
    ThenGate,
    ThenLoop,
    ThenSleep,
    ThenSleepUntil,
    When,
    step_of,
)
from resolute.model.plan import (
    Aside,
    Branch,
    Children,
    ConcurrencyPlan,
    Each,
    End,
    Gate,
    Instruction,
    Items,
    Jump,
    Loop,
    Moment,
    NamedPlan,
    NodePlan,
    Plan,
    Prepare,
    PriorityPlan,
    Producer,
    RetentionPlan,
    Run,
    Sleep,
    Wide,
    prepared_key,
)
from resolute.model.policies import RetentionPolicy
from resolute.model.produced import children_type, each_type, outputs_of
from resolute.model.saving import check_cursor, saver_of
from resolute.model.state import FlowState
from resolute.model.templates import Scope, Template, has_markers, make_template, misfit
from resolute.model.trigger_plans import TriggerPlans, trigger_plans
from resolute.model.windows import unfold
from resolute.priority import PriorityName, check_priority

QUESTION_TIMEOUT_MS = 30_000

MOST_PAYLOAD = 64 * 1024 * 1024  # bytes; a value in Redis is in the reply of a script, whole


def compile_flow(draft: Draft) -> Flow[Any, Any]:
    """The flow; raises FlowDefinitionError with all that is wrong."""
    operations, problems = unfold(draft.operations)
    produced = outputs_of(operations)
    compiler = _Compiler(draft.name, draft.input_type, draft.hooks, produced, problems)
    compiler.check(lambda: check_name("flow", draft.name))
    if draft.queue:
        compiler.check(lambda: check_queue(draft.queue))
    compiler.begin()
    for operation in operations:
        try:
            compiler.add(operation)
        except ValueError as error:  # a name of ours that is too long, since theirs is
            compiler.problems.append(str(error))
    compiler.end()
    if draft.retention is not None:
        policy = draft.retention
        compiler.check(lambda: compiler.keep(RetentionPolicy(*policy)))
    if draft.namespace is not None:
        compiler.namespace = draft.namespace
        compiler.check(lambda: check_name("namespace", compiler.namespace))
    if draft.deadline is not None:
        compiler.limit(draft.deadline)
    for name, type_ in draft.signals.items():
        compiler.declare(name, type_)
    for name, fn in draft.queries.items():
        compiler.ask(name, fn)
    compiler.bound(draft.max_payload)
    triggers = trigger_plans(draft.triggers, draft.input_type, compiler.problems)
    flow = compiler.finish(triggers, draft.queue)
    return replace(flow, hooks=draft.hooks, cursors=draft.cursors)


def _result_type(types: tuple[Any, ...]) -> Any:
    """What the last step returns; Any where it is one of several types."""
    if types[1:] == (type(None),):  # best effort
        return Optional[types[0]]  # noqa: UP045 - a type that is known only now
    return types[0] if len(set(map(repr, types))) == 1 else Any


@dataclass
class _OpenBranch:
    """A `when` that has no `end_when` yet, and what its arms can have left behind."""

    at: int
    keys_before: frozenset[str]
    types_before: tuple[Any, ...]
    otherwise: int | None = None
    jump: int | None = None
    keys_then: frozenset[str] = frozenset()
    types_then: tuple[Any, ...] = ()


@dataclass
class _Compiler:
    flow: str
    input_type: Any
    hooks: FlowHooks
    produced: dict[str, Any]  # the types of all outputs, by key
    problems: list[str] = field(default_factory=list[str])
    instructions: list[Instruction | None] = field(default_factory=list[Instruction | None])
    bindings: dict[tuple[int, int], Binding] = field(default_factory=dict[tuple[int, int], Binding])
    functions: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: set[str] = field(default_factory=set[str])
    branches: list[_OpenBranch] = field(default_factory=list[_OpenBranch])
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

    def bound(self, size: object) -> None:
        """Take the most bytes that a value of the flow may have in Redis."""
        if isinstance(size, int) and 1 <= size <= MOST_PAYLOAD:
            self.max_payload = size
        else:
            self.problems.append(f"max_payload: expected 1 to {MOST_PAYLOAD:,} bytes, got {size!r}")

    def begin(self) -> None:
        """What a run does before its first step: it tells the hooks of it.

        That is undone, last of all that is, by telling them of the end.
        """
        ending = Notice("after_flow", "after_flow") if self.hooks.after_flow else None
        if self.hooks.before_flow or ending:
            self._tell(Notice("before_flow", "before_flow", ending=ending))

    def end(self) -> None:
        """What a run does after its last step."""
        if self.hooks.after_flow:
            self._tell(Notice("after_flow", "after_flow"))

    def add(self, operation: Operation) -> None:
        """Add a step, between what tells the hooks of it."""
        step = step_of(operation)
        if step and self.hooks.before_step:
            self._tell(Notice(f"{step.key}.before_step", "before_step", step.name))
        self._add(operation)
        if step and self.hooks.after_step:
            self._tell(Notice(f"{step.key}.after_step", "after_step", step.name))

    def _tell(self, notice: Notice) -> None:
        undo = self._question(notice.ending.name) if notice.ending else None
        plan = self._question(notice.name)
        plan = msgspec.structs.replace(plan, best_effort=True, compensation=undo)
        self.bindings[len(self.instructions), 0] = notice
        self.instructions.append(Aside(notice.name, (plan,)))

    def _add(self, operation: Operation) -> None:
        match operation:
            case Then(node=node):
                self._step(node.name, (node,), parallel=False)
                self.types = (node.output_type,)
                if node.is_best_effort:
                    self.types = (node.output_type, type(None))
            case Parallel(name=name, nodes=nodes):
                self._name_step(name)
                if not nodes:
                    self.problems.append(f"step {name!r} has no nodes")
                self._step(name, nodes, parallel=True)
                self.types = (dict[str, Any],)
            case When(predicate=predicate):
                self._when(predicate)
            case Else():
                self._else()
            case EndWhen():
                self._end_when()
            case ThenGate():
                self._gate(operation)
            case ThenSleep():
                self._sleep(operation)
            case ThenSleepUntil():
                self._sleep_until(operation)
            case ThenEach():
                self._each(operation)
            case ThenChildren():
                self._children(operation)
            case ThenLoop():
                self._loop(operation)
            case SaveCursor(node=node):
                self._save(node.name, (node,))
            case KeepLast(key=key):
                self.produced[key] = self.types[0] if len(set(self.types)) == 1 else Any
                keep: Node[Any, Any] = Node(key, same_of(self.produced[key]))
                self._step(key, (keep,), parallel=False)
            case Recall(key=key):
                type_ = self.produced[key]
                self._inner(f"{key}.result", f"{key}.result", type_, lambda s: s.get(key, type_))

    def _name_step(self, name: str) -> None:
        self.check(lambda: check_name("step", name))
        if name in self.steps:
            self.problems.append(f"step {name!r} is there twice")
        self.steps.add(name)

    def _add_key(self, key: str) -> None:
        if key in self.keys:
            self.problems.append(
                f"output key {key!r} is there twice on one path: give one an as_()"
            )
        self.keys |= {key}

    def _gate(self, gate: ThenGate) -> None:
        self._name_step(gate.name)
        self._add_key(gate.name)
        self.check(lambda: check_name("signal", gate.signal))
        timeout = self._span(f"gate {gate.name!r}: timeout", gate.timeout)
        self.signals.setdefault(gate.signal, GateResult)
        self.instructions.append(Gate((NodePlan(gate.name, gate.name),), gate.signal, timeout))
        self.types = (GateResult,)

    def _each(self, each: ThenEach) -> None:
        self._name_step(each.name)
        self._add_key(each.name)
        if each.node.cursor is not None:
            self.problems.append(
                f"step {each.name!r}: a node that runs for each item moves no cursor"
            )
        if each.node.input is not PREVIOUS:
            self.problems.append(
                f"step {each.name!r}: node {each.node.name!r} gets the items: no with_input()"
            )
        forgives = self._forgives(each.name, "on_item_error", each.on_item_error)
        window = self._window(each.name, each.max_concurrency)
        self._prioritize(0, each.node.priority)
        self._items(each.name, "items", each.items, Any)
        node = self._check_node(each.node, own=each.name)
        self.bindings[len(self.instructions), 0] = node
        plan = node_plan(self.flow, node)
        plan = msgspec.structs.replace(plan, key=each.name, best_effort=forgives)
        self._name(len(self.instructions), 0, node)
        self.instructions.append(Each(each.name, (plan,), window))
        self.types = (each_type(each),)

    def _children(self, children: ThenChildren) -> None:
        """Each run is waited for by a node of the step, which nobody runs."""
        name, flow = children.name, children.flow
        self._name_step(name)
        self._add_key(name)
        forgives = self._forgives(name, "on_child_error", children.on_child_error)
        window = self._window(name, children.max_concurrency)
        queue, input_type = children.queue, Any
        if isinstance(flow, Flow):
            queue = queue or flow.plan.queue
            input_type = flow.input_type
            self.children[flow.name] = flow
            flow = flow.name
        else:
            self.check(lambda: check_name("flow", flow))
        if queue:
            self.check(lambda: check_queue(queue))
        self._items(name, "inputs", children.inputs, input_type)
        self.check(lambda: self._prioritize(0, children.priority))
        plan = NodePlan(name, name, best_effort=forgives)
        looped = self.loops > 0
        self.instructions.append(Children(name, (plan,), flow, queue, window, looped))
        self.types = (children_type(children),)

    def _forgives(self, name: str, option: str, value: str) -> bool:
        """Whether a wide step goes on without those that fail."""
        if value not in ("continue", "fail_fast"):
            self.problems.append(
                f'step {name!r}: expected {option} "continue" or "fail_fast", got {value!r}'
            )
        return value == "continue"

    def _window(self, name: str, most: int | None) -> int:
        if most is not None:
            self.check(lambda: check_count(f"step {name!r}: max_concurrency", most))
        return most or 0

    def _items(
        self, name: str, kind: str, items: Callable[[FlowState], Iterable[Any]] | None, type_: Any
    ) -> None:
        """The node that says how wide the step `name` is."""
        asked = f"{name}.{kind}"
        if items is not None and not has_markers(items):
            self.check(lambda: check_plain(f"step {name!r}: {kind}", items, "FlowState"))
        filled = self._filled(items, list, f"step {name!r}: {kind}")
        filled = filled.decoded if isinstance(filled, Template) else filled
        self.bindings[len(self.instructions), 0] = Lister(asked, filled, type_)
        if items is None and not all(fits(produced, list) for produced in self.types):
            self.problems.append(f"step {name!r}: the step before gives no list: add {kind}=")
        self.instructions.append(Items((self._question(asked),)))
        self.types = (Any,)

    def _loop(self, loop: ThenLoop) -> None:
        """The loop's state is the output `<name>`: of the node that begins it, then of turns."""
        name = loop.name
        self._name_step(name)
        self._add_key(name)
        self.check(lambda: check_count(f"loop {name!r}: max_iterations", loop.max_iterations))
        self.check(lambda: codec.check_type(f"loop {name!r}: state", loop.state))
        if not loop.body:
            self.problems.append(f"loop {name!r} has no body")
        if loop.before is None and loop.after is None:
            self.problems.append(f"loop {name!r}: nothing changes its state: add an after=")
        self._check_functions(loop)
        functions = LoopFunctions(name, loop.state, loop.max_iterations)
        initial = self._filled(loop.initial, loop.state, f"loop {name!r}: initial")
        self._inner(f"{name}.begin", name, loop.state, functions.begin(initial))
        head = len(self.instructions)
        self.bindings[head, 0] = Predicate(f"{name}.while", functions.head(loop.while_))
        self.instructions.append(None)
        if loop.before is not None:
            self._inner(f"{name}.before", name, loop.state, functions.turn(loop.before))
        opened, around = len(self.branches), self.turning
        self.turning |= outputs_of(loop.body).keys()
        self.loops += 1
        for operation in loop.body:
            self.add(operation)
        self.loops -= 1
        self.turning = around
        if len(self.branches) != opened:
            self.problems.append(f"loop {name!r}: its body leaves a when() open")
        if loop.after is not None:
            self._inner(f"{name}.after", name, loop.state, functions.turn(loop.after))
        self.instructions.append(Jump(head))
        end = len(self.instructions)
        self.instructions[head] = Loop((self._question(f"{name}.while"),), end, loop.max_iterations)
        if loop.after is None:  # else the state is the output of the step before already
            self._inner(f"{name}.end", name, loop.state, functions.end())
        self.types = (loop.state,)

    def _check_functions(self, loop: ThenLoop) -> None:
        what = f"loop {loop.name!r}"
        self.check(lambda: check_plain(f"{what}: while_", loop.while_, "its state"))
        if callable(loop.initial):
            self.check(lambda: check_plain(f"{what}: initial", loop.initial, "FlowState"))
        for name, fn in (("before", loop.before), ("after", loop.after)):
            if fn is not None:
                self._check_turn(f"{what}: {name}", fn)

    def _check_turn(self, what: str, fn: object) -> None:
        self.check(lambda: check_plain(what, fn, "FlowState and its state"))

    def _inner(self, name: str, key: str, type_: Any, read: Callable[[FlowState], Any]) -> None:
        """A node of our own: what `read` says of the state is its output."""
        node: Node[Any, Any] = Node(name, same_of(type_), read, output=key)
        self.bindings[len(self.instructions), 0] = node
        plan = msgspec.structs.replace(self._question(name), key=key)
        self.instructions.append(Run(name, (plan,)))
        self.types = (type_,)

    def _question(self, name: str) -> NodePlan:
        return NodePlan(name, name, timeout_ms=QUESTION_TIMEOUT_MS)

    def _sleep(self, sleep: ThenSleep) -> None:
        name = self._name_sleep(sleep.name)
        span = self._span(name, sleep.span)
        self.instructions.append(Sleep((NodePlan(name, name),), span))

    def _sleep_until(self, sleep: ThenSleepUntil) -> None:
        name = self._name_sleep(sleep.name)
        asked = f"{name}.until"
        self.check(lambda: check_plain(name, sleep.moment, "FlowState"))
        self.bindings[len(self.instructions), 0] = Until(asked, sleep.moment)
        self.instructions += [Moment((self._question(asked),)), Sleep((NodePlan(name, name),))]

    def _name_sleep(self, name: str) -> str:
        self.sleeps += 1
        name = name or f"sleep.{self.sleeps}"
        self._name_step(name)
        return name

    def _span(self, what: str, span: Duration | None) -> int:
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

    def limit(self, deadline: Duration) -> None:
        self.deadline_ms = self._span("deadline", deadline)

    def declare(self, name: str, type_: Any) -> None:
        self.check(lambda: check_name("signal", name))
        known = self.signals.setdefault(name, type_)
        if known is not type_:
            self.problems.append(
                f"signal {name!r} is {type_name(type_)}, but a gate that waits for it takes"
                f" {type_name(known)}"
            )

    def ask(self, name: str, fn: Callable[[FlowState], Any]) -> None:
        self.check(lambda: check_name("query", name))
        self.check(lambda: check_plain(f"query {name!r}", fn, "FlowState"))
        self.queries[name] = fn

    def _step(self, name: str, nodes: tuple[Node[Any, Any], ...], *, parallel: bool) -> None:
        nodes = tuple(self._check_node(node) for node in nodes)
        for node in nodes:
            self._add_key(node.key)
        self._prepare(name if parallel else nodes[0].key, nodes)
        pc = len(self.instructions)
        for index, node in enumerate(nodes):
            self.bindings[pc, index] = node
            self._name(pc, index, node)
        plans = tuple(node_plan(self.flow, node) for node in nodes)
        self.instructions.append(Run(name, plans, parallel))
        self._save(name, nodes)

    def _save(self, name: str, nodes: tuple[Node[Any, Any], ...]) -> None:
        """A step that saves the cursors of those nodes that have one."""
        plans: list[NodePlan] = []
        for node in nodes:
            if node.cursor is None:
                continue
            saver = saver_of(node, node.cursor)
            self.check(lambda node=node, target=node.cursor: check_cursor(node, target))
            self.bindings[len(self.instructions), len(plans)] = saver
            self._prioritize(len(plans), node.priority)
            plans.append(self._question(saver.name))
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
            self._prioritize(len(plans), node.priority)
            plan = msgspec.structs.replace(
                self._question(asked),
                key=prepared_key(node.key),
                retry=retry_plan(node.retry),
                best_effort=node.is_best_effort,
            )
            plans.append(plan)
        if plans:
            self.instructions.append(Prepare(f"{name}.input", tuple(plans)))

    def _prioritize(
        self, index: int, priority: PriorityName | None, *, is_undo: bool = False
    ) -> None:
        """Note the priority of a node of the instruction that comes next, if it says one."""
        if priority is not None:
            pc = len(self.instructions)
            self.priorities.append(PriorityPlan(pc, index, is_undo, check_priority(priority)))

    def _name(self, pc: int, index: int, node: Node[Any, Any]) -> None:
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
                self._prioritize(index, one.priority or node.priority, is_undo=is_undo)

    def _check_node(
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
        given = self._filled(node.input, node.input_type, f"node {node.name!r}: its input")
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
        found = self._check_node(compensation, before=(node.output_type,))
        self.keys, self.produced = around, produced
        if isinstance(found.input, Template) and key in found.input.kept:
            self.problems.append(
                f"compensation {found.name!r}: output_ref({key!r}) is the output of the node that"
                " it undoes, which is there by value only"
            )
        return found

    def _filled(self, value: Any, expected: Any, what: str) -> Any:
        """`value`, or a function of FlowState that fills in the markers in it."""
        if callable(value) or not has_markers(value):
            return value
        keys = self.keys | self.turning
        outputs = {key: self.produced.get(key, Any) for key in keys}
        scope = Scope(outputs, self.input_type)
        found = make_template(value, expected, scope, self.problems, what)
        self.kept |= found.kept
        return found

    def _when(self, predicate: Callable[[FlowState], bool]) -> None:
        self.predicates += 1
        name = f"when.{self.predicates}"
        pc = len(self.instructions)
        self.check(lambda: check_plain(name, predicate, "FlowState"))
        self.bindings[pc, 0] = Predicate(name, predicate)
        self.instructions.append(None)
        self.branches.append(_OpenBranch(pc, self.keys, self.types))

    def _else(self) -> None:
        if not self.branches or self.branches[-1].otherwise is not None:
            self.problems.append("else_() without an open when()")
            return
        branch = self.branches[-1]
        branch.jump = len(self.instructions)
        self.instructions.append(None)
        branch.otherwise = len(self.instructions)
        branch.keys_then, branch.types_then = self.keys, self.types
        self.keys, self.types = branch.keys_before, branch.types_before

    def _end_when(self) -> None:
        if not self.branches:
            self.problems.append("end_when() without an open when()")
            return
        branch = self.branches.pop()
        end = len(self.instructions)
        if branch.jump is None:
            branch.keys_then, branch.types_then = branch.keys_before, branch.types_before
        else:
            self.instructions[branch.jump] = Jump(end)
        self.keys |= branch.keys_then
        self.types = (*branch.types_then, *self.types)
        self._close(branch, end if branch.otherwise is None else branch.otherwise)

    def _close(self, branch: _OpenBranch, otherwise: int) -> None:
        name = self.bindings[branch.at, 0].name
        self.instructions[branch.at] = Branch((self._question(name),), otherwise)

    def _kept(self) -> Iterator[tuple[int, int]]:
        """Where the nodes are whose outputs are given by reference."""
        for pc, step in enumerate(self.instructions):
            if not isinstance(step, Producer):
                continue
            for index, node in enumerate(step.nodes):
                if node.key not in self.kept:
                    continue
                if isinstance(step, Run):
                    yield pc, index
                else:
                    self.problems.append(
                        f"output_ref({node.key!r}): expected the output of a node, not that of a"
                        " list, of children or of a gate"
                    )

    def keep(self, policy: RetentionPolicy) -> None:
        self.retention = RetentionPlan(policy.after_ms() or None, policy.keep_last)

    def finish(self, triggers: TriggerPlans, queue: str) -> Flow[Any, Any]:
        for branch in self.branches:
            self.problems.append(f"{self.bindings[branch.at, 0].name} has no end_when()")
        if not any(
            isinstance(instruction, Run | Wide | Gate | Sleep) for instruction in self.instructions
        ):
            self.problems.append("no steps: add one with then()")
        kept = tuple(self._kept())
        if self.problems:
            raise FlowDefinitionError(self.flow, self.problems)
        result_type = _result_type(self.types)
        plan = Plan(
            flow=self.flow,
            instructions=(*(i for i in self.instructions if i is not None), End()),
            queue=queue,
            schedules=triggers.schedules,
            input_schema=codec.schema(self.input_type),
            result_schema=codec.schema(result_type),
            retention=self.retention,
            deadline_ms=self.deadline_ms,
            webhooks=triggers.webhooks,
            queries=tuple(self.queries),
            started_by=triggers.signals,
            named=tuple(self.named),
            concurrency=tuple(self.concurrency),
            kept=kept,
            priorities=tuple(self.priorities),
            trigger_priorities=triggers.priorities,
            starts=triggers.starts,
            max_payload=0 if self.max_payload == codec.DEFAULT_MAX_PAYLOAD else self.max_payload,
            signals={name: codec.schema(type_) for name, type_ in self.signals.items()},
        )
        return Flow(
            name=self.flow,
            plan=plan,
            plan_hash=plan.hash,
            bindings=self.bindings,
            input_type=self.input_type,
            result_type=result_type,
            signals=self.signals,
            queries=self.queries,
            namespace=self.namespace or self.flow,
            children=tuple(self.children.values()),
            max_payload=self.max_payload,
        )
