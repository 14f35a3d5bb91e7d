"""Writing a flow: what it compiles to, and every mistake in it said at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pytest

from resolute.errors import FlowDefinitionError
from resolute.model.builder import FlowBuilder
from resolute.model.nodes import AsyncNode, Node, SyncNode, node
from resolute.model.plan import Branch, End, Jump, RetentionPlan, Run
from resolute.model.policies import ConcurrencyLimit, RateLimit, RetryPolicy, SharedRateLimit
from resolute.model.state import FlowState
from resolute.model.triggers import manual, schedule
from tests.support.flows import always, builder, chain, echo, step


def problems_of(made: FlowBuilder[Any, Any]) -> tuple[str, ...]:
    """What build() finds wrong."""
    with pytest.raises(FlowDefinitionError) as caught:
        made.build()
    return caught.value.problems


def only_problem(made: FlowBuilder[Any, Any]) -> str:
    (problem,) = problems_of(made)
    return problem


def untyped(made: Any) -> Any:
    """The builder as a caller without a type checker has it."""
    return made


# Mistakes.


def test_everything_that_is_wrong_is_said_at_once():
    made = (
        FlowBuilder("bad name!")
        .on_queue("no queue?")
        .triggered_by(schedule("every day"))
        .triggered_by(schedule("0 0 * * *", timezone="Mars/Olympus"))
        .then(step("a"))
        .then(step("a"))
        .then_parallel("none")
        .end_when()
        .else_()
        .when(always)
    )
    problems = "\n".join(problems_of(made))
    for part in (
        "flow: expected 1 to 100", "queue: expected", "'every day'",
        "unknown time zone 'Mars/Olympus'", "output key 'a' is there twice",
        "step 'none' has no nodes", "end_when() without an open when()",
        "else_() without an open when()", "when.1 has no end_when()",
    ):  # fmt: skip
        assert part in problems


def test_the_error_names_the_flow_and_lists_its_problems():
    with pytest.raises(FlowDefinitionError) as caught:
        FlowBuilder("empty").build()
    assert caught.value.flow == "empty"
    assert str(caught.value).startswith("flow 'empty' has 2 problem(s):\n  - ")


def test_a_flow_without_steps_is_refused():
    assert "no steps" in only_problem(builder("f"))


def test_a_name_that_leaves_no_room_for_ours_is_one_of_the_problems():
    made = (
        FlowBuilder("f")
        .triggered_by(manual())
        .then_loop(
            "l" * 99,
            body=step("a"),
            state=int,
            initial=0,
            while_=lambda _: True,
            after=lambda _, n: n,
        )
    )
    assert any("expected 1 to 100 characters" in problem for problem in problems_of(made))


def test_a_branch_alone_is_no_step():
    assert "no steps" in only_problem(builder("f").when(always).end_when())


def test_a_flow_that_nothing_starts_is_refused():
    assert "no trigger" in only_problem(FlowBuilder("f").then(step("a")))


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (builder("f").then(step("a")).when(always).then(step("b")), "when.1 has no end_when()"),
        (builder("f").then(step("a")).else_(), "else_() without an open when()"),
        (builder("f").then(step("a")).end_when(), "end_when() without an open when()"),
        (
            builder("f").when(always).then(step("a")).else_().then(step("b")).else_().end_when(),
            "else_() without an open when()",
        ),
        (builder("f").then_parallel("p"), "step 'p' has no nodes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_branch_or_step_that_is_not_whole_is_refused(made: FlowBuilder[Any, Any], problem: str):
    assert problem in "\n".join(problems_of(made))


def test_two_parallel_steps_need_two_names():
    made = builder("f").then_parallel("p", step("a")).then_parallel("p", step("b"))
    assert "step 'p' is there twice" in only_problem(made)


# Names and keys on a path.


def test_a_node_twice_on_one_path_needs_another_output_key():
    assert "give one an as_()" in only_problem(builder("f").then(step("a")).then(step("a")))
    builder("f").then(step("a")).then(step("a").as_("again")).build()


def test_two_nodes_must_not_share_an_output_key_in_one_step():
    made = builder("f").then_parallel("p", step("a", output="x"), step("b", output="x"))
    assert "output key 'x' is there twice" in only_problem(made)


def test_a_node_in_two_exclusive_arms_is_fine():
    made = builder("f").when(always).then(step("a")).otherwise(step("a"))
    made.then(step("last")).build()


def test_a_node_after_a_branch_clashes_with_one_of_either_arm():
    made = builder("f").when(always).then(step("a")).otherwise(step("b"))
    assert "'a' is there twice" in only_problem(made.then(step("a")))
    assert "'b' is there twice" in only_problem(made.then(step("b")))


def test_a_node_in_an_arm_clashes_with_one_before_the_branch():
    made = builder("f").then(step("a")).when(always).then(step("a")).end_when()
    assert "'a' is there twice" in only_problem(made)


def test_two_different_functions_must_not_share_a_name():
    async def other(value: Any) -> Any:
        return value

    another: Node[Any, Any] = AsyncNode("a", other)
    made = builder("f").then(step("a")).then(another.as_("b"))
    assert "two nodes are named 'a'" in only_problem(made)


def test_a_compensation_of_a_compensation_is_refused():
    undo = step("undo").on_error(step("undo-undo"))
    made = builder("f").then(step("a").on_error(undo))
    assert "compensation 'undo' has a compensation of its own" in only_problem(made)


# Types.


class Order(msgspec.Struct):
    id: str


class Receipt(msgspec.Struct):
    number: int


@node("order")
async def make_order() -> Order:
    return Order("o")


@node("pay")
async def pay(order: Order) -> Receipt:
    return Receipt(len(order.id))


@node("print")
async def print_receipt(receipt: Receipt) -> None:
    return None


def test_a_node_that_cannot_take_what_the_step_before_gives_is_refused_with_both_types():
    problem = only_problem(untyped(builder("f").then(make_order)).then(print_receipt))
    assert "'print' takes Receipt, but the step before gives Order" in problem
    assert "with_input()" in problem


def test_the_first_node_must_take_the_flow_s_input():
    made = untyped(FlowBuilder("f", input=Receipt).triggered_by(manual()))
    assert "'pay' takes Order" in only_problem(made.then(pay))


def test_what_fits_is_accepted():
    builder("f").then(make_order).then(pay).then(print_receipt).build()


def test_a_node_with_an_input_of_its_own_need_not_take_the_step_before():
    def receipt(state: FlowState) -> Receipt:
        return Receipt(len(state[make_order].id))

    builder("f").then(make_order).then(print_receipt.with_input(receipt)).build()


def test_after_a_branch_the_next_node_must_take_what_each_arm_gives():
    made = untyped(builder("f").then(make_order).when(always).then(pay).end_when())
    assert "gives Order" in only_problem(made.then(print_receipt))


def test_what_follows_a_best_effort_node_must_take_none():
    made = untyped(builder("f").then(make_order.best_effort()))
    assert "'pay' takes Order, but the step before may give None" in only_problem(made.then(pay))
    made.then(takes(Order | None)).build()
    assert made.build().result_type == Order | None
    each = made.then_each("e", step("a"))
    assert "the step before gives no list" in only_problem(each)


def test_a_compensation_must_take_the_output_of_its_node():
    made = builder("f").then(make_order.on_error(print_receipt))
    assert "'print' takes Receipt, but the step before gives Order" in only_problem(made)


def test_a_fixed_input_must_fit_its_node():
    made = builder("f").then(pay.with_input({"id": 7}))
    assert "its input does not fit Order" in only_problem(made)
    builder("f").then(pay.with_input({"id": "o-7"})).build()


class Row(TypedDict):
    id: str


@dataclass
class Plain:
    id: str


class Pair(NamedTuple):
    id: str
    n: int


def gives(kind: Any) -> Node[Any, Any]:
    async def give() -> Any: ...

    give.__annotations__["return"] = kind
    return AsyncNode("gives", give)


def takes(kind: Any) -> Node[Any, Any]:
    async def take(value: Any) -> None: ...

    take.__annotations__["value"] = kind
    return AsyncNode("takes", take)


@pytest.mark.parametrize(
    ("produced", "taken", "fits"),
    [
        (Order, Order, True),
        (Order, Receipt, False),
        (Order, dict[str, Any], True),
        (dict[str, Any], Order, True),
        (dict[str, Any], int, False),
        (Any, Order, True),
        (Order, Any, True),
        (Order, object, True),
        (int, float, True),
        (float, int, False),
        (int, str, False),
        (str, Order, False),
        (int, list[int], False),
        (str, list[str], False),
        (list[int], tuple[int, ...], True),
        (list[Order], Order, False),
        (Order | None, Order, True),
        (Order, Order | None, True),
        (Order | int, str, False),
        (None, Order, False),
        (None, Order | None, True),
        (Row, Row, True),
        (Plain, Row, True),
        (Annotated[int, msgspec.Meta(ge=0)], int, True),
        (Pair, tuple[str, int], True),
    ],
    ids=str,
)
def test_types_are_refused_only_where_no_value_can_ever_fit(produced: Any, taken: Any, fits: bool):
    made = builder("f").then(gives(produced)).then(takes(taken))
    if fits:
        made.build()
    else:
        assert "takes" in only_problem(made)


# Schedules and inputs.


class Needy(msgspec.Struct):
    must: int


def test_a_scheduled_flow_needs_an_input_that_fits_or_defaults():
    def scheduled(kind: Any, value: Any = None) -> FlowBuilder[Any, Any]:
        made = untyped(FlowBuilder("f", input=kind))
        return made.triggered_by(schedule("0 0 * * *", input=value)).then(takes(kind))

    assert "its input does not fit Needy" in only_problem(scheduled(Needy))
    for kind in (str, int, list[int]):
        assert "it has no default" in only_problem(scheduled(kind))
    assert scheduled(int | None).build().plan.schedules[0].input == b"\xc0"
    assert "its input does not fit Needy" in only_problem(scheduled(Needy, {"must": "x"}))
    plan = scheduled(Needy, Needy(7)).build().plan
    assert msgspec.msgpack.decode(plan.schedules[0].input, type=Needy) == Needy(7)


def test_a_date_that_never_comes_is_refused():
    made = FlowBuilder("f").triggered_by(schedule("0 0 31 2 *")).then(step("a"))
    assert "0 0 31 2 *" in only_problem(made)


def test_a_flow_may_be_started_in_several_ways():
    made = builder("f").triggered_by(schedule("0 0 * * *")).triggered_by(schedule("0 1 * * *"))
    assert [one.cron for one in made.then(step("a")).build().plan.schedules] == [
        "0 0 * * *", "0 1 * * *",
    ]  # fmt: skip


# Nodes.


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: step("a b"), "node: expected"),
        (lambda: step("a", output="x/y"), "output key: expected"),
        (lambda: step("a", queue="q|r"), "queue: expected"),
        (lambda: step("a", queue="q@plan"), "queue: expected"),
        (lambda: step("a", timeout="0s"), "expected a timeout above 0"),
        (lambda: step("a", timeout="soon"), "expected a duration"),
        (lambda: step("a", rate_limit="fast"), 'expected "N/PERIOD"'),
    ],
)
def test_a_node_that_cannot_be_is_refused_where_it_is_written(
    make: Callable[[], object], error: str
):
    with pytest.raises(ValueError, match=error):
        make()


def test_a_function_of_two_inputs_is_no_node():
    async def two(one: int, other: int) -> None: ...

    with pytest.raises(TypeError, match="one input or none"):
        AsyncNode("two", two)


async def test_a_node_can_still_be_called_as_the_function_it_is():
    assert await pay(Order("abc")) == Receipt(3)

    @node("plain")
    def plain(value: int) -> int:
        return value + 1

    assert isinstance(plain, SyncNode)
    assert plain(1) == 2


def test_a_node_is_not_changed_by_what_is_made_from_it():
    before = step("a")
    for after in (
        before.as_("x"), before.with_input(1), before.with_timeout("1s"), before.best_effort(),
        before.with_retry(RetryPolicy(max_attempts=9)), before.with_rate_limit("1/s"),
        before.on_queue("gpu"), before.on_error(step("undo")),
    ):  # fmt: skip
        assert after is not before
        assert type(after) is AsyncNode
    assert (before.key, before.queue, before.limits) == ("a", None, ())
    assert (before.compensation, before.is_best_effort) == (None, False)
    assert before.retry.max_attempts == 3


def test_a_rate_limit_may_be_written_short():
    assert step("a", rate_limit="50/1m").limits == (RateLimit(50, "1m"),)


# Building.


def test_a_builder_is_not_changed_by_what_is_made_from_it():
    start = builder("f").then(step("a"))
    one, other = start.then(step("b")), start.then(step("c")).on_queue("gpu")
    assert len(start.build().plan.instructions) == 2
    assert [i.step for i in one.build().plan.instructions[:-1] if isinstance(i, Run)] == ["a", "b"]
    assert other.build().plan.queue == "gpu"
    assert one.build().plan.queue == ""


def test_a_half_built_flow_can_be_kept_in_a_loop():
    made = builder("f")
    for number in range(5):
        made = made.then(step(f"n{number}"))
    assert len(made.build().plan.instructions) == 6


def test_a_sequence_is_a_run_for_each_step_and_an_end():
    plan = chain("a", "b").plan
    assert [type(one) for one in plan.instructions] == [Run, Run, End]


def test_a_branch_jumps_over_the_arm_that_is_not_taken():
    plan = builder("f").when(always).then(step("a")).otherwise(step("b")).build().plan
    branch, then, jump, otherwise, end = plan.instructions
    assert isinstance(branch, Branch)
    assert (branch.step, branch.otherwise) == ("when.1", 3)
    assert isinstance(jump, Jump)
    assert jump.to == 4
    assert isinstance(then, Run)
    assert isinstance(otherwise, Run)
    assert (then.step, otherwise.step, end) == ("a", "b", End())


def test_a_branch_without_an_else_jumps_behind_itself():
    plan = builder("f").when(always).then(step("a")).end_when().then(step("b")).build().plan
    branch = plan.instructions[0]
    assert isinstance(branch, Branch)
    assert branch.otherwise == 2
    assert not any(isinstance(one, Jump) for one in plan.instructions)


def test_branches_can_be_nested_to_any_depth():
    made = builder("deep")
    for number in range(30):
        made = made.when(always).then(step(f"a{number}"))
    for number in range(30):
        made = made.else_().then(step(f"b{number}")).end_when()
    plan = made.build().plan
    names = [one.step for one in plan.instructions if isinstance(one, Branch)]
    assert names == [f"when.{number}" for number in range(1, 31)]
    for one in plan.instructions:
        target = one.otherwise if isinstance(one, Branch) else getattr(one, "to", 0)
        assert 0 <= target < len(plan.instructions)


def test_otherwise_is_else_then_end_when():
    start = builder("f").then(step("first")).when(always).then(step("a"))
    short = start.otherwise(step("b")).then(step("last"))
    long = start.else_().then(step("b")).end_when().then(step("last"))
    assert short.build().plan == long.build().plan


def test_otherwise_parallel_is_else_then_parallel_end_when():
    start = builder("f").when(always).then(step("a"))
    short = start.otherwise_parallel("p", step("b"), step("c"))
    long = start.else_().then_parallel("p", step("b"), step("c")).end_when()
    assert short.build().plan == long.build().plan


def test_predicates_are_nodes_of_thirty_seconds_and_three_attempts():
    plan = builder("f").then(step("a")).when(always).then(step("b")).end_when().build().plan
    branch = plan.instructions[1]
    assert isinstance(branch, Branch)
    (predicate,) = branch.nodes
    assert (predicate.name, predicate.timeout_ms) == ("when.1", 30_000)
    assert predicate.retry.max_attempts == 3


def test_a_flow_knows_the_function_of_every_node_of_its_plan():
    flow = (
        builder("f")
        .then(step("a"))
        .when(always)
        .then_parallel("p", step("b"), step("c"))
        .otherwise(step("d"))
        .build()
    )
    for pc, instruction in enumerate(flow.plan.instructions):
        for index, found in enumerate(getattr(instruction, "nodes", ())):
            assert flow.bindings[pc, index].name == found.name
    first = flow.bindings[0, 0]
    assert isinstance(first, Node)
    assert first.fn is echo


def test_the_result_of_a_flow_has_the_type_of_its_last_step():
    assert builder("f").then(make_order).then(pay).build().result_type is Receipt
    branched = builder("f").then(make_order).when(always).then(pay).end_when()
    assert branched.build().result_type is Any
    parallel = builder("f").then_parallel("p", step("a"), step("b"))
    assert parallel.build().result_type == dict[str, Any]


def test_a_client_without_the_code_finds_the_types_in_the_plan():
    made = FlowBuilder("f", input=Order).triggered_by(manual()).then(pay)
    plan = made.build().plan
    assert "Order" in str(plan.input_schema)
    assert "number" in str(plan.result_schema)
    assert builder("f").then(step("a")).build().plan.input_schema == {}


def test_the_name_of_a_parallel_step_is_checked():
    assert "step: expected 1 to 100" in only_problem(builder("f").then_parallel("p q", step("a")))


def test_a_predicate_must_be_a_function():
    made = untyped(builder("f").then(step("a"))).when(True).then(step("b")).end_when()
    assert "when.1: expected a function of FlowState, got True" in only_problem(made)


async def answer_late(*_: Any) -> Any: ...


async def list_late(_: Any) -> Any:
    yield 1


late, one_by_one = untyped(answer_late), untyped(list_late)


class Late:
    async def __call__(self, _: Any) -> Any: ...


LOOP: dict[str, Any] = {
    "body": step("a"), "state": int, "initial": 0, "while_": always,
    "after": always,
}  # fmt: skip


LOOSE = untyped(builder("f"))


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (LOOSE.when(late).then(step("a")).end_when(), "when.1"),
        (LOOSE.when(Late()).then(step("a")).end_when(), "when.1"),
        (LOOSE.then_each("e", step("a"), items=late), "step 'e': items"),
        (LOOSE.then_each("e", step("a"), items=one_by_one), "step 'e': items"),
        (LOOSE.then_children("c", flow="f", inputs=late), "step 'c': inputs"),
        (LOOSE.then_loop("l", **LOOP | {"while_": late}), "loop 'l': while_"),
        (LOOSE.then_loop("l", **LOOP | {"initial": late}), "loop 'l': initial"),
        (LOOSE.then_loop("l", **LOOP | {"before": late}), "loop 'l': before"),
        (LOOSE.then_loop("l", **LOOP | {"after": late}), "loop 'l': after"),
        (LOOSE.then_sleep_until(late), "sleep.1"),
        (LOOSE.then(step("a")).with_query("q", late), "query 'q'"),
    ],
)
def test_a_coroutine_function_is_refused_where_nobody_waits_for_it(
    made: FlowBuilder[Any, Any], what: str
):
    assert only_problem(made).startswith(f"{what}: expected a plain function")


@pytest.mark.parametrize(
    "make",
    [
        lambda: step("a").with_input(late),
        lambda: step("a").with_classifier(late),
        lambda: RateLimit(5, key=late),
        lambda: SharedRateLimit("s", 5, key=late),
        lambda: ConcurrencyLimit("c", 5, key=late),
    ],
)
def test_what_a_node_asks_for_its_input_or_of_it_is_no_coroutine_function(make: Callable[[], Any]):
    with pytest.raises(TypeError, match="expected a plain function"):
        make()


def plain(value: int) -> int:
    return value


class Opaque:
    """Nothing that a codec knows."""


ANY_NODE, ANY_FLOW = untyped(node), untyped(FlowBuilder)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: LOOSE.triggered_by(manual), "triggered_by: expected a trigger"),
        (lambda: LOOSE.triggered_by("manual"), "triggered_by: expected a trigger"),
        (lambda: LOOSE.then(plain), r"then: expected a node, .* make it a node with @node"),
        (lambda: LOOSE.then("a"), "then: expected a node, got 'a'"),
        (lambda: LOOSE.then(None), "then: expected a node, got None"),
        (lambda: LOOSE.then(LOOSE), r"then: expected a node, got FlowBuilder\('f'\)"),
        (lambda: LOOSE.then_parallel("p", "n"), "then_parallel 'p': expected a node"),
        (lambda: LOOSE.then_each("e", plain), "then_each 'e': expected a node"),
        (lambda: LOOSE.then_children("c", flow=None), "then_children 'c': expected a flow"),
        (lambda: LOOSE.then_children("c", flow=step("a")), "then_children 'c': expected a flow"),
        (lambda: LOOSE.then_children("c", flow=LOOSE), r"call its build\(\)"),
        (
            lambda: LOOSE.then_children("c", flow="f", sequential=True, max_concurrency=5),
            "sequential or a max_concurrency, got both",
        ),
        (lambda: LOOSE.then_loop("l", **LOOP | {"body": always}), "return the builder"),
        (lambda: LOOSE.then_loop("l", **LOOP | {"body": ["a"]}), "loop 'l': body: expected a node"),
        (lambda: LOOSE.with_signal("s", 5), "signal 's': expected a type, got 5"),
        (lambda: ANY_FLOW("f", input=5), "input: expected a type, got 5"),
        (lambda: ANY_FLOW("f", input=complex), "values of type complex cannot be encoded"),
        (lambda: ANY_NODE(plain), r"expected @node\(name\)"),
        (lambda: ANY_NODE("a", retry=3)(plain), "retry: expected a RetryPolicy, got 3"),
        (lambda: ANY_NODE("a", rate_limit=5)(plain), "rate_limit: expected"),
        (lambda: ANY_NODE("a", queue=5)(plain), "queue: expected"),
        (lambda: ANY_NODE("a", classify="x")(plain), "classify: expected a function, got 'x'"),
        (lambda: untyped(step("a")).on_error(plain), "on_error: expected a node"),
        (lambda: step("a").with_input(step("b")), "with_input: expected a value or a function"),
        (lambda: step("a").with_window(untyped(2.5)), "window: expected a whole number, got 2.5"),
        (lambda: RetryPolicy(max_attempts=untyped("3")), "max_attempts: expected a whole number"),
        (lambda: RetryPolicy(non_retryable=untyped(ValueError)), "non_retryable: expected a tuple"),
        (lambda: RetryPolicy(backoff_coefficient=float("nan")), "expected a finite number"),
        (lambda: RateLimit(untyped("5"), "1m"), "starts: expected a whole number, got '5'"),
        (lambda: RateLimit(5, key=untyped(5)), "rate limit: key: expected a function, got 5"),
        (lambda: schedule(untyped(None)), "schedule: expected a cron line"),
    ],
)
def test_what_cannot_be_part_of_a_flow_is_refused_where_it_is_written(
    make: Callable[[], object], error: str
):
    with pytest.raises((TypeError, ValueError), match=error):
        make()


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (LOOSE.then_each("e", step("a"), items=5), "step 'e': items: expected a function"),
        (LOOSE.then_each("e", step("a"), items=step("b")), "got a node"),
        (LOOSE.then_each("e", step("a"), max_concurrency="3"), "expected a whole number, got '3'"),
        (LOOSE.then_each("e", step("a"), max_concurrency=2.5), "expected a whole number, got 2.5"),
        (LOOSE.then_loop("l", **LOOP | {"max_iterations": None}), "expected a whole number"),
        (LOOSE.then_loop("l", **LOOP | {"while_": 1}), "loop 'l': while_: expected a function"),
        (LOOSE.then_loop("l", **LOOP | {"after": 1}), "loop 'l': after: expected a function"),
        (LOOSE.then_gate("g", timeout=1e30), "gate 'g': timeout: expected a duration of up to"),
        (LOOSE.then(gives(Opaque)), "its output: values of type Opaque cannot be encoded"),
        (LOOSE.then(takes(list[complex])), "its input: values of type complex cannot be encoded"),
    ],
)
def test_what_cannot_be_part_of_a_flow_is_one_of_its_problems(
    made: FlowBuilder[Any, Any], problem: str
):
    assert problem in only_problem(made)


async def test_a_node_that_is_made_without_the_decorator_can_be_called_too():
    assert Node[Any, Any]("a", plain)(3) == 3
    assert await Node[Any, Any]("b", make_order.fn)() == Order("o")


def test_the_second_arm_of_a_branch_follows_on_the_step_before_it_and_not_on_the_first_arm():
    start = builder("f").then(make_order).when(always).then(pay)
    start.otherwise(pay.as_("again")).build()
    assert "the step before gives Order" in only_problem(start.otherwise(takes(int)))


@pytest.mark.parametrize("kind", [None, Any])
def test_a_scheduled_flow_without_an_input_gets_none(kind: Any):
    made = untyped(FlowBuilder("f", input=kind)).triggered_by(schedule("0 0 * * *"))
    assert made.then(step("a")).build().plan.schedules[0].input == b"\xc0"


def test_a_scalar_is_no_dataclass():
    assert "takes" in only_problem(builder("f").then(gives(str)).then(takes(Plain)))


class Price:
    """An object that is called like a coroutine function."""

    async def __call__(self, order: Order) -> int:
        return len(order.id)


class Shout:
    def __call__(self, text: str) -> str:
        return text.upper()


def test_an_object_with_a_call_is_a_node_with_its_types():
    price = AsyncNode[Any, Any]("price", Price())
    shout = SyncNode[Any, Any]("shout", Shout())
    assert (price.is_async, price.input_type, price.output_type) == (True, Order, int)
    assert (shout.is_async, shout.input_type, shout.output_type) == (False, str, str)


def test_what_only_a_type_checker_can_import_is_anything():
    async def fetch(unknown: Any) -> Any:
        return unknown

    fetch.__annotations__.update({"unknown": "Unknown", "return": "Unknown"})

    made = AsyncNode[Any, Any]("fetch", fetch)
    assert (made.input_type, made.output_type) == (Any, Any)


def test_parameters_with_defaults_are_not_asked_for():
    async def fetch(number: int, *, retries: int = 3) -> int: ...
    async def fetch_more(number: int, retries: int = 3) -> int: ...
    async def fetch_all(number: int = 0, retries: int = 3) -> int: ...

    for fn in (fetch, fetch_more, fetch_all):
        made = AsyncNode[Any, Any]("fetch", fn)
        assert made.takes_input
        assert made.input_type is int


def test_a_builtin_without_a_signature_takes_one_input():
    made = SyncNode[Any, Any]("text", dict)
    assert made.takes_input
    assert made.input_type is Any


# How long its runs are kept.


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "retention: expected a duration, keep_last, or both"),
        ({"after": "soon"}, "retention: expected a duration such as"),
        ({"after": 0}, "retention: expected a duration above 0"),
        ({"after": -1}, "retention: expected a duration of 0 or more"),
        ({"after": float("inf")}, "retention: expected a duration of 0 or more"),
        ({"after": "40000d"}, "retention: expected a duration above 0 and up to 36500d"),
        ({"after": []}, "retention: "),
        ({"keep_last": 0}, "retention: expected a keep_last of 1 or more, got 0"),
        ({"keep_last": "5"}, "retention: expected a keep_last of 1 or more, got '5'"),
        ({"after": "1d", "keep_last": -1}, "retention: expected a keep_last of 1 or more"),
    ],
    ids=str,
)
def test_a_retention_that_cannot_be_is_refused(given: dict[str, Any], problem: str):
    made = untyped(builder("f").then(step("a"))).with_retention(**given)
    assert only_problem(made).startswith(problem)


def test_of_two_retentions_the_later_counts():
    made = builder("f").then(step("a")).with_retention("7d").with_retention(keep_last=3).build()
    assert made.plan.retention == RetentionPlan(None, 3)
    assert builder("f").then(step("a")).build().plan.retention is None
