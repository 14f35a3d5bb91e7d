"""Where a retried run goes on: before the step that failed, or the first that was compensated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from resolute.client.history import StepEntry, steps_of
from resolute.model.plan import Plan, Producer
from resolute.store.runs import Header

_RESET = (
    "error", "ended", "cancel", "terminate", "undoing", "page", "skip", "pages", "token", "prev",
    "gate", "due", "deadline", "overran", "child_of",
)  # fmt: skip


@dataclass(frozen=True)
class Resumption:
    """The fields that the new run must not have, and those that say where it goes on."""

    drop: list[str]
    fields: list[str | int]


def plan_retry(header: Header, plan: Plan, fields: Mapping[str, bytes]) -> Resumption:
    """How to retry an ended run.

    `fields` are those of its hash that begin with s:, n:, u:, ui:, uo:, ux:, o: and x:.
    """
    steps = [step for step in steps_of(fields) if not step.undo]
    first = _first_to_repeat(header, steps, fields)
    kept = [step for step in steps if step.seq < first]
    repeated = [step for step in steps if step.seq >= first]
    keys = {node.key for step in repeated for node in plan.step(step.pc).nodes}
    undos = [n for n in range(1, header.undos + 1) if _undo_seq(fields, n) < first]
    drop: list[str] = list(_RESET)
    for name in fields:
        kind, _, rest = name.partition(":")
        if kind in ("o", "x"):
            gone = rest.partition("[")[0] in keys
        elif kind in ("n", "s"):
            gone = int(rest.partition(".")[0]) >= first
        else:
            gone = int(rest) not in undos
        if gone:
            drop.append(name)
    at = kept[-1] if kept else None
    setting: list[str | int] = [
        "seq", at.seq if at else 0, "pc", at.pc if at else 0, "undos", len(undos),
    ]  # fmt: skip
    previous = [step.pc for step in kept if isinstance(plan.instructions[step.pc], Producer)]
    if previous:
        setting += ["prev", previous[-1]]
    return Resumption(drop, setting)


def _first_to_repeat(header: Header, steps: list[StepEntry], fields: Mapping[str, bytes]) -> int:
    last = steps[-1].seq if steps else 1
    if header.undoing and header.undos:
        # Undone were those from the last down to the one that was being undone at the end.
        return min(last, _undo_seq(fields, header.undoing))
    return last


def _undo_seq(fields: Mapping[str, bytes], number: int) -> int:
    return int(fields[f"u:{number}"].split(b"|")[2])
