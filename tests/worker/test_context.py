"""What a node's function learns of the attempt that it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from resolute import NodeContext, current
from resolute.model.nodes import AsyncNode, SyncNode
from tests.support.flows import builder
from tests.support.stage import Stage
from tests.worker.parts import ONE, Make


async def tells(_: Any) -> list[Any]:
    found = current()
    return [found.key, *(getattr(found, name) for name in found.__struct_fields__)]


def tells_in_a_thread(_: Any) -> list[Any]:
    found = current()
    return [found.key, *(getattr(found, name) for name in found.__struct_fields__)]


@ONE
async def test_a_node_knows_its_run_its_place_and_its_attempt(stage: Stage, make_parts: Make):
    flow = (
        builder("context")
        .then_parallel(
            "both", AsyncNode("on-loop", tells), SyncNode("in-thread", tells_in_a_thread)
        )
        .build()
    )
    await stage.begin_run(flow)
    parts = make_parts(flow, slots=2)
    await parts.work()
    found = await stage.hash()
    expected = ["run", "context", "on-loop", 1, 0, 1, 0]
    assert msgspec.msgpack.decode(found["o:on-loop"]) == ["run/1.0", *expected]
    expected = ["run", "context", "in-thread", 1, 1, 1, 0]
    assert msgspec.msgpack.decode(found["o:in-thread"]) == ["run/1.1", *expected]


def test_the_key_of_a_node_is_that_of_all_its_attempts():
    first = NodeContext("r", "f", "n", 3, 1, attempt=1, crashes=0)
    third = NodeContext("r", "f", "n", 3, 1, attempt=3, crashes=1)
    assert first.key == third.key == "r/3.1"


def test_outside_of_a_node_there_is_no_attempt():
    with pytest.raises(LookupError, match="no node is running here"):
        current()


def test_outside_of_a_node_there_are_no_limits_to_pause():
    context = NodeContext("r", "f", "n", 3, 1, attempt=1, crashes=0)
    with pytest.raises(LookupError, match=r"pause_limits\(\): no node is running here"):
        context.pause_limits(1)
