"""`resolute graph`: nesting is read back from flat instructions, whatever the shape."""

from __future__ import annotations

from typing import Any

import pytest

from resolute import (
    ConcurrencyLimit,
    FlowBuilder,
    FlowState,
    RateLimit,
    RetryPolicy,
    SharedRateLimit,
    manual,
    node,
    schedule,
)
from resolute.cli.exits import Exit
from resolute.cli.graph.mermaid import mermaid
from resolute.cli.graph.notes import limit_note, notes_on, retry_note
from resolute.cli.graph.structure import (
    Block,
    Choice,
    Every,
    Pause,
    Round,
    Spawn,
    Step,
    blocks_of,
    steps_in,
)
from resolute.cli.graph.tree import flow_tree
from resolute.cli.output import console
from resolute.model.builder import FlowBuilder as Builder
from resolute.model.node_plans import limit_plan, node_plan, retry_plan
from resolute.model.nodes import Node
from tests.cli.helpers import Cli


def named(name: str) -> Node[Any, Any]:
    def run(value: Any) -> Any:
        return value

    return Node(name, run)


def listed(state: FlowState) -> list[int]:
    return []


def yes(state: FlowState) -> bool:
    return True


def shape(blocks: tuple[Block, ...]) -> list[Any]:
    """Nested lists: a step is its names, a choice is (then, else)."""
    found: list[Any] = []
    for block in blocks:
        match block:
            case Step(run=run):
                found.append("+".join(node.name for node in run.nodes))
            case Every(each=each):
                found.append(f"{each.step}*")
            case Spawn(children=children):
                found.append(f"{children.step}>{children.flow}")
            case Round(name=name, body=body):
                found.append((name, shape(body)))
            case Pause(wait=wait):
                found.append(f"({wait.step})")
            case Choice(then=then, otherwise=otherwise):
                found.append((shape(then), shape(otherwise)))
    return found


def flow() -> Builder[Any, Any]:
    return FlowBuilder("shape").triggered_by(manual())


a, b, c, d, e = (named(name) for name in "abcde")

