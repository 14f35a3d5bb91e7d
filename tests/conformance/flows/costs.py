"""What attempts cost is summed, of those that failed too; hooks that fail change nothing."""

from __future__ import annotations

from resolute import CostEvent, FlowHooks, NodeEvent, RetryPolicy, current, node
from tests.conformance.case import Case, builder


@node("ask", retry=RetryPolicy(initial_interval="10ms", max_attempts=2))
async def ask() -> str:
    current().add_cost("0.1", model="large")
    if current().attempt == 1:
        raise ConnectionError("again")
    current().add_cost(0.2, model="small")
    return "asked"


@node("count")
def count(text: str) -> str:
    current().add_cost(1_000, "tokens")
    return text


def before(event: NodeEvent) -> None:
    raise SystemExit(event.node)


async def after(event: NodeEvent) -> None:
    raise LookupError(event.node)


def cost(event: CostEvent) -> None:
    raise ValueError(event.unit)


CASE = Case(
    builder("costs").with_hooks(FlowHooks(before, after, cost)).then(ask).then(count).build(),
    output="asked",
    costs={"usd": "0.4", "tokens": "1000"},
    history="""
        1.0 ask completed 2 [ConnectionError]
        2.0 count completed 1
    """,
)
