"""Everything that `resolute show` says of a run, read at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from resolute.cli.live import read_situation
from resolute.cli.show.waiting import Wait, find_waits
from resolute.client import Client, DeadLetter, FlowRun, RunInfo
from resolute.client.history import read_fields, read_history
from resolute.errors import ResoluteError, UnknownRun, reading
from resolute.model import codec
from resolute.model.gates import GateResult
from resolute.model.messages import NodeRecord
from resolute.model.plan import Gate, Plan
from resolute.status import NodeStatus
from resolute.store import registry, runs
from resolute.store.costs import read_costs
from resolute.store.store import Store


class Snapshot(msgspec.Struct, frozen=True):
    """A run at `now`, which is Redis's time."""

    run: RunInfo
    now: float
    nodes: list[NodeRecord]
    waits: list[Wait]
    result: Any = None
    dead_letters: Sequence[DeadLetter] = ()
    costs: Mapping[str, Decimal] = {}
    decisions: Mapping[str, GateResult] = {}  # by gate; of a loop that of the latest turn

    @property
    def is_over(self) -> bool:
        return self.run.status.is_terminal

    def same_as(self, other: Snapshot | None) -> bool:
        """Whether nothing happened to the run between the two."""
        return other is not None and self._state() == other._state()

    def _state(self) -> tuple[object, ...]:
        return self.run, self.nodes, self.dead_letters, self.costs


async def take_snapshot(client: Client, run_id: str) -> Snapshot:
    """Read a run. Raises UnknownRun, DamagedRun."""
    header = await runs.read_header(client.store, run_id)
    if header is None:
        raise UnknownRun(run_id)
    with reading(run_id):
        return await _read(client, header)


async def _read(client: Client, header: runs.Header) -> Snapshot:
    plan = await client.directory.plan(header.plan) if header.plan else None
    nodes = await read_history(client.store, header, plan) if plan else []
    costs = await read_costs(client.store, header.id)
    letters = await client.letters.of_run(header.id)
    decisions = await _decisions(client.store, header, plan, nodes)
    if header.status.is_terminal:
        now = await registry.server_ms(client.store) / 1000
        result = await _result(client, header)
        return Snapshot(RunInfo.of(header), now, nodes, [], result, letters, costs, decisions)
    situation = await read_situation(client.store)
    held = await _held(client.store, header)
    waits = find_waits(header, plan, nodes, held, situation)
    return Snapshot(
        RunInfo.of(header), situation.now, nodes, waits, None, letters, costs, decisions
    )


async def _decisions(
    store: Store, header: runs.Header, plan: Plan | None, nodes: Sequence[NodeRecord]
) -> dict[str, GateResult]:
    """What was decided at the gates that the run has passed, in their order."""
    gates = {one.nodes[0].key for one in plan.instructions if isinstance(one, Gate)} if plan else ()
    passed = dict.fromkeys(
        node.name for node in nodes if node.name in gates and node.status is NodeStatus.COMPLETED
    )
    if not passed:
        return {}
    key = store.keys.of(header.id).flow(header.id)
    values = await store.execute("HMGET", key, *(f"o:{gate}" for gate in passed))
    return {
        gate: codec.decode(data, GateResult)
        for gate, data in zip(passed, values, strict=True)
        if data is not None
    }


async def _held(store: Store, header: runs.Header) -> dict[int, str]:
    """Of each node of the current step that has a record, what a limiter told it."""
    prefix = f"n:{header.seq}."
    fields = await read_fields(store, header.id, prefix)
    return {
        int(name.removeprefix(prefix)): runs.parse_record(value).hold
        for name, value in fields.items()
    }


async def _result(client: Client, header: runs.Header) -> Any:
    if header.status is not runs.RunStatus.COMPLETED:
        return None
    try:
        return await FlowRun[Any](client, header.id).peek()
    except (ResoluteError, ValueError):
        return None  # deleted meanwhile, or its plan is: the rest is still worth showing
