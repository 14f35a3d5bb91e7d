"""What a flow may say of a node that another team's worker runs."""

from __future__ import annotations

from typing import Any

import pytest

from resolute import FlowBuilder, FlowDefinitionError, Node, RateLimit, Worker, manual, node
from resolute.errors import ConfigurationError
from resolute.model.plan import NamedPlan, Plan, Prepare, decode_plan


@node("plain")
async def plain(value: Any) -> Any:
    return value


CHARGE = Node.named("svc.charge", returns=int, queue="payments")


def builder() -> FlowBuilder[Any, Any]:
    return FlowBuilder("billing").triggered_by(manual())


def problems_of(one: Node[Any, Any]) -> tuple[str, ...]:
    with pytest.raises(FlowDefinitionError) as caught:
        builder().then(one).build()
    return caught.value.problems


def test_its_plan_says_who_runs_it_and_what_is_expected_of_it():
    flow = builder().then(CHARGE).then(CHARGE.as_("two").with_input(5).on_error(CHARGE)).build()
    assert [type(one).__name__ for one in flow.plan.instructions] == [
        "Run",
        "Prepare",
        "Run",
        "End",
    ]
    integer = {"type": "integer"}
    assert flow.plan.named == (
        NamedPlan(0, 0, returns=integer),
        NamedPlan(2, 0, prepared=True, returns=integer),
        NamedPlan(2, 0, undo=True, returns=integer),
    )
    made = flow.plan.instructions[1]
    assert isinstance(made, Prepare) and made.nodes[0].key == "[two]" and not made.nodes[0].queue
    assert flow.plan.node(2, 0).queue == "payments"
    assert decode_plan(flow.plan.encode()) == flow.plan


def test_a_plan_without_named_nodes_has_the_hash_that_it_had():
    assert Plan("a", ()).encode() == Plan("a", (), named=()).encode()
    assert len(decode_plan(Plan("a", ()).encode()).named) == 0


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (CHARGE.with_classifier(lambda error: None), "no with_classifier()"),
        (CHARGE.with_rate_limit(RateLimit(5, key=str)), "its rate limit cannot have a key="),
        (CHARGE.on_error(Node.named("svc.refund", input=5)), "that gets the output of"),
    ],
)
def test_what_only_the_code_of_the_flow_could_do_is_refused(one: Node[Any, Any], problem: str):
    (found,) = problems_of(one)
    assert found.startswith("node 'svc.charge' is run by another team's worker")
    assert problem in found


def test_its_types_are_held_against_those_around_it():
    @node("text")
    async def text(value: str) -> str:
        return value

    with pytest.raises(FlowDefinitionError, match="takes str, but the step before gives int"):
        builder().then(CHARGE).then(text).build()  # pyright: ignore[reportArgumentType]  # on purpose


def test_a_name_is_either_ours_or_theirs():
    with pytest.raises(FlowDefinitionError, match="two nodes are named 'plain'"):
        builder().then(plain).then(Node.named("plain").as_("other")).build()


def test_it_cannot_be_called_or_offered_here():
    with pytest.raises(TypeError, match="its code is not here"):
        CHARGE.fn(5)
    with pytest.raises(ConfigurationError, match=r"the code of node 'svc\.charge' is not here"):
        Worker("payments").with_nodes(CHARGE)
    assert Worker("payments", app="x").with_nodes(plain).config().nodes == ("plain",)
