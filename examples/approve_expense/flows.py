"""Ask for approval, wait for it, pay later; what was reserved is released if it is not approved.

A decision is a signal, from the command line or from any program that holds a client:

    resolute start approve-expense --id e-1 --input '{"who": "ann", "amount": 120}'
    resolute signal e-1 decision --approve --by bob --reason "conference"
    resolute show e-1

Amounts up to 50 need no approval. Nobody decides within a week: GateTimeout, and the budget that
was reserved is released. The money goes out after the cooling-off of EXPENSE_COOLING (1 s here).
"""

from __future__ import annotations

import os

import msgspec

from resolute import FlowBuilder, FlowState, GateResult, RetryPolicy, TerminalError, manual, node

FREE = 50  # up to here nobody is asked
ONCE = RetryPolicy(max_attempts=1)


class Expense(msgspec.Struct):
    """What somebody spent, in whole units of the currency."""

    who: str
    amount: int


class Reserved(msgspec.Struct):
    """A part of the budget that is held for an expense."""

    who: str
    amount: int


class Paid(msgspec.Struct):
    """A transfer that was ordered."""

    who: str
    amount: int
    approved_by: str


@node("release-budget")
async def release_budget(reserved: Reserved) -> str:
    return f"released {reserved.amount} of {reserved.who}"


@node("reserve-budget")
async def reserve_budget(expense: Expense) -> Reserved:
    return Reserved(expense.who, expense.amount)


class Decided(msgspec.Struct):
    """A reservation, and what was said of it."""

    reserved: Reserved
    decision: GateResult


@node("pay", retry=ONCE)
async def pay(decided: Decided) -> Paid:
    if not decided.decision.approved:
        raise TerminalError(f"rejected: {decided.decision.reason or 'no reason given'}")
    reserved = decided.reserved
    return Paid(reserved.who, reserved.amount, decided.decision.decided_by)


def needs_approval(state: FlowState) -> bool:
    return state[reserve_budget].amount > FREE


def decided(state: FlowState) -> Decided:
    decision = state.get_or("decision", GateResult, GateResult(True, "nobody"))
    return Decided(state[reserve_budget], decision)


flow = (
    FlowBuilder("approve-expense", input=Expense)
    .triggered_by(manual("expenses"))
    .then(reserve_budget.on_error(release_budget))
    .when(needs_approval)
    .then_gate("decision", timeout="7d")
    .end_when()
    .then_sleep(os.environ.get("EXPENSE_COOLING", "1s"), name="cooling-off")
    .then(pay.with_input(decided))
    .with_deadline("30d")
    .build()
)
