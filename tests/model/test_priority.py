"""Priorities as users say them, as plans have them, and as lanes are named after them."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from resolute import FlowBuilder, FlowState, Node, manual, schedule, signal, webhook
from resolute.errors import FlowDefinitionError
from resolute.model.flow import Flow
from resolute.model.plan import PriorityPlan, decode_plan
from resolute.priority import (
    Priority,
    check_priority,
    home_of,
    lane_of,
    lane_within,
    lanes_of,
    name_in,
    priority_of,
    queue_of,
    stream_of,
    without_priority,
)
from resolute.store.keys import Keys
from tests.support.flows import builder, chain, chain_of, step

WRONG = cast("Any", "urgent")


def test_the_lane_of_normal_nodes_is_the_queue_itself():
    assert lanes_of("q") == ["q^high", "q", "q^low"]
    assert lane_of("q", "") == lane_of("q", Priority.NORMAL) == "q"


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("special", ["", "@plan", "@!svc.charge"])
def test_a_name_says_the_queue_and_the_priority(priority: Priority, special: str):
    name = lane_of("q", priority) + special
    assert (queue_of(name), priority_of(name)) == ("q", priority)
    assert home_of(name) == lane_of("q", priority)
    assert without_priority(name) == f"q{special}"


def test_a_stream_that_is_for_some_alone_is_one_for_every_priority():
    assert stream_of("q^high@plan") == stream_of("q@plan") == "q@plan"
    assert stream_of("q^high") == "q^high"
    assert name_in("q@plan", "high") == "q^high@plan"
    assert name_in("q@plan", "") == "q@plan"
    assert name_in("q^high", "") == "q^high"
    (partition,) = Keys("ns", 1).partitions
    assert partition.queue("q^low@plan") == partition.queue("q^low", "plan")
    assert partition.queue("q^low@plan") == partition.queue("q", "plan")
    assert partition.queue("q^low") != partition.queue("q")


def test_what_a_damaged_name_says_counts_as_normal():
    assert priority_of("q^hiqh") is Priority.NORMAL


@pytest.mark.parametrize(
    ("queue", "priority", "lane"),
    [("", "", "q^low"), ("gpu", "", "gpu^low"), ("", "high", "q^high"),
     ("gpu", "normal", "gpu"), ("", "normal", "q")],
)  # fmt: skip
def test_what_a_node_does_not_say_is_that_of_its_run(queue: str, priority: str, lane: str):
    assert lane_within("q^low", queue, priority) == lane


@pytest.mark.parametrize("wrong", ["urgent", "", "HIGH", 1, None])
def test_what_is_no_priority_is_refused(wrong: object):
    with pytest.raises(ValueError, match='priority: expected one of "high", "normal", "low", got'):
        check_priority(wrong)


def test_a_node_with_a_wrong_priority_is_named():
    with pytest.raises(ValueError, match="node 'a': priority: expected one of"):
        step("a", priority="urgent")
    with pytest.raises(ValueError, match="node 'a': priority"):
        step("a").with_priority(WRONG)


def test_build_names_each_trigger_and_step_with_a_wrong_priority():
    flow = (
        FlowBuilder("wrong")
        .triggered_by(schedule("0 0 * * *", priority=WRONG))
        .triggered_by(webhook("/a", secret=None, priority=WRONG))
        .triggered_by(signal("b", priority=WRONG))
        .then(step("list"))
        .then_children("kids", flow="kid", priority=WRONG)
    )
    with pytest.raises(FlowDefinitionError) as found:
        flow.build()
    text = str(found.value)
    assert text.count("expected one of") == 4
    for name in ("schedule '0 0 * * *'", "webhook '/a'", "signal 'b'"):
        assert name in text


def test_a_plan_without_priorities_is_what_it_was():
    plan = chain("a").plan
    assert len(msgspec.msgpack.decode(plan.encode())) <= plan.__struct_fields__.index("priorities")


def test_a_plan_says_those_that_nodes_say():
    undo, high = step("undo"), step("high", priority="high")
    flow = (
        builder("all")
        .then(step("plain"))
        .then(high.on_error(undo))
        .then_each("items", step("item").with_priority("low"))
        .then_children("kids", flow="kid", priority="low")
        .build()
    )
    assert decode_plan(flow.plan.encode()) == flow.plan
    assert flow.plan.priorities == (
        PriorityPlan(1, 0, False, "high"),
        PriorityPlan(1, 0, True, "high"),  # of the compensation too
        PriorityPlan(2, 0, False, "low"),  # and of the node that is asked for the items
        PriorityPlan(3, 0, False, "low"),
        PriorityPlan(5, 0, False, "low"),
    )


def test_a_compensation_may_have_its_own():
    flow = chain_of(step("a", priority="high").on_error(step("b", priority="low")))
    assert flow.plan.lane_at(0, 0, "q") == "q^high"
    assert flow.plan.lane_at(0, 0, "q", undo=True) == "q^low"


def test_all_items_and_runs_of_a_step_have_one_lane():
    flow: Flow[Any, Any] = (
        builder("wide")
        .then_each("items", step("item", priority="high", queue="gpu"))
        .then_children("kids", flow="kid", queue="kids")
        .then_children("more", flow="kid")
        .build()
    )
    assert flow.plan.lane_at(1, 7, "q^low") == "gpu^high"
    assert flow.plan.lane_at(3, 7, "q^low") == "kids^low"
    assert flow.plan.lane_at(5, 7, "q^low") == "q^low"


def test_a_node_of_ours_is_as_urgent_as_the_node_that_it_is_for():
    def amount(_: FlowState) -> int:
        return 1

    named: Node[Any, Any] = Node.named("svc.charge", input=amount)
    flow = (
        builder("ours")
        .then(step("a").with_cursor("c").with_priority("high"))
        .then(named.with_priority("high"))
        .build()
    )
    lanes = [flow.plan.lane_at(pc, 0, "q") for pc in range(len(flow.plan.instructions) - 1)]
    assert lanes == ["q^high"] * 4  # the node, its cursor's, the input of the named one, that


def test_triggers_have_priorities_of_their_own():
    flow = (
        FlowBuilder("triggered")
        .triggered_by(manual())
        .triggered_by(schedule("0 0 * * *"))
        .triggered_by(schedule("0 1 * * *", priority="low"))
        .triggered_by(webhook("/hook", secret=None, priority="high"))
        .triggered_by(signal("go", priority="low"))
        .then(step("a"))
        .build()
    )
    assert flow.plan.trigger_priorities == {
        "schedule 1": "low", "webhook /hook": "high", "signal go": "low"
    }  # fmt: skip
    assert decode_plan(flow.plan.encode()) == flow.plan