SHAPES: dict[str, tuple[Builder[Any, Any], list[Any]]] = {
    "sequence": (flow().then(a).then(b), ["a", "b"]),
    "parallel": (flow().then_parallel("p", a, b).then(c), ["a+b", "c"]),
    "pauses": (flow().then(a).then_gate("g").then_sleep("1m"), ["a", "(g)", "(sleep.1)"]),
    "asked": (flow().then_sleep_until(lambda s: 1.0, name="nap").then(a), ["(nap)", "a"]),
    "children": (
        flow().then(a).then_children("c", flow="other", inputs=listed).then(b),
        ["a", "c>other", "b"],
    ),
    "when": (flow().then(a).when(yes).then(b).end_when().then(c), ["a", (["b"], []), "c"]),
    "else": (flow().when(yes).then(a).otherwise(b).then(c), [(["a"], ["b"]), "c"]),
    "else at the end": (flow().when(yes).then(a).otherwise(b), [(["a"], ["b"])]),
    "empty then": (flow().then(c).when(yes).else_().then(a).end_when(), ["c", ([], ["a"])]),
    "empty else": (flow().when(yes).then(a).else_().end_when().then(b), [(["a"], []), "b"]),
    "nested in then": (
        flow().when(yes).then(a).when(yes).then(b).otherwise(c).otherwise(d).then(e),
        [(["a", (["b"], ["c"])], ["d"]), "e"],
    ),
    "nested at the start of else": (
        flow().when(yes).then(a).else_().when(yes).then(b).otherwise(c).end_when().then(d),
        [(["a"], [(["b"], ["c"])]), "d"],
    ),
    "nested at both ends": (
        flow().when(yes).when(yes).then(a).otherwise(b).end_when(),
        [([(["a"], ["b"])], [])],
    ),
    "an empty else nested at the end of a then": (
        flow().when(yes).when(yes).then(a).else_().end_when().end_when().then(b),
        [([(["a"], [])], []), "b"],
    ),
    "else-if chain": (
        flow().when(yes).then(a).else_().when(yes).then(b).else_().when(yes).then(c).otherwise(d)
        .end_when().end_when(),
        [(["a"], [(["b"], [(["c"], ["d"])])])],
    ),
    "two branches in a row": (
        flow().when(yes).then(a).otherwise(b).when(yes).then(c).otherwise(d),
        [(["a"], ["b"]), (["c"], ["d"])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_nesting_is_read_back_as_it_was_written(name: str):
    builder, expected = SHAPES[name]
    plan = builder.build().plan
    assert shape(blocks_of(plan)) == expected


@pytest.mark.parametrize("name", SHAPES)
def test_mermaid_draws_each_node_once_and_every_one_can_be_reached(name: str):
    plan = SHAPES[name][0].build().plan
    edges: dict[str, list[str]] = {}
    for line in mermaid(plan).splitlines():
        source, arrow, target = line.strip().partition(" -->")
        if arrow:
            edges.setdefault(source, []).append(target.split()[-1])
    reached, todo = {"start"}, ["start"]
    while todo:
        for target in edges.get(todo.pop(), ()):
            if target not in reached:
                reached.add(target)
                todo.append(target)
    steps = {f"n{step.pc}" for step in steps_in(blocks_of(plan))}
    assert steps | {"start", "done"} <= reached
    assert reached - edges.keys() == {"done"}, "everything else leads on"


@node("reserve", timeout="30s", heartbeat="5s", queue="stock", retry=RetryPolicy(max_attempts=1))
async def reserve(value: int) -> int:
    return value


def test_notes_say_what_is_not_the_default():
    plan = node_plan("f", reserve.as_("kept").best_effort())
    assert notes_on(plan, {}) == [
        "as kept", "queue stock", "timeout 30.0 s", "heartbeat 5.0 s", "no retry", "best effort",
    ]  # fmt: skip
    assert notes_on(node_plan("f", a), {}) == []


def test_notes_on_limits_and_retries():
    limit = limit_plan("f", "a", RateLimit(50, "1m"))
    shared = limit_plan("f", "a", SharedRateLimit("api", 50, "1m", key=str))
    assert limit_note(limit) == "rate limit one each 1.2 s, burst 50"
    assert limit_note(shared).endswith("burst 50, shared as api, by key")
    policy = RetryPolicy(max_attempts=5, initial_interval="1s", non_retryable=(ValueError,))
    assert retry_note(retry_plan(policy)) == (
        "5 attempts, 1.0 s x 2 up to 1m 0s apart, never after ValueError"
    )


def test_priorities_are_those_of_each_place():
    high = a.with_priority("high").on_error(b)
    plan = (
        flow()
        .triggered_by(schedule("0 0 * * *", priority="low"))
        .when(yes)
        .then(high)
        .else_()
        .then(a)
        .end_when()
        .then_children("kids", flow="kid", inputs=listed, priority="low")
        .build()
        .plan
    )
    assert mermaid(plan).count("priority high") == 2  # the compensation has it too
    assert mermaid(plan).count("priority low") == 1
    screen = console()
    with screen.capture() as captured:
        screen.print(flow_tree(plan))
    assert captured.get().count("priority high") == 2
    assert captured.get().count("priority low") == 2


def test_concurrency_limits_are_those_of_each_place():
    seats = ConcurrencyLimit("seats", 1_000, key=str)
    limited = a.with_concurrency(seats).on_error(b.with_concurrency(ConcurrencyLimit("undo", 1)))
    one_arm = flow().when(lambda _: True).then(limited).else_().then(a).end_when().build().plan
    chart = mermaid(one_arm)
    assert chart.count("1,000 at one time as seats, by key") == 1
    assert "1 at one time as undo" in chart
    screen = console()
    with screen.capture() as captured:
        screen.print(flow_tree(one_arm))
    assert captured.get().count("at one time") == 2


def test_a_compensation_hangs_below_its_node():
    plan = flow().then(a.on_error(b)).build().plan
    screen = console()
    with screen.capture() as captured:
        screen.print(flow_tree(plan))
    lines = captured.get().splitlines()
    assert lines[1].endswith("a")
    assert lines[2].endswith("↩ b if the flow fails later")
    assert "n0 -.->|undone by| n0_undo" in mermaid(plan)


def test_the_tree_of_a_flow_that_runs(cli: Cli):
    text = cli("graph", "checkout", columns=80).stdout
    assert "∥ costs  3 in parallel" in text
    assert text.index("? when.1") < text.index("? when.2") < text.index("invoice")
    assert "no retry · best effort" in text


def test_the_plan_as_json_has_names_for_its_fields(cli: Cli):
    plan = cli.json("graph", "saga")
    kinds = [instruction["kind"] for instruction in plan["instructions"]]
    assert kinds == ["run", "run", "end"]
    assert plan["instructions"][0]["nodes"][0]["compensation"]["name"] == "unreserve"
    assert plan["schedules"][0]["input"] == {"item": "book", "price": 10, "stock": 5}


def test_mermaid_of_a_flow_that_runs(cli: Cli):
    assert cli("graph", "saga", "--mermaid").stdout.startswith("flowchart TD\n")


def test_a_flow_that_nobody_offered(cli: Cli):
    cli("graph", "nowhere", code=Exit.UNKNOWN)
