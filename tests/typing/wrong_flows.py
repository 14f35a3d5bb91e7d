"""Flows that are wrong, each at the line that says so: a type checker must find these, and no more.

No part of what is checked with the project; see test_typing.py.
"""

from __future__ import annotations

import msgspec

from resolute import Client, FlowBuilder, FlowState, manual, node, schedule
from resolute.testing import FlowTester


class Order(msgspec.Struct):
    id: str
    total: int


class Receipt(msgspec.Struct):
    order: str


@node("charge")
async def charge(order: Order) -> Receipt:
    return Receipt(order.id)


@node("ship")
def ship(receipt: Receipt) -> int:
    return len(receipt.order)


begin = FlowBuilder("orders", input=Order).triggered_by(manual())
charged = begin.then(charge)
right = charged.then(ship).build()

# Steps: what a node takes, and what it is given.

first_step = begin.then(ship)  # wrong
next_step = charged.then(charge)  # wrong
in_parallel = begin.then_parallel("both", charge, ship)  # wrong


# The state: what a node gave, and what it is taken for.


def total_of(state: FlowState) -> str:
    return state[charge]  # wrong


def receipt_of(state: FlowState) -> Receipt:
    return state.get("charge", Order)  # wrong


# Predicates, lists, children, loops: what their functions say.


def answer(state: FlowState) -> str:
    return "yes" if state.input(Order).total > 100 else ""


def receipts(state: FlowState) -> list[Receipt]:
    return [state[charge]]


def is_more(turns: int) -> bool:
    return turns < 3


def counted(state: FlowState, turns: int) -> str:
    return "one more"


branch = charged.when(answer)  # wrong
each = charged.then_each("all", charge, items=receipts)  # wrong
kids = charged.then_children("kids", flow=right, inputs=receipts)  # wrong
loop = charged.then_loop("l", ship, state=int, initial=0, while_=is_more, after=counted)  # wrong


# Runs: what they are started with, and what comes of them.


async def start(client: Client) -> None:
    await client.start(right, Receipt("1"))  # wrong


async def result(client: Client) -> str:
    run = await client.start(right, Order("1", 2))
    return await run.result()  # wrong


tested: str = FlowTester().run(right, Order("1", 2)).output  # wrong

# Options.

daily = begin.triggered_by(schedule(24))  # wrong
urgent = charge.with_priority("urgent")  # wrong
soon = charge.with_timeout(["2m"])  # wrong
