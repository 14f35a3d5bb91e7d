"""Named nodes are run by name, with inputs that the code of the flow makes in a step before."""

from __future__ import annotations

from typing import Any

import msgspec

from resolute import FlowState, Node, node, output
from tests.conformance.case import Case, builder


class Charge(msgspec.Struct):
    amount: int
    currency: str = "EUR"


@node("begin")
async def begin(amount: int) -> int:
    return amount


@node("svc.charge")
async def charge(what: Charge) -> str:
    return f"{what.amount} {what.currency}"


@node("svc.double")
def double(amount: int) -> int:
    return 2 * amount


@node("svc.hello")
async def hello() -> str:
    return "hello"


@node("join")
async def join(found: list[str]) -> list[str]:
    return found


def two(state: FlowState) -> Charge:
    return Charge(state[begin] + 1, "USD")


def all_of(state: FlowState) -> list[str]:
    found: list[str] = state.keys()
    return [*found, *(str(state.get_or(key, Any, None)) for key in found)]


CHARGE = Node.named("svc.charge", returns=str)

CASE = Case(
    builder("named", input=int)
    .then(begin)
    .then(Node.named("svc.double", returns=int))
    .then_parallel(
        "charges",
        CHARGE.with_input(Charge(output("svc.double"))).as_("one"),
        CHARGE.with_input(two).as_("two"),
        Node.named("svc.hello"),
    )
    .then(join.with_input(all_of))
    .build(),
    input=5,
    served=(charge, double, hello),
    output=[
        "begin", "one", "svc.double", "svc.hello", "two",
        "5", "10 EUR", "10", "hello", "6 USD",
    ],
    history="""
        1.0 begin completed 1
        2.0 svc.double completed 1
        3.0 charges.input/one.input completed 1
        3.1 charges.input/two.input completed 1
        4.0 charges/svc.charge completed 1
        4.1 charges/svc.charge completed 1
        4.2 charges/svc.hello completed 1
        5.0 join completed 1
    """,
)  # fmt: skip
