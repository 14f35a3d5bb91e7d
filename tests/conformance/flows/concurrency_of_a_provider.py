"""A provider's concurrency limit is shared by its nodes, whoever names them."""

from __future__ import annotations

import asyncio

from resolute import ConcurrencyLimit, Node, Provider, node
from tests.conformance.case import Case, builder

running: set[str] = set()


async def _together(name: str) -> int:
    running.add(name)
    await asyncio.sleep(0.01)  # in a node
    together = len(running)
    running.discard(name)
    return together


@node("left", concurrency=ConcurrencyLimit("concurrency-left", 5, key=lambda _: "any"))
async def left(value: int) -> int:
    return await _together("left")


@node("right")
async def right(value: int) -> int:
    return await _together("right")


service = Provider("svc", "1", [left, right], concurrency=ConcurrencyLimit("concurrency-svc", 1))

CASE = Case(
    builder("concurrency-of-a-provider", input=int)
    .then_parallel(
        "both",
        Node.named("svc.left", returns=int),
        Node.named("svc.right", returns=int).with_concurrency(ConcurrencyLimit("mine", 3)),
        Node.named("svc.left", returns=int).as_("again"),
    )
    .build(),
    input=1,
    output={"svc.left": 1, "svc.right": 1, "again": 1},
    history="""
        1.0 both/svc.left completed 1
        1.1 both/svc.right completed 1
        1.2 both/svc.left completed 1
    """,
    served=tuple(service.offered.values()),
)
