"""How a client of the faults starts a run: with its own id, with a unique key, or debounced."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from resolute import Client, Debounce, FlowRun, Unique
from resolute.durability import Level
from resolute.priority import PriorityName
from tests.faults import app
from tests.faults.app import Work
from tests.faults.cases import Case, Sharing
from tests.faults.oracle import Line


async def begin(
    client: Client,
    case: Case,
    work: Work,
    *,
    name: str,
    key: str,
    random: Random,
    serial: Iterator[int],
    priority: PriorityName = "normal",
    durability: Level | None = None,
) -> tuple[FlowRun[Any], Line]:
    """Start a run, and the line that says so.

    Who debounces has a `key` of its own, and its inputs are numbered in the order of its calls by
    `serial`.
    """
    match case.sharing:
        case Sharing.NONE:
            run = await client.start(
                case.flow, work, id=name, priority=priority, durability=durability
            )
            return run, Line("started", run.id, case.flow.name)
        case Sharing.UNIQUE:
            unique = Unique(app.key_of(work.number), random.choice(("existing", "replace")))
            run = await client.start(
                case.flow, work, unique=unique, priority=priority, durability=durability
            )
            return run, Line("started", run.id, case.flow.name)
        case Sharing.DEBOUNCED:
            work.number = next(serial)
            debounce = Debounce(key, "500ms", "2s")
            run = await client.start(
                case.flow, work, debounce=debounce, priority=priority, durability=durability
            )
            return run, Line("started", run.id, case.flow.name, note=str(work.number))
