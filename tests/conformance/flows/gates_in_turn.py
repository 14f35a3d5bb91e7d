"""Signals of one name are taken in the order they came, one by each gate."""

from __future__ import annotations

from resolute import FlowState, GateResult, node
from tests.conformance.case import Case, builder


@node("report")
async def report(names: list[str]) -> list[str]:
    return names


def deciders(state: FlowState) -> list[str]:
    return [state.get(gate, GateResult).decided_by for gate in ("first", "second")]


CASE = Case(
    builder("gates-in-turn")
    .then_gate("first", signal="approval")
    .then_gate("second", signal="approval")
    .then(report.with_input(deciders))
    .build(),
    signals=(
        ("approval", GateResult(True, decided_by="ann")),
        ("approval", GateResult(True, decided_by="bob")),
        ("approval", GateResult(True, decided_by="nobody asks")),
    ),
    output=["ann", "bob"],
    history="""
        1.0 first completed 1
        2.0 second completed 1
        3.0 report completed 1
    """,
)
