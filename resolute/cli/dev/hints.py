"""What `resolute dev` tells a newcomer once it is ready."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from resolute.cli.live import Situation, queues_of
from resolute.client import Client
from resolute.model.plan import Plan

_EXAMPLES: dict[str, Any] = {
    "string": "…", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {},
    "null": None,
}  # fmt: skip


async def hints(client: Client, situation: Situation) -> list[str]:
    """How to start a flow that is offered, and which queues nobody here serves."""
    names = sorted({name for worker in situation.workers for name in worker.flows})
    plans = [(await client.directory.offered(name)).plan for name in names]
    served = {worker.queue for worker in situation.workers}
    lines = [f"flows: {', '.join(names)}"]
    if plans:
        lines += ["from another terminal in this folder:", f"  {_start_command(plans[0], served)}"]
        lines += ["  resolute ls, resolute show ID, resolute graph FLOW, resolute doctor"]
    return [*lines, *_unserved(plans, served)]


def _unserved(plans: Sequence[Plan], served: set[str]) -> Iterator[str]:
    for plan in plans:
        for queue in sorted(queues_of(plan, plan.queue) - served - {""}):
            yield f"flow {plan.flow} needs queue {queue}: stop, and start with --queue {queue} too"


def _start_command(plan: Plan, served: set[str]) -> str:
    example = example_of(plan.input_schema, plan.input_schema.get("$defs", {}))
    given = f" --input {shlex.quote(_json(example))}" if example not in (None, {}) else ""
    # Who offers a flow on several queues must say on which it shall run.
    queue = f" --queue {min(served)}" if len(served) > 1 and not plan.queue else ""
    return f"resolute start {plan.flow}{queue}{given} --wait"


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=-1).decode()


def example_of(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """A value that has what a JSON schema requires, and nothing else."""
    reference = schema.get("$ref")
    if reference:
        return example_of(definitions.get(str(reference).rpartition("/")[2], {}), definitions)
    for known in ("default", "const"):
        if known in schema:
            return schema[known]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("anyOf"):
        return example_of(schema["anyOf"][0], definitions)
    if schema.get("type") == "object":
        fields = schema.get("properties", {})
        needed = schema.get("required", ())
        return {name: example_of(fields.get(name, {}), definitions) for name in needed}
    return _EXAMPLES.get(str(schema.get("type")))
