"""What a conformance flow is, and the history of a run as one line a node instance."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from resolute import Flow, FlowBuilder, Node, RunStatus, manual
from resolute.model.messages import NodeRecord
from resolute.priority import PriorityName

FOLDER = Path(__file__).parent / "flows"


@dataclass(frozen=True)
class Case:
    """A flow that exercises one rule of the language, and what a run of it comes to everywhere.

    `history` has a line for each node instance, in order of (seq, index): its place, its name
    (after its step's where that differs), status, attempts, the type of its last error in
    brackets, and which node it compensates. With `cancel_while` the run is cancelled when that
    node runs, or terminated if it `is_terminated`; such a node sleeps for a minute. `signals` are
    sent when it has started. `error` is the type of the run's error. The nodes `served` are
    offered by name. `has_storage` says whether there is one. `costs` are the sums by unit. The run
    is started with `priority`; a line of the history has in parentheses one that is not normal.
    """

    flow: Flow[Any, Any]
    history: str
    input: Any = None
    status: RunStatus = RunStatus.COMPLETED
    output: Any = None
    error: str | None = None
    cancel_while: str = ""
    is_terminated: bool = False
    signals: tuple[tuple[str, Any], ...] = ()
    served: tuple[Node[Any, Any], ...] = ()
    has_storage: bool = False
    costs: Mapping[str, str] = field(default_factory=dict[str, str])
    priority: PriorityName = "normal"


@dataclass(frozen=True)
class Outcome:
    """What a run came to, and the fields of its hash."""

    status: RunStatus
    output: Any
    error: str | None
    history: list[str]
    costs: Mapping[str, Decimal]
    fields: Mapping[str, bytes] = field(compare=False, repr=False, default_factory=dict[str, bytes])


def builder(name: str, **options: Any) -> FlowBuilder[Any, Any]:
    """A flow that is started by hand."""
    return FlowBuilder(name, **options).triggered_by(manual())


def expected(case: Case) -> Outcome:
    lines = [line.strip() for line in case.history.strip().splitlines()]
    costs = {unit: Decimal(amount) for unit, amount in case.costs.items()}
    return Outcome(case.status, case.output, case.error, lines, costs)


def lines_of(history: Iterable[NodeRecord]) -> list[str]:
    """A history as `Case.history` has it."""
    ordered = sorted(history, key=lambda record: (record.seq, record.index))
    return [_line(record) for record in ordered]


def _line(record: NodeRecord) -> str:
    name = record.name if record.name == record.step else f"{record.step}/{record.name}"
    error = f" [{record.error.type}]" if record.error else ""
    undone = f" undoes {record.compensates}" if record.compensates else ""
    priority = f" ({record.priority})" if record.priority != "normal" else ""
    did = f"{record.status} {record.attempts}"
    return f"{record.seq}.{record.index} {name} {did}{error}{undone}{priority}"


def load_cases() -> dict[str, Case]:
    """Every `CASE` of the files in `flows`, by the file's name."""
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    return {name: importlib.import_module(f"tests.conformance.flows.{name}").CASE for name in names}
