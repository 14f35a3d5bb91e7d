"""Loops: a state, what asks whether there is another turn, and the body."""

from __future__ import annotations

from collections.abc import Callable

from resolute.model import codec
from resolute.model.compiling.assembly import Assembly
from resolute.model.flow import Predicate
from resolute.model.functions import check_count, check_plain
from resolute.model.loops import LoopFunctions
from resolute.model.operations import Operation, ThenLoop
from resolute.model.plan import Jump, Loop
from resolute.model.produced import outputs_of


def loop(on: Assembly, loop: ThenLoop, add: Callable[[Assembly, Operation], None]) -> None:
    """The loop's state is the output `<name>`: of the node that begins it, then of turns."""
    name = loop.name
    on.name_step(name)
    on.add_key(name)
    on.check(lambda: check_count(f"loop {name!r}: max_iterations", loop.max_iterations))
    on.check(lambda: codec.check_type(f"loop {name!r}: state", loop.state))
    if not loop.body:
        on.problems.append(f"loop {name!r} has no body")
    if loop.before is None and loop.after is None:
        on.problems.append(f"loop {name!r}: nothing changes its state: add an after=")
    _check_functions(on, loop)
    functions = LoopFunctions(name, loop.state, loop.max_iterations)
    initial = on.filled(loop.initial, loop.state, f"loop {name!r}: initial")
    on.inner(f"{name}.begin", name, loop.state, functions.begin(initial))
    head = len(on.instructions)
    on.bindings[head, 0] = Predicate(f"{name}.while", functions.head(loop.while_))
    on.instructions.append(None)
    if loop.before is not None:
        on.inner(f"{name}.before", name, loop.state, functions.turn(loop.before))
    opened, around = len(on.branches), on.turning
    on.turning |= outputs_of(loop.body).keys()
    on.loops += 1
    for operation in loop.body:
        add(on, operation)
    on.loops -= 1
    on.turning = around
    if len(on.branches) != opened:
        on.problems.append(f"loop {name!r}: its body leaves a when() open")
    if loop.after is not None:
        on.inner(f"{name}.after", name, loop.state, functions.turn(loop.after))
    on.instructions.append(Jump(head))
    end = len(on.instructions)
    on.instructions[head] = Loop((on.question(f"{name}.while"),), end, loop.max_iterations)
    if loop.after is None:  # else the state is the output of the step before already
        on.inner(f"{name}.end", name, loop.state, functions.end())
    on.types = (loop.state,)


def _check_functions(on: Assembly, loop: ThenLoop) -> None:
    what = f"loop {loop.name!r}"
    on.check(lambda: check_plain(f"{what}: while_", loop.while_, "its state"))
    if callable(loop.initial):
        on.check(lambda: check_plain(f"{what}: initial", loop.initial, "FlowState"))
    for name, fn in (("before", loop.before), ("after", loop.after)):
        if fn is not None:
            _check_turn(on, f"{what}: {name}", fn)


def _check_turn(on: Assembly, what: str, fn: object) -> None:
    on.check(lambda: check_plain(what, fn, "FlowState and its state"))
