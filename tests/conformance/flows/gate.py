"""A gate takes the signal of its name; the decision is its output."""

from __future__ import annotations

from resolute import GateResult, node
from tests.conformance.case import Case, builder


@node("publish")
async def publish(decision: GateResult) -> str:
    return f"{decision.approved} by {decision.decided_by}"


CASE = Case(
    builder("gate").then_gate("approval", timeout="1h").then(publish).build(),
    signals=(("approval", GateResult(approved=False, decided_by="ann")),),
    output="False by ann",
    history="""
        1.0 approval completed 1
        2.0 publish completed 1
    """,
)
