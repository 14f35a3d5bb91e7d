"""A plan is data: known by its content, the same on every machine."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from resolute.errors import ResoluteError
from resolute.model.builder import FlowBuilder
from resolute.model.nodes import AsyncNode, Node
from resolute.model.plan import FORMAT, Plan, RetentionPlan, decode_plan
from resolute.model.policies import ConcurrencyLimit, RateLimit, RetryPolicy
from resolute.model.triggers import schedule
from tests.support.flows import always, builder, chain, chain_of, either, fan, step, undoable


def hash_of(*nodes: Node[Any, Any]) -> str:
    return chain_of(*nodes).plan_hash


def test_the_hash_does_not_cover_what_functions_do():
    """Newly deployed code applies to runs in flight."""

    async def one(value: Any) -> Any:
        return value

    async def other(value: Any) -> Any:
        return [value]

    assert hash_of(AsyncNode("a", one)) == hash_of(AsyncNode("a", other))


def test_the_hash_changes_with_every_policy():
    plain = step("a")
    changed = [
        plain.as_("x"),
        plain.with_timeout("1s"),
        plain.with_retry(RetryPolicy(max_attempts=9)),
        plain.with_retry(RetryPolicy(non_retryable=(ValueError,))),
        plain.with_rate_limit(RateLimit(5, "1s")),
        plain.with_concurrency(ConcurrencyLimit("a", 5)),
        plain.with_concurrency(ConcurrencyLimit("a", 6)),
        plain.with_concurrency(ConcurrencyLimit("a", 5, key=str)),
        plain.on_queue("gpu"),
        plain.on_error(step("undo")),
        plain.best_effort(),
    ]
    assert len({hash_of(one) for one in [plain, *changed]}) == 1 + len(changed)


def test_the_hash_changes_with_name_order_shape_queue_and_schedule():
    flows = [
        builder("f").then(step("a")).then(step("b")),
        builder("g").then(step("a")).then(step("b")),
        builder("f").then(step("b")).then(step("a")),
        builder("f").then_parallel("p", step("a"), step("b")),
        builder("f").then(step("a")).when(always).then(step("b")).end_when(),
        builder("f").then(step("a")).then(step("b")).on_queue("gpu"),
        builder("f").then(step("a")).then(step("b")).triggered_by(schedule("0 0 * * *")),
        FlowBuilder("f", input=int).triggered_by(schedule("0 0 * * *", input=1)).then(step("a")),
    ]
    assert len({made.build().plan_hash for made in flows}) == len(flows)


def test_the_hash_is_the_same_in_every_process():
    """Not by the order of a set or the seed of a hash, which differ from one to the next."""
    program = (
        "from tests.support.flows import either, fan, undoable, chain_of;"
        "print(either().plan_hash, fan(3).plan_hash, chain_of(undoable('a')).plan_hash)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    found = [either().plan_hash, fan(3).plan_hash, chain_of(undoable("a")).plan_hash]
    assert answer.stdout.split() == found


def test_a_plan_goes_over_the_wire_and_comes_back_as_it_was():
    full = (
        FlowBuilder("full", input=dict[str, int])
        .on_queue("q")
        .triggered_by(schedule("0 4 * * *", timezone="Europe/Oslo", input={"a": 1}))
        .then(undoable("a").with_rate_limit((RateLimit(5, "1s"), RateLimit(50, "1m", strict=True))))
        .when(always)
        .then_parallel("p", step("b", queue="gpu"), step("c").best_effort())
        .otherwise(step("d", retry=RetryPolicy(non_retryable=(OSError,))))
        .build()
    )
    again = decode_plan(full.plan.encode())
    assert again == full.plan
    assert again.hash == full.plan_hash == full.plan.hash
    assert again.format == FORMAT


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode({"flow": "f"})])
def test_what_is_no_plan_is_refused(data: bytes):
    with pytest.raises(msgspec.DecodeError):
        decode_plan(data)


def test_a_plan_of_a_later_minor_version_with_more_fields_can_still_be_read():
    data = [*msgspec.structs.astuple(either().plan), "something new"]
    assert decode_plan(msgspec.msgpack.encode(data)).flow == "either"


def test_asking_for_the_step_at_an_instruction_that_runs_nothing_is_an_error():
    with pytest.raises(ResoluteError, match="instruction 3 runs no nodes"):
        either().plan.step(3)


def test_the_hash_of_a_plan_without_a_retention_is_what_it_was_before_there_were_any():
    """A plan that was stored by an earlier version is the same plan."""
    plan = chain("a").plan
    first = msgspec.structs.astuple(plan)[:7]
    assert plan.encode() == msgspec.msgpack.encode(first, order="deterministic")
    assert decode_plan(plan.encode()) == plan


@pytest.mark.parametrize(
    ("after", "keep_last", "plan"),
    [
        ("7d", None, RetentionPlan(604_800_000, None)),
        (None, 1000, RetentionPlan(None, 1000)),
        (90, 5, RetentionPlan(90_000, 5)),
        (0.0001, None, RetentionPlan(1, None)),
    ],
)
def test_a_retention_travels_in_the_plan(after: Any, keep_last: int | None, plan: RetentionPlan):
    made = builder("chain").then(step("a")).with_retention(after, keep_last=keep_last).build()
    assert decode_plan(made.plan.encode()).retention == plan
    assert made.plan_hash != chain("a").plan_hash


# What can come before.


def before(plan: Plan, name: str) -> list[str]:
    """The steps that can be the last before the step of that name."""
    steps = [getattr(instruction, "step", "") for instruction in plan.instructions]
    return [steps[pc] for pc in plan.predecessors(steps.index(name))]


def test_before_the_first_step_comes_nothing_but_the_input():
    assert either().plan.predecessors(0) == []


def test_before_a_step_comes_the_one_before_it():
    assert before(chain_of(step("a"), step("b"), step("c")).plan, "c") == ["b"]


def test_before_an_arm_comes_the_step_before_its_branch():
    plan = either().plan
    assert before(plan, "yes") == ["first"]
    assert before(plan, "no") == ["first"]
    assert before(plan, "when.1") == ["first"]


def test_after_a_branch_either_arm_can_have_been_the_last():
    assert before(either().plan, "last") == ["yes", "no"]


def test_after_a_branch_with_an_empty_arm_the_step_before_it_can_have_been_the_last():
    made = builder("f").then(step("a")).when(always).then(step("b")).end_when().then(step("c"))
    assert before(made.build().plan, "c") == ["a", "b"]


def test_after_nested_branches_every_arm_can_have_been_the_last():
    made = (
        builder("f")
        .then(step("a"))
        .when(always)
        .when(always)
        .then(step("b"))
        .otherwise(step("c"))
        .else_()
        .when(always)
        .then(step("d"))
        .end_when()
        .end_when()
        .then(step("e"))
    )
    assert before(made.build().plan, "e") == ["a", "b", "c", "d"]
