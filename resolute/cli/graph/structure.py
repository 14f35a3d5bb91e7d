"""From the plan's flat instructions back to the nesting that was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resolute.model.plan import Branch, Children, Each, Gate, Jump, Loop, Plan, Run, Sleep, Wait


@dataclass(frozen=True)
class Step:
    """A `then` or `then_parallel`; `pc` is its instruction."""

    pc: int
    run: Run


@dataclass(frozen=True)
class Choice:
    """A `when` with its two arms; `otherwise` is empty where there is no else."""

    pc: int
    name: str
    then: tuple[Block, ...]
    otherwise: tuple[Block, ...]


@dataclass(frozen=True)
class Pause:
    """A gate or a sleep."""

    pc: int
    wait: Wait


@dataclass(frozen=True)
class Every:
    """A `then_each`; `pc` is the instruction that runs its node."""

    pc: int
    each: Each


@dataclass(frozen=True)
class Spawn:
    """A `then_children`."""

    pc: int
    children: Children


@dataclass(frozen=True)
class Round:
    """A loop, with what a turn consists of."""

    pc: int
    name: str
    most: int
    body: tuple[Block, ...]


Block = Step | Choice | Pause | Every | Spawn | Round


def blocks_of(plan: Plan) -> tuple[Block, ...]:
    """The steps and branches of a flow in the order they were written."""
    return _parse(plan, 0, len(plan.instructions))


def _parse(plan: Plan, at: int, stop: int) -> tuple[Block, ...]:
    found: list[Block] = []
    while at < stop:
        match plan.instructions[at]:
            case Run() as run:
                found.append(Step(at, run))
                at += 1
            case Gate() | Sleep() as wait:
                found.append(Pause(at, wait))
                at += 1
            case Each() as each:
                found.append(Every(at, each))
                at += 1
            case Children() as children:
                found.append(Spawn(at, children))
                at += 1
            case Loop() as loop:
                name = loop.step.removesuffix(".while")
                body = _parse(plan, at + 1, loop.otherwise - 1)
                found.append(Round(at, name, loop.most, body))
                at = loop.otherwise
            case Branch() as branch:
                choice, at = _choice(plan, at, branch)
                found.append(choice)
            case _:
                at += 1  # the end; or the jump behind an arm whose else is empty
    return tuple(found)


def _choice(plan: Plan, pc: int, branch: Branch) -> tuple[Choice, int]:
    """The branch at `pc` and where its `end_when` is.

    An else arm is told by the jump over it, which stands right before it.
    """
    otherwise = branch.otherwise
    before = plan.instructions[otherwise - 1]
    if otherwise - 1 > pc and isinstance(before, Jump) and before.to > otherwise:
        end = before.to
        then = _parse(plan, pc + 1, otherwise - 1)
        return Choice(pc, branch.step, then, _parse(plan, otherwise, end)), end
    return Choice(pc, branch.step, _parse(plan, pc + 1, otherwise), ()), otherwise


def steps_in(blocks: Sequence[Block]) -> list[Step]:
    """All steps, the arms of branches too."""
    found: list[Step] = []
    for block in blocks:
        match block:
            case Step():
                found.append(block)
            case Round(body=body):
                found += steps_in(body)
            case Pause() | Every() | Spawn():
                pass
            case Choice(then=then, otherwise=otherwise):
                found += [*steps_in(then), *steps_in(otherwise)]
    return found
