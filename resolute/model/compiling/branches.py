"""Branches: two arms, and what either can have left behind."""

from __future__ import annotations

from collections.abc import Callable

from resolute.model.compiling.assembly import Assembly, OpenBranch
from resolute.model.flow import Predicate
from resolute.model.functions import check_plain
from resolute.model.plan import Branch, Jump
from resolute.model.state import FlowState


def when(on: Assembly, predicate: Callable[[FlowState], bool]) -> None:
    on.predicates += 1
    name = f"when.{on.predicates}"
    pc = len(on.instructions)
    on.check(lambda: check_plain(name, predicate, "FlowState"))
    on.bindings[pc, 0] = Predicate(name, predicate)
    on.instructions.append(None)
    on.branches.append(OpenBranch(pc, on.keys, on.types))


def else_(on: Assembly) -> None:
    if not on.branches or on.branches[-1].otherwise is not None:
        on.problems.append("else_() without an open when()")
        return
    branch = on.branches[-1]
    branch.jump = len(on.instructions)
    on.instructions.append(None)
    branch.otherwise = len(on.instructions)
    branch.keys_then, branch.types_then = on.keys, on.types
    on.keys, on.types = branch.keys_before, branch.types_before


def end_when(on: Assembly) -> None:
    if not on.branches:
        on.problems.append("end_when() without an open when()")
        return
    branch = on.branches.pop()
    end = len(on.instructions)
    if branch.jump is None:
        branch.keys_then, branch.types_then = branch.keys_before, branch.types_before
    else:
        on.instructions[branch.jump] = Jump(end)
    on.keys |= branch.keys_then
    on.types = (*branch.types_then, *on.types)
    _close(on, branch, end if branch.otherwise is None else branch.otherwise)


def _close(on: Assembly, branch: OpenBranch, otherwise: int) -> None:
    name = on.bindings[branch.at, 0].name
    on.instructions[branch.at] = Branch((on.question(name),), otherwise)
