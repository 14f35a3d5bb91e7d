"""From what a builder gathered to a plan, with every mistake reported at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from resolute.durations import Duration, milliseconds, seconds
from resolute.errors import FlowDefinitionError, ResoluteError
from resolute.ids import check_name, check_queue
from resolute.model import codec
from resolute.model.fitting import fits, type_name
from resolute.model.flow import Binding, Flow, Predicate
from resolute.model.nodes import PREVIOUS, Node
from resolute.model.plan import (
    Branch,
    End,
    Instruction,
    Jump,
    LimitPlan,
    NodePlan,
    Plan,
    RetentionPlan,
    RetryPlan,
    Run,
    SchedulePlan,
)
from resolute.model.policies import Limit, RetentionPolicy, RetryPolicy, SharedRateLimit
from resolute.model.state import FlowState
from resolute.model.triggers import Schedule, Trigger

PREDICATE_TIMEOUT_MS = 30_000
STRICT_SLACK = 0.1  # s: how late a start may be, which a strict limit leaves room for


@dataclass(frozen=True)
class Then:
    node: Node[Any, Any]


@dataclass(frozen=True)
class Parallel:
    name: str
    nodes: tuple[Node[Any, Any], ...]


@dataclass(frozen=True)
class When:
    predicate: Callable[[FlowState], bool]


@dataclass(frozen=True)
class Else:
    pass


@dataclass(frozen=True)
class EndWhen:
    pass


Operation = Then | Parallel | When | Else | EndWhen


def compile_flow(
    name: str,
    input_type: Any,
    operations: tuple[Operation, ...],
    triggers: tuple[Trigger, ...],
    queue: str,
    retention: tuple[Duration | None, int | None] | None = None,
) -> Flow[Any, Any]:
    """The flow; raises FlowDefinitionError with all that is wrong."""
    compiler = _Compiler(name, input_type)
    compiler.check(lambda: check_name("flow", name))
    if queue:
        compiler.check(lambda: check_queue(queue))
    for operation in operations:
        compiler.add(operation)
    if retention is not None:
        compiler.check(lambda: compiler.keep(RetentionPolicy(*retention)))
    schedules = compiler.schedules(triggers)
    return compiler.finish(triggers, schedules, queue)


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
    problems: list[str] = field(default_factory=list[str])
    instructions: list[Instruction | None] = field(default_factory=list[Instruction | None])
    bindings: dict[tuple[int, int], Binding] = field(default_factory=dict[tuple[int, int], Binding])
    functions: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: set[str] = field(default_factory=set[str])
    branches: list[_OpenBranch] = field(default_factory=list[_OpenBranch])
    keys: frozenset[str] = frozenset()
    types: tuple[Any, ...] = ()  # what the step before can have returned
    predicates: int = 0
    retention: RetentionPlan | None = None

    def __post_init__(self) -> None:
        self.types = (self.input_type,)

    def check(self, verify: Callable[[], Any]) -> None:
        try:
            verify()
        except (ValueError, TypeError, ResoluteError) as error:
            self.problems.append(str(error))

    def add(self, operation: Operation) -> None:
        match operation:
            case Then(node=node):
                self._step(node.name, (node,), parallel=False)
                self.types = (node.output_type,)
            case Parallel(name=name, nodes=nodes):
                self.check(lambda: check_name("step", name))
                if not nodes:
                    self.problems.append(f"step {name!r} has no nodes")
                if name in self.steps:
                    self.problems.append(f"step {name!r} is there twice")
                self.steps.add(name)
                self._step(name, nodes, parallel=True)
                self.types = (dict[str, Any],)
            case When(predicate=predicate):
                self._when(predicate)
            case Else():
                self._else()
            case EndWhen():
                self._end_when()

    def _step(self, name: str, nodes: tuple[Node[Any, Any], ...], *, parallel: bool) -> None:
        pc = len(self.instructions)
        for index, node in enumerate(nodes):
            self._check_node(node)
            if node.key in self.keys:
                self.problems.append(
                    f"output key {node.key!r} is there twice on one path: give one an as_()"
                )
            self.keys |= {node.key}
            self.bindings[pc, index] = node
        plans = tuple(node_plan(self.flow, node) for node in nodes)
        self.instructions.append(Run(name, plans, parallel))

    def _check_node(self, node: Node[Any, Any], *, before: tuple[Any, ...] | None = None) -> None:
        known = self.functions.setdefault(node.name, node.fn)
        if known is not node.fn:
            self.problems.append(f"two nodes are named {node.name!r}")
        if node.input is PREVIOUS:
            for produced in self.types if before is None else before:
                if node.takes_input and not fits(produced, node.input_type):
                    self.problems.append(
                        f"node {node.name!r} takes {type_name(node.input_type)}, but the step"
                        f" before gives {type_name(produced)}: add a with_input()"
                    )
        elif not callable(node.input):
            self._check_value(node)
        if node.compensation is not None:
            if node.compensation.compensation is not None:
                self.problems.append(
                    f"compensation {node.compensation.name!r} has a compensation of its own"
                )
            self._check_node(node.compensation, before=(node.output_type,))

    def _check_value(self, node: Node[Any, Any]) -> None:
        try:
            codec.decode(codec.encode(node.input), node.input_type)
        except Exception as error:
            self.problems.append(
                f"node {node.name!r}: its input does not fit {type_name(node.input_type)}: {error}"
            )

    def _when(self, predicate: Callable[[FlowState], bool]) -> None:
        self.predicates += 1
        name = f"when.{self.predicates}"
        pc = len(self.instructions)
        if not callable(predicate):
            self.problems.append(f"{name}: expected a function of FlowState, got {predicate!r}")
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
        predicate = NodePlan(name, name, timeout_ms=PREDICATE_TIMEOUT_MS)
        self.instructions[branch.at] = Branch((predicate,), otherwise)

    def keep(self, policy: RetentionPolicy) -> None:
        self.retention = RetentionPlan(policy.after_ms() or None, policy.keep_last)

    def schedules(self, triggers: tuple[Trigger, ...]) -> tuple[SchedulePlan, ...]:
        found: list[SchedulePlan] = []
        for trigger in triggers:
            if not isinstance(trigger, Schedule):
                continue
            problem = trigger.problem()
            if problem:
                self.problems.append(problem)
                continue
            try:
                data = self._scheduled_input(trigger)
            except Exception as error:
                self.problems.append(
                    f"schedule {trigger.cron!r}: its input does not fit"
                    f" {type_name(self.input_type)}: {error}"
                )
                continue
            found.append(SchedulePlan(trigger.cron, trigger.timezone, data))
        return tuple(found)

    def _scheduled_input(self, trigger: Schedule) -> bytes:
        data = codec.encode(trigger.input)
        try:
            codec.decode(data, self.input_type)
        except msgspec.ValidationError:
            if trigger.input is not None:
                raise
            data = codec.encode(self.input_type())
        return data

    def finish(
        self, triggers: tuple[Trigger, ...], schedules: tuple[SchedulePlan, ...], queue: str
    ) -> Flow[Any, Any]:
        for branch in self.branches:
            self.problems.append(f"{self.bindings[branch.at, 0].name} has no end_when()")
        if not any(isinstance(instruction, Run) for instruction in self.instructions):
            self.problems.append("no steps: add one with then()")
        if not triggers:
            self.problems.append('no trigger: add one, such as triggered_by(manual("api"))')
        if self.problems:
            raise FlowDefinitionError(self.flow, self.problems)
        result_type = self.types[0] if len(set(map(repr, self.types))) == 1 else Any
        plan = Plan(
            flow=self.flow,
            instructions=(*(i for i in self.instructions if i is not None), End()),
            queue=queue,
            schedules=schedules,
            input_schema=codec.schema(self.input_type),
            result_schema=codec.schema(result_type),
            retention=self.retention,
        )
        return Flow(
            name=self.flow,
            plan=plan,
            plan_hash=plan.hash,
            bindings=self.bindings,
            input_type=self.input_type,
            result_type=result_type,
        )


def node_plan(flow: str, node: Node[Any, Any]) -> NodePlan:
    """The node as data."""
    return NodePlan(
        name=node.name,
        key=node.key,
        queue=node.queue or "",
        timeout_ms=milliseconds(node.timeout),
        retry=retry_plan(node.retry),
        limits=tuple(limit_plan(flow, node.name, limit, n) for n, limit in enumerate(node.limits)),
        compensation=node_plan(flow, node.compensation) if node.compensation else None,
        best_effort=node.is_best_effort,
    )


def retry_plan(policy: RetryPolicy) -> RetryPlan:
    """The policy in milliseconds and names."""
    return RetryPlan(
        initial_ms=milliseconds(policy.initial_interval),
        coefficient=float(policy.backoff_coefficient),
        maximum_ms=milliseconds(policy.maximum_interval),
        max_attempts=policy.max_attempts,
        jitter=float(policy.jitter),
        non_retryable=tuple(error.__name__ for error in policy.non_retryable),
    )


def limit_plan(flow: str, node: str, limit: Limit, number: int = 0) -> LimitPlan:
    """The limit as a bucket: of one node it has its name (and number), a shared one its own."""
    shared = isinstance(limit, SharedRateLimit)
    rate = limit.rate() if isinstance(limit, SharedRateLimit) else limit
    period = seconds(rate.per)
    if rate.strict:
        burst = rate.burst or max(1, rate.n // 50)
        interval = (period + STRICT_SLACK) / (rate.n + 1 - burst)
    else:
        burst = rate.burst or rate.n
        interval = period / rate.n
    own = f"node:{flow}/{node}" + (f"/{number}" if number else "")
    return LimitPlan(
        bucket=f"shared:{limit.name}" if shared else own,
        interval_us=max(1, round(interval * 1_000_000)),
        burst=burst,
        keyed=rate.key is not None,
    )
