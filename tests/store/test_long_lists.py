"""A child that returns a list tells its parent: a short one in one script, a long one in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from resolute.coordinator import family
from resolute.model.flow import Flow
from resolute.model.references import Stored, is_stub, stored_in, stub_of
from resolute.status import Code, NodeStatus, RunStatus
from resolute.store import transitions
from tests.support.flows import builder, step
from tests.support.stage import NIL, Stage

SHORT = 100  # LONGEST of lib_child.lua
HOLE = 3  # the item that failed
STORED = stub_of(Stored("x", 5, "00" * 32))
DEFAULT = 1024 * 1024


def listing(max_payload: int) -> Flow[Any, Any]:
    return (
        builder("listing")
        .with_max_payload(max_payload)
        .then_each("all", step("one"), items=lambda _: [], on_item_error="continue")
        .build()
    )


def parent(child: Flow[Any, Any]) -> Flow[Any, Any]:
    return builder("parent").then_children("kids", flow=child, inputs=lambda _: []).build()


async def list_of(stage: Stage, count: int) -> None:
    """Complete the node that lists inputs or items."""
    held = await stage.claim_one("lister")
    for start in range(0, count, 400):
        items = [NIL] * min(400, count - start)
        assert await stage.store_items("lister", held, items, start) == "OK"
    packed = msgspec.msgpack.encode(count)
    assert await stage.complete("lister", held, packed, arg=str(count)) == "OK"
    await stage.coordinate()


async def played(stage: Stage, outputs: Sequence[bytes], max_payload: int = DEFAULT) -> None:
    """A run whose only child has listed so many items, all but one of which have an output."""
    flow = parent(listing(max_payload))
    await stage.offer(*flow.family())
    await stage.start(flow)
    await stage.coordinate()
    await list_of(stage, 1)
    await list_of(stage, len(outputs))
    while taken := await stage.claim("worker"):
        for held in taken:
            if held.entry.index == HOLE:
                assert await stage.fail("worker", held, best_effort=True) == "OK"
            else:
                output = outputs[held.entry.index]
                assert await stage.complete("worker", held, output) == "OK"
        await stage.coordinate()


def packed(outputs: Sequence[bytes]) -> bytes:
    there = [NIL if at == HOLE else output for at, output in enumerate(outputs)]
    return msgspec.msgpack.encode([msgspec.Raw(output) for output in there])


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The answers to commits, each of which is sent twice: the second must be as the first."""
    found: list[str] = []
    commit = transitions.commit

    async def twice(*arguments: Any) -> list[tuple[str, str]]:
        first = await commit(*arguments)
        assert [code for code, _ in await commit(*arguments)] == [code for code, _ in first]
        found.extend(code for code, _ in first)
        return first

    monkeypatch.setattr(transitions, "commit", twice)
    return found


@pytest.mark.parametrize("count", [SHORT, SHORT + 1, 2 * family.READ + 1])
async def test_a_list_of_any_length_is_the_parents_output(
    stage: Stage, codes: list[str], count: int
):
    outputs = [msgspec.msgpack.encode(10 * index) for index in range(count)]
    await played(stage, outputs)
    assert await stage.status() is RunStatus.COMPLETED
    assert (await stage.hash())["o:kids[0]"] == packed(outputs)
    assert codes.count(Code.LONG) == (count > SHORT)


@pytest.mark.parametrize("is_over", [False, True], ids=["fits", "one byte more"])
@pytest.mark.parametrize("count", [SHORT, SHORT + 1, 2 * family.READ + 1])
async def test_a_list_has_the_size_that_a_value_may_have(stage: Stage, count: int, is_over: bool):
    outputs = [b"\xa1x"] * count
    size = len(packed(outputs))
    await played(stage, outputs, size - is_over)
    record = await stage.record_of("run", 2, 0)
    assert record is not None
    if not is_over:
        assert record.status is NodeStatus.COMPLETED
        return
    assert record.status is NodeStatus.FAILED
    error = (await stage.header()).error
    assert error is not None
    assert error.type == "PayloadTooLarge"
    assert error.message == f"payload of {size:,} bytes is over the limit of {size - 1:,} bytes"


@pytest.mark.parametrize("at", [0, SHORT, 2 * family.READ])
@pytest.mark.parametrize("count", [SHORT, 2 * family.READ + 1])
async def test_a_list_with_a_value_in_the_storage_is_a_stub_of_any_size(
    stage: Stage, count: int, at: int
):
    outputs = [b"\xa3abc"] * count
    outputs[min(at, count - 1)] = STORED
    await played(stage, outputs, 600)
    output = (await stage.hash())["o:kids[0]"]
    assert is_stub(output)
    assert len(stored_in(output)) == 1
    assert output.endswith(packed(outputs))
