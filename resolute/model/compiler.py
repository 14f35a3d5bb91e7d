"""From what a builder gathered to a plan, with every mistake reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Optional

from resolute.durations import Duration
from resolute.errors import FlowDefinitionError
from resolute.ids import check_name, check_queue
from resolute.model import codec
from resolute.model.compiling import branches, lists, loops, waits
from resolute.model.compiling.assembly import Assembly
from resolute.model.fitting import type_name
from resolute.model.flow import Flow, Notice
from resolute.model.functions import check_plain
from resolute.model.nodes import Node, same_of
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
from resolute.model.plan import End, Gate, Plan, Producer, RetentionPlan, Run, Sleep, Wide
from resolute.model.policies import RetentionPolicy
from resolute.model.produced import outputs_of
from resolute.model.state import FlowState
from resolute.model.trigger_plans import TriggerPlans, trigger_plans
from resolute.model.windows import unfold

MOST_PAYLOAD = 64 * 1024 * 1024  # bytes; a value in Redis is in the reply of a script, whole


def compile_flow(draft: Draft) -> Flow[Any, Any]:
    """The flow; raises FlowDefinitionError with all that is wrong."""
    operations, problems = unfold(draft.operations)
    produced = outputs_of(operations)
    on = Assembly(draft.name, draft.input_type, draft.hooks, produced, problems)
    on.check(lambda: check_name("flow", draft.name))
    if draft.queue:
        on.check(lambda: check_queue(draft.queue))
    _begin(on)
    for operation in operations:
        try:
            _add(on, operation)
        except ValueError as error:  # a name of ours that is too long, since theirs is
            on.problems.append(str(error))
    _end(on)
    if draft.retention is not None:
        policy = draft.retention
        on.check(lambda: _keep(on, RetentionPolicy(*policy)))
    if draft.namespace is not None:
        on.namespace = draft.namespace
        on.check(lambda: check_name("namespace", on.namespace))
    if draft.deadline is not None:
        _limit(on, draft.deadline)
    for name, type_ in draft.signals.items():
        _declare(on, name, type_)
    for name, fn in draft.queries.items():
        _ask(on, name, fn)
    _bound(on, draft.max_payload)
    triggers = trigger_plans(draft.triggers, draft.input_type, on.problems)
    flow = _finish(on, triggers, draft.queue)
    return replace(flow, hooks=draft.hooks, cursors=draft.cursors)


def _result_type(types: tuple[Any, ...]) -> Any:
    """What the last step returns; Any where it is one of several types."""
    if types[1:] == (type(None),):  # best effort
        return Optional[types[0]]  # noqa: UP045 - a type that is known only now
    return types[0] if len(set(map(repr, types))) == 1 else Any


def _bound(on: Assembly, size: object) -> None:
    """Take the most bytes that a value of the flow may have in Redis."""
    if isinstance(size, int) and 1 <= size <= MOST_PAYLOAD:
        on.max_payload = size
    else:
        on.problems.append(f"max_payload: expected 1 to {MOST_PAYLOAD:,} bytes, got {size!r}")


def _begin(on: Assembly) -> None:
    """What a run does before its first step: it tells the hooks of it.

    That is undone, last of all that is, by telling them of the end.
    """
    ending = Notice("after_flow", "after_flow") if on.hooks.after_flow else None
    if on.hooks.before_flow or ending:
        on.tell(Notice("before_flow", "before_flow", ending=ending))


def _end(on: Assembly) -> None:
    """What a run does after its last step."""
    if on.hooks.after_flow:
        on.tell(Notice("after_flow", "after_flow"))


def _add(on: Assembly, operation: Operation) -> None:
    """Add a step, between what tells the hooks of it."""
    step = step_of(operation)
    if step and on.hooks.before_step:
        on.tell(Notice(f"{step.key}.before_step", "before_step", step.name))
    _add_step(on, operation)
    if step and on.hooks.after_step:
        on.tell(Notice(f"{step.key}.after_step", "after_step", step.name))


def _add_step(on: Assembly, operation: Operation) -> None:
    match operation:
        case Then(node=node):
            on.step(node.name, (node,), parallel=False)
            on.types = (node.output_type,)
            if node.is_best_effort:
                on.types = (node.output_type, type(None))
        case Parallel(name=name, nodes=nodes):
            on.name_step(name)
            if not nodes:
                on.problems.append(f"step {name!r} has no nodes")
            on.step(name, nodes, parallel=True)
            on.types = (dict[str, Any],)
        case When(predicate=predicate):
            branches.when(on, predicate)
        case Else():
            branches.else_(on)
        case EndWhen():
            branches.end_when(on)
        case ThenGate():
            waits.gate(on, operation)
        case ThenSleep():
            waits.sleep(on, operation)
        case ThenSleepUntil():
            waits.sleep_until(on, operation)
        case ThenEach():
            lists.each(on, operation)
        case ThenChildren():
            lists.children(on, operation)
        case ThenLoop():
            loops.loop(on, operation, _add)
        case SaveCursor(node=node):
            on.save(node.name, (node,))
        case KeepLast(key=key):
            on.produced[key] = on.types[0] if len(set(on.types)) == 1 else Any
            keep: Node[Any, Any] = Node(key, same_of(on.produced[key]))
            on.step(key, (keep,), parallel=False)
        case Recall(key=key):
            type_ = on.produced[key]
            on.inner(f"{key}.result", f"{key}.result", type_, lambda s: s.get(key, type_))


def _limit(on: Assembly, deadline: Duration) -> None:
    on.deadline_ms = on.span("deadline", deadline)


def _declare(on: Assembly, name: str, type_: Any) -> None:
    on.check(lambda: check_name("signal", name))
    known = on.signals.setdefault(name, type_)
    if known is not type_:
        on.problems.append(
            f"signal {name!r} is {type_name(type_)}, but a gate that waits for it takes"
            f" {type_name(known)}"
        )


def _ask(on: Assembly, name: str, fn: Callable[[FlowState], Any]) -> None:
    on.check(lambda: check_name("query", name))
    on.check(lambda: check_plain(f"query {name!r}", fn, "FlowState"))
    on.queries[name] = fn


def _kept(on: Assembly) -> Iterator[tuple[int, int]]:
    """Where the nodes are whose outputs are given by reference."""
    for pc, step in enumerate(on.instructions):
        if not isinstance(step, Producer):
            continue
        for index, node in enumerate(step.nodes):
            if node.key not in on.kept:
                continue
            if isinstance(step, Run):
                yield pc, index
            else:
                on.problems.append(
                    f"output_ref({node.key!r}): expected the output of a node, not that of a"
                    " list, of children or of a gate"
                )


def _keep(on: Assembly, policy: RetentionPolicy) -> None:
    on.retention = RetentionPlan(policy.after_ms() or None, policy.keep_last)


def _finish(on: Assembly, triggers: TriggerPlans, queue: str) -> Flow[Any, Any]:
    for branch in on.branches:
        on.problems.append(f"{on.bindings[branch.at, 0].name} has no end_when()")
    if not any(
        isinstance(instruction, Run | Wide | Gate | Sleep) for instruction in on.instructions
    ):
        on.problems.append("no steps: add one with then()")
    kept = tuple(_kept(on))
    if on.problems:
        raise FlowDefinitionError(on.flow, on.problems)
    result_type = _result_type(on.types)
    plan = Plan(
        flow=on.flow,
        instructions=(*(i for i in on.instructions if i is not None), End()),
        queue=queue,
        schedules=triggers.schedules,
        input_schema=codec.schema(on.input_type),
        result_schema=codec.schema(result_type),
        retention=on.retention,
        deadline_ms=on.deadline_ms,
        webhooks=triggers.webhooks,
        queries=tuple(on.queries),
        started_by=triggers.signals,
        named=tuple(on.named),
        concurrency=tuple(on.concurrency),
        kept=kept,
        priorities=tuple(on.priorities),
        trigger_priorities=triggers.priorities,
        starts=triggers.starts,
        max_payload=0 if on.max_payload == codec.DEFAULT_MAX_PAYLOAD else on.max_payload,
        signals={name: codec.schema(type_) for name, type_ in on.signals.items()},
    )
    return Flow(
        name=on.flow,
        plan=plan,
        plan_hash=plan.hash,
        bindings=on.bindings,
        input_type=on.input_type,
        result_type=result_type,
        signals=on.signals,
        queries=on.queries,
        namespace=on.namespace or on.flow,
        children=tuple(on.children.values()),
        max_payload=on.max_payload,
    )
