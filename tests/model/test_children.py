"""How a step that starts runs is written, and what is refused of it."""

from __future__ import annotations

from typing import Any

import pytest

from resolute import FlowBuilder, FlowDefinitionError, manual, node
from resolute.model.flow import Flow
from resolute.model.plan import Children, Items


@node("work")
async def work(number: int) -> str:
    return str(number)


@node("list")
async def listed() -> list[int]:
    return [1]


def builder(name: str) -> FlowBuilder[Any, Any]:
    return FlowBuilder(name).triggered_by(manual())


LEAF = FlowBuilder("leaf", input=int).triggered_by(manual()).then(work).build()


def one(flow: Flow[Any, Any]) -> Children:
    return next(step for step in flow.plan.instructions if isinstance(step, Children))


def test_the_step_asks_for_inputs_and_starts_a_run_for_each():
    flow = builder("parent").then(listed).then_children("kids", flow=LEAF, sequential=True).build()
    assert isinstance(flow.plan.instructions[1], Items)
    assert one(flow) == Children("kids", one(flow).nodes, "leaf", window=1)
    assert flow.result_type == list[str]


def test_a_flow_brings_all_that_it_starts():
    middle = builder("middle").then(listed).then_children("kids", flow=LEAF).build()
    top = (
        builder("top")
        .then(listed)
        .then_children("a", flow=middle)
        .then_children("b", flow=LEAF, inputs=lambda _: [1])
        .build()
    )
    assert [flow.name for flow in top.family()] == ["top", "middle", "leaf"]


def test_the_queue_is_the_one_said_or_that_of_the_child_or_of_the_parent():
    fixed = builder("fixed").on_queue("theirs").then(listed).build()

    def queue(**options: Any) -> str:
        made = builder("p").then(listed).then_children("kids", **options)
        return one(made.build()).queue

    assert queue(flow=LEAF) == ""
    assert queue(flow=fixed) == "theirs"
    assert queue(flow=fixed, queue="other") == "other"
    assert queue(flow="by-name", queue="other") == "other"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"flow": LEAF, "max_concurrency": 0}, "max_concurrency: expected 1 or more, got 0"),
        ({"flow": LEAF, "on_child_error": "ignore"}, "expected on_child_error"),
        ({"flow": "no such name!"}, "flow: expected 1 to 100 characters"),
        ({"flow": LEAF, "queue": "a@b"}, "queue: expected a name without @"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], problem: str):
    with pytest.raises(FlowDefinitionError) as refused:
        builder("p").then(listed).then_children("kids", **options).build()
    assert problem in str(refused.value)


def test_what_is_no_list_cannot_be_the_inputs():
    with pytest.raises(FlowDefinitionError, match="gives no list: add inputs="):
        FlowBuilder("p", input=int).triggered_by(manual()).then_children("k", flow=LEAF).build()
