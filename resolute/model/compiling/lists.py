"""Lists and children: a step as wide as a list that is known only at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from resolute.ids import check_name, check_queue
from resolute.model.compiling.assembly import Assembly
from resolute.model.fitting import fits
from resolute.model.flow import Flow, Lister
from resolute.model.functions import check_count, check_plain
from resolute.model.node_plans import node_plan
from resolute.model.nodes import PREVIOUS
from resolute.model.operations import ThenChildren, ThenEach
from resolute.model.plan import Children, Each, Items, NodePlan
from resolute.model.produced import children_type, each_type
from resolute.model.state import FlowState
from resolute.model.templates import Template, has_markers


def each(on: Assembly, each: ThenEach) -> None:
    on.name_step(each.name)
    on.add_key(each.name)
    if each.node.cursor is not None:
        on.problems.append(f"step {each.name!r}: a node that runs for each item moves no cursor")
    if each.node.input is not PREVIOUS:
        on.problems.append(
            f"step {each.name!r}: node {each.node.name!r} gets the items: no with_input()"
        )
    forgives = _forgives(on, each.name, "on_item_error", each.on_item_error)
    window = _window(on, each.name, each.max_concurrency)
    on.prioritize(0, each.node.priority)
    _items(on, each.name, "items", each.items, Any)
    node = on.check_node(each.node, own=each.name)
    on.bindings[len(on.instructions), 0] = node
    plan = node_plan(on.flow, node)
    plan = msgspec.structs.replace(plan, key=each.name, best_effort=forgives)
    on.note(len(on.instructions), 0, node)
    on.instructions.append(Each(each.name, (plan,), window))
    on.types = (each_type(each),)


def children(on: Assembly, children: ThenChildren) -> None:
    """Each run is waited for by a node of the step, which nobody runs."""
    name, flow = children.name, children.flow
    on.name_step(name)
    on.add_key(name)
    forgives = _forgives(on, name, "on_child_error", children.on_child_error)
    window = _window(on, name, children.max_concurrency)
    queue, input_type = children.queue, Any
    if isinstance(flow, Flow):
        queue = queue or flow.plan.queue
        input_type = flow.input_type
        on.children[flow.name] = flow
        flow = flow.name
    else:
        on.check(lambda: check_name("flow", flow))
    if queue:
        on.check(lambda: check_queue(queue))
    _items(on, name, "inputs", children.inputs, input_type)
    on.check(lambda: on.prioritize(0, children.priority))
    plan = NodePlan(name, name, best_effort=forgives)
    looped = on.loops > 0
    on.instructions.append(Children(name, (plan,), flow, queue, window, looped))
    on.types = (children_type(children),)


def _forgives(on: Assembly, name: str, option: str, value: str) -> bool:
    """Whether a wide step goes on without those that fail."""
    if value not in ("continue", "fail_fast"):
        on.problems.append(
            f'step {name!r}: expected {option} "continue" or "fail_fast", got {value!r}'
        )
    return value == "continue"


def _window(on: Assembly, name: str, most: int | None) -> int:
    if most is not None:
        on.check(lambda: check_count(f"step {name!r}: max_concurrency", most))
    return most or 0


def _items(
    on: Assembly,
    name: str,
    kind: str,
    items: Callable[[FlowState], Iterable[Any]] | None,
    type_: Any,
) -> None:
    """The node that says how wide the step `name` is."""
    asked = f"{name}.{kind}"
    if items is not None and not has_markers(items):
        on.check(lambda: check_plain(f"step {name!r}: {kind}", items, "FlowState"))
    filled = on.filled(items, list, f"step {name!r}: {kind}")
    filled = filled.decoded if isinstance(filled, Template) else filled
    on.bindings[len(on.instructions), 0] = Lister(asked, filled, type_)
    if items is None and not all(fits(produced, list) for produced in on.types):
        on.problems.append(f"step {name!r}: the step before gives no list: add {kind}=")
    on.instructions.append(Items((on.question(asked),)))
    on.types = (Any,)
