"""The flows that are measured: nodes that do nothing, or only sleep."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from resolute import FlowBuilder, FlowState, SharedRateLimit, manual, node
from resolute.model.nodes import Node

LIMITER_RATE = 200  # starts a second
LIMITER_NODES = 1000  # of one flow; several flows saturate the limiter for 20 s


async def _nothing() -> int:
    return 1


def _node(name: str) -> Node[Any, int]:
    return Node(name, _nothing)


@node("sleep-1s")
async def sleep_one_second() -> None:
    await asyncio.sleep(1)


@node("limited", rate_limit=SharedRateLimit("bench", LIMITER_RATE, "1s"), timeout="10m")
async def limited() -> None:
    """Writes down when it started: what the limiter is judged by."""
    folder = os.environ.get("RESOLUTE_BENCH_FOLDER")
    if folder:
        with (Path(folder) / f"{os.getpid()}.starts").open("a") as file:
            file.write(f"{time.monotonic()}\n")


enrichment = (
    FlowBuilder("bench-enrichment")
    .triggered_by(manual("bench"))
    .then(_node("fetch"))
    .then_parallel("sources", _node("tracker"), _node("chat"), _node("pulls"))
    .then(_node("merge"))
    .then(_node("store"))
    .build()
)

_chain = FlowBuilder("bench-chain").triggered_by(manual("bench"))
for _number in range(10):
    _chain = _chain.then(_node(f"step-{_number}"))
chain = _chain.build()


def _fan_out(width: int) -> FlowBuilder[Any, int]:
    nodes = [_node(f"n-{index}") for index in range(width)]
    return (
        FlowBuilder(f"bench-fan-{width}")
        .triggered_by(manual("bench"))
        .then(_node("first"))
        .then_parallel("wide", *nodes)
        .then(_node("last"))
    )


fan_1000 = _fan_out(1000).build()
fan_10000 = _fan_out(10_000).build()

sleepers = (
    FlowBuilder("bench-sleepers")
    .triggered_by(manual("bench"))
    .then_parallel("asleep", *(sleep_one_second.as_(f"s-{i}") for i in range(1000)))
    .build()
)

limiter = (
    FlowBuilder("bench-limiter")
    .triggered_by(manual("bench"))
    .then_parallel("limited", *(limited.as_(f"l-{i}") for i in range(LIMITER_NODES)))
    .build()
)

gate = FlowBuilder("bench-gate").triggered_by(manual("bench")).then_gate("go").build()


@node("item")
async def item(number: int) -> int:
    return number


@node("count")
async def count(state: int) -> int:
    return state


def _list(name: str, items: int) -> FlowBuilder[Any, int]:
    return (
        FlowBuilder(name)
        .triggered_by(manual("bench"))
        .then_each("items", item, items=lambda _: range(items), max_concurrency=200)
        .then(count.with_input(lambda state: sum(1 for _ in state.iter("items", int))))
    )


one_item = FlowBuilder("bench-item", input=int).triggered_by(manual("bench")).then(item).build()


def _children(name: str, runs: int) -> FlowBuilder[Any, int]:
    return (
        FlowBuilder(name)
        .triggered_by(manual("bench"))
        .then_children("runs", flow=one_item, inputs=lambda _: range(runs), max_concurrency=500)
        .then(count.with_input(lambda state: sum(1 for _ in state.iter("runs", int))))
    )


def _is_more(turns: int) -> bool:
    return turns > 0


def _one_less(_: FlowState, turns: int) -> int:
    return turns - 1


def _loop(name: str, turns: int) -> FlowBuilder[Any, int]:
    return (
        FlowBuilder(name)
        .triggered_by(manual("bench"))
        .then_loop(
            "turns", body=count, state=int, initial=turns, while_=_is_more, after=_one_less,
            max_iterations=turns,
        )
    )  # fmt: skip


a_loop = _loop("bench-loop", 100_000).build()
small_loop = _loop("bench-loop-small", 100).build()
children = _children("bench-children", 10_000).build()
small_children = _children("bench-children-small", 100).build()
a_list = _list("bench-list", 100_000).build()
small_list = _list("bench-list-small", 100).build()
