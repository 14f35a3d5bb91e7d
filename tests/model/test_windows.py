from __future__ import annotations

from typing import Any

import pytest

from resolute import FlowDefinitionError, Node, node
from tests.support.flows import builder, step


@node("many")
async def many() -> list[int]:
    return [1, 2, 3]


@node("one")
async def one(numbers: list[int]) -> str:
    return str(numbers)


WINDOWED: Node[Any, Any] = many.with_window(2)


def test_the_result_has_the_type_of_the_rest():
    assert builder("windowed").then(WINDOWED).then(one).build().result_type is str
    assert builder("alone").then(WINDOWED).build().result_type == list[int]


def test_the_batch_must_fit_what_comes_next():
    @node("text")
    async def text(value: str) -> str:
        return value

    with pytest.raises(FlowDefinitionError, match=r"'text' takes str, but the step before gives"):
        builder("wrong").then(WINDOWED).then(text).build()


@pytest.mark.parametrize("size", [0, -1])
def test_a_window_has_room_for_something(size: int):
    with pytest.raises(ValueError, match=f"window: expected 1 or more, got {size}"):
        many.with_window(size)


def test_what_is_no_list_has_no_window():
    @node("number")
    async def number() -> int:
        return 1

    with pytest.raises(
        FlowDefinitionError, match=r"'number': with_window\(\) needs a list, and it gives int"
    ):
        builder("wrong").then(number.with_window(2)).build()


def test_a_flow_has_one_window():
    again: Node[Any, Any] = step("again").with_window(3)
    with pytest.raises(FlowDefinitionError, match=r"with_window\(\) is there twice"):
        builder("twice").then(WINDOWED).then(again).build()


@pytest.mark.parametrize(
    "flow",
    [
        builder("parallel").then_parallel("both", WINDOWED, step("other")),
        builder("branch").when(lambda _: True).then(WINDOWED).end_when(),
        builder("each").then_each("each", step("item").with_window(2), items=lambda _: [1]),
        builder("loop").then_loop(
            "loop", body=WINDOWED, state=int, initial=0, while_=lambda _: False,
            after=lambda _, n: n,
        ),
        builder("rest").then(many).when(lambda _: True).then(WINDOWED).end_when(),
    ],
    ids=["parallel", "branch", "each", "loop", "rest"],
)  # fmt: skip
def test_a_window_is_refused_where_there_is_no_rest_of_the_flow(flow: Any):
    with pytest.raises(FlowDefinitionError, match="is for a node that is a step by itself"):
        flow.build()
