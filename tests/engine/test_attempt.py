"""One attempt: where its input comes from, what its output becomes, when it is tried again."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from resolute.engine import attempt, judging
from resolute.engine.bound import Bound
from resolute.engine.preloaded import OutputsAway
from resolute.engine.reading import INPUT
from resolute.engine.undoing import undo_input
from resolute.errors import (
    ErrorInfo,
    MissingOutput,
    NotEncodable,
    PayloadTooLarge,
    RetryAfter,
    TerminalError,
)
from resolute.model import codec
from resolute.model.builder import FlowBuilder
from resolute.model.flow import Flow
from resolute.model.messages import Entry
from resolute.model.nodes import AsyncNode, Node, node
from resolute.model.plan import NodePlan, RetryPlan
from resolute.model.policies import RetryPolicy
from resolute.model.state import FlowState
from resolute.model.triggers import manual
from tests.support.flows import always, builder, chain_of, either, step, undoable

ENTRY = Entry("run", "plan", 0, 1, 0, "1-x.0")


@dataclass
class Hash:
    """The outputs of a run as they are stored; remembers what was asked for."""

    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    flow_input: Any = None
    errors: dict[str, ErrorInfo] = field(default_factory=dict[str, ErrorInfo])
    previous: int | None = None
    asked: list[str] = field(default_factory=list[str])

    def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        return codec.encode(self.outputs[key]) if key in self.outputs else None

    def keys(self) -> Iterable[str]:
        return list(self.outputs)

    def input(self) -> bytes:
        self.asked.append(INPUT)
        return codec.encode(self.flow_input)

    def error(self, key: str) -> ErrorInfo | None:
        return self.errors.get(key)

    def whole(self, stub: bytes, /) -> bytes:
        raise AssertionError("nothing here is in a storage")

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """What HMGET would answer."""
        return [self._field(name) for name in names]

    def _field(self, name: str) -> bytes | None:
        if name == "input":
            return codec.encode(self.flow_input)
        if name == "prev":
            return None if self.previous is None else str(self.previous).encode()
        key = name.removeprefix("o:")
        return codec.encode(self.outputs[key]) if key in self.outputs else None


def input_of(bound: Bound, stored: Hash) -> Any:
    """The input of an attempt, with the fields that it loads beforehand."""
    names = bound.fields(ENTRY)
    return attempt.input_value(bound, ENTRY, names, stored.read(names), stored)


def bound_at(flow: Flow[Any, Any], pc: int, index: int = 0) -> Bound:
    return Bound.of(flow, pc, index)


class Order(msgspec.Struct):
    id: str
    total: int = 0


# Where the input comes from.


@node("make")
async def make_order() -> Order:
    return Order("o-1", 7)


@node("take")
async def take_order(order: Order) -> int:
    return order.total


@node("nothing")
async def take_nothing() -> None:
    return None


def test_the_first_node_gets_the_input_of_the_flow():
    flow = FlowBuilder("f", input=Order).triggered_by(manual()).then(take_order).build()
    assert input_of(bound_at(flow, 0), Hash(flow_input=Order("x", 3))) == Order("x", 3)


def test_a_later_node_gets_the_output_of_the_step_before_decoded_to_its_own_type():
    bound = bound_at(chain_of(make_order, take_order), 1)
    assert input_of(bound, Hash({"make": Order("o", 2)}, previous=0)) == Order("o", 2)


def test_after_a_branch_a_node_gets_the_output_of_the_arm_that_ran():
    flow = either()
    bound = bound_at(flow, 5)
    outputs = {"first": "f", "yes": "y"}
    assert input_of(bound, Hash(outputs, previous=2)) == "y"
    assert input_of(bound, Hash({"first": "f", "no": "n"}, previous=4)) == "n"


def test_after_a_branch_without_nodes_a_node_gets_the_output_of_the_step_before_the_branch():
    flow = (
        builder("f")
        .then(step("first"))
        .when(always)
        .then(step("yes"))
        .end_when()
        .then(step("last"))
        .build()
    )
    assert input_of(bound_at(flow, 3), Hash({"first": "f"}, previous=0)) == "f"


def test_after_a_branch_at_the_beginning_whose_arm_is_empty_a_node_gets_the_flow_s_input():
    flow = builder("f").when(always).then(step("yes")).end_when().then(step("last")).build()
    assert input_of(bound_at(flow, 2), Hash(flow_input="in")) == "in"


def test_after_a_parallel_step_a_node_gets_a_dict_of_what_completed():
    flow = (
        builder("f")
        .then_parallel("both", step("a"), step("b", output="B"), step("c").best_effort())
        .then(step("last"))
        .build()
    )
    found = input_of(bound_at(flow, 1), Hash({"a": 1, "B": [2]}, previous=0))
    assert found == {"a": 1, "B": [2]}


def test_after_a_failed_best_effort_node_the_next_gets_none():
    flow = builder("f").then(step("try").best_effort()).then(step("last")).build()
    assert input_of(bound_at(flow, 1), Hash(previous=0)) is None


def test_the_missing_output_of_a_node_that_is_not_best_effort_is_an_error():
    flow = builder("f").then(step("try")).then(step("last")).build()
    with pytest.raises(MissingOutput, match="try"):
        input_of(bound_at(flow, 1), Hash(previous=0))


def test_a_node_without_parameters_gets_nothing_and_loads_nothing():
    bound = bound_at(chain_of(step("first"), take_nothing), 1)
    assert bound.fields(ENTRY) == []
    assert input_of(bound, Hash()) is None


def test_a_value_given_with_with_input_is_a_new_copy_in_each_attempt():
    flow = chain_of(step("a").with_input({"list": [1]}))
    bound = bound_at(flow, 0)
    first = input_of(bound, Hash())
    first["list"].append(2)
    assert input_of(bound, Hash()) == {"list": [1]}


def test_an_input_function_makes_the_input_from_the_state():
    def total(state: FlowState) -> int:
        return state[make_order].total * 10

    bound = bound_at(chain_of(make_order, step("a").with_input(total)), 1)
    assert input_of(bound, Hash({"make": Order("o", 4)})) == 40


def test_what_an_input_function_raises_is_what_the_attempt_raises():
    def broken(_: FlowState) -> int:
        raise ZeroDivisionError("in the input function")

    with pytest.raises(ZeroDivisionError):
        input_of(bound_at(chain_of(step("a").with_input(broken)), 0), Hash())


def test_an_input_of_the_wrong_type_is_a_validation_error_which_no_retry_mends():
    def wrong(_: FlowState) -> Any:
        return {"id": 5}

    bound = bound_at(chain_of(step("first"), take_order.with_input(wrong)), 1)
    with pytest.raises(msgspec.ValidationError) as caught:
        input_of(bound, Hash())
    assert judging.retry_delay(NodePlan("a", "a"), 1, caught.value) is None


# Learning what to load.


def reads_two(state: FlowState) -> Any:
    return [state.get("a", int), state.input(str)]


def test_what_an_input_function_reads_is_fetched_once_and_comes_with_the_claim_from_then_on():
    flow = chain_of(step("a"), step("b"), step("c").with_input(reads_two))
    bound = bound_at(flow, 2)
    stored = Hash({"a": 1, "b": 2}, flow_input="in")
    assert bound.fields(ENTRY) == ["folder"]
    assert input_of(bound, stored) == [1, "in"]
    assert stored.asked == ["a", INPUT]
    assert sorted(bound.fields(ENTRY)) == ["folder", "input", "o:a"]
    stored.asked.clear()
    assert input_of(bound, stored) == [1, "in"]
    assert stored.asked == []


def test_a_learned_output_that_is_not_there_is_not_asked_for_again():
    def reads_maybe(state: FlowState) -> Any:
        return state.get_or("gone", int, 0)

    bound = bound_at(chain_of(step("a").with_input(reads_maybe)), 0)
    stored = Hash()
    assert [input_of(bound, stored), input_of(bound, stored)] == [0, 0]
    assert stored.asked == ["gone"]


def test_a_predicate_learns_as_an_input_function_does():
    flow = builder("f").then(step("a")).when(lambda s: bool(s.get("a", int))).then(step("b"))
    bound = bound_at(flow.end_when().build(), 1)
    state = input_of(bound, Hash({"a": 1}))
    assert isinstance(state, FlowState)
    assert state.get("a", int) == 1
    assert bound.fields(ENTRY) == ["o:a", "folder"]


# Outputs.


@node("typed")
async def typed() -> Order:
    return Order("o")


def test_an_output_is_encoded():
    data, arg = attempt.encode_output(bound_at(chain_of(typed), 0), Order("o", 3))
    assert codec.decode(data, Order) == Order("o", 3)
    assert arg == ""


def test_an_output_of_another_type_than_declared_is_refused_by_the_name_of_its_node():
    with pytest.raises(msgspec.ValidationError, match="output of node 'typed'"):
        attempt.encode_output(bound_at(chain_of(typed), 0), {"id": 3})


def test_an_output_that_cannot_be_encoded_is_refused_with_its_path():
    with pytest.raises(NotEncodable) as caught:
        attempt.encode_output(bound_at(chain_of(step("a")), 0), {"x": [1, object()]})
    assert caught.value.path == "output['x'][1]"


def test_an_output_over_the_limit_is_refused_with_both_sizes():
    with pytest.raises(PayloadTooLarge) as caught:
        attempt.encode_output(bound_at(chain_of(step("a")), 0), b"x" * (1 << 20))
    assert caught.value.limit == 1 << 20
    assert caught.value.size == (1 << 20) + 5


@pytest.mark.parametrize(("value", "arg"), [(True, "1"), (False, "0"), ([], "0"), ("yes", "1")])
def test_the_truth_of_what_a_predicate_returns_is_its_answer(value: Any, arg: str):
    bound = bound_at(either(), 1)
    data, found = attempt.encode_output(bound, value)
    assert found == arg
    assert codec.decode(data) is (arg == "1")


# Compensations.


def undo_of(flow: Flow[Any, Any], output: Any, stored: Hash | None = None) -> bytes | None:
    """What is stored for the compensation when the first node completes with `output`."""
    made = undo_input(bound_at(flow, 0), codec.encode(output), stored or Hash())
    return made.pack() if made is not None else None


def compensation_value(flow: Flow[Any, Any], data: bytes | None) -> Any:
    bound = Bound.of(flow, 0, 0, undo=True)
    assert bound.fields(msgspec.structs.replace(ENTRY, undo=4)) == ["ui:4"]
    return attempt.input_value(bound, ENTRY, ["ui:4"], [data], Hash())


def test_a_compensation_gets_the_output_of_the_node_that_it_undoes():
    flow = chain_of(undoable("book"))
    assert compensation_value(flow, undo_of(flow, {"id": 7})) == {"id": 7}


def test_the_input_function_of_a_compensation_sees_the_output_and_the_state_at_completion():
    def seat(state: FlowState) -> Any:
        return [state.get("book", int), state.get("other", str), sorted(state.keys())]

    flow = chain_of(step("book").on_error(step("cancel").with_input(seat)))
    data = undo_of(flow, 5, Hash({"other": "then"}))
    assert compensation_value(flow, data) == [5, "then", ["book", "other"]]


def test_a_fixed_input_of_a_compensation_is_stored_as_it_is():
    flow = chain_of(step("book").on_error(step("cancel").with_input("all")))
    assert compensation_value(flow, undo_of(flow, 5)) == "all"


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_an_input_function_that_raises_fails_the_compensation_and_not_the_node(
    kind: type[BaseException],
):
    def broken(_: FlowState) -> Any:
        raise kind("no seat")

    flow = chain_of(step("book").on_error(step("cancel").with_input(broken)))
    data = undo_of(flow, 5)
    with pytest.raises(TerminalError, match=f"{kind.__name__}: no seat") as caught:
        compensation_value(flow, data)
    assert judging.retry_delay(NodePlan("cancel", "cancel"), 1, caught.value) is None


def test_an_outage_while_the_input_of_a_compensation_is_made_is_not_its_failure():
    def away(_: FlowState) -> Any:
        raise OutputsAway("for now")

    flow = chain_of(step("book").on_error(step("cancel").with_input(away)))
    with pytest.raises(OutputsAway):
        undo_of(flow, 5)


def test_a_compensation_whose_input_is_not_stored_fails():
    with pytest.raises(MissingOutput, match="not stored"):
        compensation_value(chain_of(undoable("book")), None)


def test_a_node_without_a_compensation_stores_no_input_for_one():
    assert undo_of(chain_of(step("a")), 1) is None


def test_a_compensation_has_its_own_name_retry_and_timeout():
    cancel = step("cancel", timeout="7s", retry=RetryPolicy(max_attempts=9))
    bound = Bound.of(chain_of(step("book").on_error(cancel)), 0, 0, undo=True)
    assert bound.plan.name == "cancel"
    assert (bound.plan.timeout_ms, bound.plan.retry.max_attempts) == (7_000, 9)


# Retries.


def delays(policy: RetryPlan, attempts: int) -> list[int]:
    return [judging.backoff_ms(policy, number) for number in range(1, attempts + 1)]


def test_a_retry_waits_longer_each_time_up_to_the_maximum():
    policy = RetryPlan(initial_ms=1000, coefficient=2.0, maximum_ms=10_000, jitter=0.0)
    assert delays(policy, 6) == [1000, 2000, 4000, 8000, 10_000, 10_000]


def test_jitter_spreads_a_retry_by_no_more_than_its_fraction():
    policy = RetryPlan(initial_ms=1000, jitter=0.1)
    found = {judging.backoff_ms(policy, 1) for _ in range(300)}
    assert 900 <= min(found) < 950
    assert 1050 < max(found) <= 1100


def test_the_ten_thousandth_retry_still_waits_the_maximum():
    assert judging.backoff_ms(RetryPlan(maximum_ms=60_000, jitter=0.0), 10_000) == 60_000


def test_a_retry_is_never_at_once():
    assert judging.backoff_ms(RetryPlan(initial_ms=0, jitter=0.0), 1) == 1


def plan_with(**retry: Any) -> NodePlan:
    return NodePlan("a", "a", retry=RetryPlan(jitter=0.0, **retry))


def test_the_last_attempt_is_followed_by_none():
    plan = plan_with(max_attempts=3)
    error = ValueError()
    assert judging.retry_delay(plan, 2, error) == 2000
    assert judging.retry_delay(plan, 3, error) is None
    assert judging.retry_delay(plan, 4, error) is None


@pytest.mark.parametrize(
    "error",
    [
        TerminalError("no"),
        NotEncodable("output", "no"),
        PayloadTooLarge(2, 1),
        MissingOutput("a"),
        msgspec.ValidationError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_another_attempt_cannot_mend_is_final(error: Exception):
    assert judging.retry_delay(plan_with(max_attempts=9), 1, error) is None


class Declined(Exception):
    """A base of what must not be retried."""


class InsufficientFunds(Declined):
    pass


@pytest.mark.parametrize(("error", "delay"), [(InsufficientFunds(), None), (ValueError(), 1000)])
def test_a_non_retryable_exception_and_its_subclasses_are_final(error: Exception, delay: Any):
    source = step("pay", retry=RetryPolicy(non_retryable=(Declined,), jitter=0.0))
    plan = chain_of(source).plan.step(0).nodes[0]
    assert judging.retry_delay(plan, 1, error) == delay


def test_retry_after_says_itself_when_but_not_how_often():
    plan = plan_with(max_attempts=2)
    assert judging.retry_delay(plan, 1, RetryAfter(90)) == 90_000
    assert judging.retry_delay(plan, 1, RetryAfter(0)) == 1
    assert judging.retry_delay(plan, 2, RetryAfter(90)) is None


def test_a_timeout_names_the_node_and_its_seconds_and_is_retried():
    plan = NodePlan("slow", "slow", timeout_ms=1500)
    error = judging.timeout_error(plan)
    assert str(error) == "node 'slow' ran longer than its timeout of 1.5 s"
    assert judging.retry_delay(plan, 1, error) is not None


# What a node is.


def test_a_plain_function_is_run_in_a_thread_and_a_coroutine_function_on_the_loop():
    def plain(value: int) -> int:
        return value

    node: Node[Any, int] = Node("plain", plain)
    flow = chain_of(node, step("coroutine"))
    assert bound_at(flow, 0).is_threaded
    assert not bound_at(flow, 1).is_threaded


class Colour(enum.Enum):
    RED = "red"


def test_an_input_is_decoded_to_the_declared_type_and_not_to_plain_data():
    async def paint(colour: Colour) -> None: ...

    bound = bound_at(chain_of(step("first"), AsyncNode("paint", paint)), 1)
    assert input_of(bound, Hash({"first": "red"}, previous=0)) is Colour.RED
