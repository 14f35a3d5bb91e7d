"""What undoes a named node is the flow's: its input is made of the output when it is undone."""

from __future__ import annotations

from resolute import FlowState, Node, RetryPolicy, RunStatus, node, output
from tests.conformance.case import Case, builder

ONCE = RetryPolicy(max_attempts=1)


@node("svc.charge")
async def charge(amount: int) -> int:
    return amount * 10


@node("svc.refund")
async def refund(charged: int) -> None:
    if charged != 70:
        raise AssertionError(f"got {charged}")


@node("here", retry=ONCE)
async def here(charged: list[int]) -> None:
    if charged != [70, 7]:
        raise AssertionError(f"got {charged}")


@node("reserve")
async def reserve(amount: int) -> int:
    return amount


@node("broken", retry=ONCE)
async def broken() -> None:
    raise ValueError("broken")


def both(state: FlowState) -> list[int]:
    return [state.get("again", int), state[reserve]]


CHARGE = Node.named("svc.charge", returns=int)
REFUND = Node.named("svc.refund")

CASE = Case(
    builder("named-undone", input=int)
    .then(reserve.on_error(REFUND.with_input([output("reserve")])))
    .then(CHARGE.on_error(REFUND))
    .then(CHARGE.as_("again").with_input(output("reserve")).on_error(here.with_input(both)))
    .then_each(
        "all",
        CHARGE.on_error(here.with_input([output("all"), output("reserve")])),
        items=lambda state: [state[reserve]],
    )
    .then(broken)
    .build(),
    input=7,
    served=(charge, refund),
    status=RunStatus.FAILED,
    error="ValueError",
    history="""
        1.0 reserve completed 1
        2.0 svc.charge completed 1
        3.0 again.input completed 1
        4.0 svc.charge completed 1
        5.0 all.items completed 1
        6.0 all/svc.charge completed 1
        7.0 broken failed 1 [ValueError]
        8.0 all/here completed 1 undoes svc.charge
        9.0 svc.charge/here completed 1 undoes svc.charge
        10.0 svc.charge/svc.refund completed 1 undoes svc.charge
        11.0 reserve/svc.refund failed 1 [ValidationError] undoes reserve
    """,
)
