"""What runs have cost: the sums in their hashes, by unit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from resolute.model.costs import amount_of
from resolute.store.store import Store

UNITS = "costs"  # the field that names the units, with "|" between


def field_of(unit: str) -> str:
    """The field with the sum of a unit, in millionths."""
    return f"cost:{unit}"


async def read_costs(store: Store, flow_id: str) -> dict[str, Decimal]:
    """The sums of a run by unit; none where there is no such run. Raises ValueError."""
    key = store.keys.of(flow_id).flow(flow_id)
    units = await store.execute("HGET", key, UNITS)
    if not units:
        return {}
    names = [field_of(unit) for unit in str(units, "utf-8").split("|")]
    values = await store.execute("HMGET", key, *names)
    return costs_of({UNITS: units, **dict(zip(names, values, strict=True))})


def costs_of(fields: Mapping[str, bytes | None]) -> dict[str, Decimal]:
    """The sums by unit from the fields of a hash. Raises ValueError for one that is no number."""
    units = str(fields.get(UNITS) or b"", "utf-8").split("|")
    return {unit: amount_of(int(fields.get(field_of(unit)) or 0)) for unit in units if unit}


def add_costs(fields: dict[str, bytes], packed: str) -> None:
    """What `add_costs` of lib_node.lua does, to a run in memory."""
    parts = packed.split("|") if packed else []
    for unit, micros in zip(parts[::2], parts[1::2], strict=True):
        name = field_of(unit)
        if name not in fields:
            units = fields.get(UNITS)
            fields[UNITS] = unit.encode() if units is None else units + b"|" + unit.encode()
        fields[name] = str(int(fields.get(name, b"0")) + int(micros)).encode()
