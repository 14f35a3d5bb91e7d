"""A gate whose signal does not come in time fails the run, and what completed is compensated."""

from __future__ import annotations

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("reserve")
async def reserve() -> str:
    return "seat"


@node("release")
async def release(_: str) -> None: ...


CASE = Case(
    builder("gate-timeout")
    .then(reserve.on_error(release))
    .then_gate("pay", timeout="50ms")
    .build(),
    status=RunStatus.FAILED,
    error="GateTimeout",
    history="""
        1.0 reserve completed 1
        2.0 pay failed 1 [GateTimeout]
        3.0 reserve/release completed 1 undoes reserve
    """,
)
