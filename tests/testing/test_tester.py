"""The FlowTester: mocks, what it tells of a run, virtual time, and mistakes of the test."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock, Mock

import msgspec
import pytest

from resolute import (
    ConcurrencyLimit,
    DataRef,
    Flow,
    FlowBuilder,
    FlowCancelled,
    FlowFailed,
    FlowState,
    GateResult,
    InvalidInput,
    InvalidSignal,
    MissingOutput,
    Node,
    NodeStatus,
    RateLimit,
    RetryAfter,
    RetryPolicy,
    RunStatus,
    SharedRateLimit,
    TerminalError,
    UnknownSignal,
    current,
    manual,
    node,
)
from resolute.errors import FlowTesterError
from resolute.model.nodes import AsyncNode, SyncNode
from resolute.testing import FlowTester
from tests.support.flows import builder, chain_of, step

DAY = 86_400.0  # s


class Order(msgspec.Struct):
    item: str
    total: int = 0


@node("price")
async def price(order: Order) -> int:
    return order.total


@node("charge", retry=RetryPolicy(initial_interval="1h", maximum_interval="1d"))
async def charge(total: int) -> str:
    raise AssertionError("a test must not charge anybody")


@node("refund")
async def refund(receipt: str) -> None: ...


@node("ship", retry=RetryPolicy(max_attempts=1))
def ship(receipt: str) -> str:
    return f"shipped, {receipt}"


def is_paid(state: FlowState) -> bool:
    return state[price] > 0


SHOP = (
    FlowBuilder("shop", input=Order)
    .triggered_by(manual())
    .then(price)
    .when(is_paid)
    .then(charge.on_error(refund))
    .end_when()
    .then(ship.with_input(lambda state: state.get_or(charge, "gift")))
    .build()
)
ORDER = Order("tea", 10)


@pytest.fixture
def tester() -> FlowTester:
    return FlowTester()


# What a test asks.


def test_a_run_tells_its_status_output_state_and_history(tester: FlowTester):
    tester.mock_value("charge", "r-1")
    result = tester.run(SHOP, ORDER)
    assert result.status == "completed"
    assert result.output == "shipped, r-1"
    assert result.error is None
    assert result.state[charge] == "r-1"
    assert tester.state.keys() == ["charge", "price", "ship", "when.1"]
    assert [record.name for record in result.history] == ["price", "when.1", "charge", "ship"]
    assert repr(result) == "<run of 'shop', completed>"


def test_the_calls_of_a_node_are_there_to_be_looked_at(tester: FlowTester):
    tester.mock_sequence("charge", [OSError("down"), "r-2"])
    tester.run(SHOP, ORDER)
    assert tester.calls(charge) == [10, 10]
    assert tester.call_count("charge") == 2
    assert tester.last_input(ship) == "r-2"
    assert not tester.was_called(refund)
    assert tester.calls("price") == [ORDER]
    with pytest.raises(FlowTesterError, match="node 'refund' was not called"):
        tester.last_input("refund")


def test_a_failed_flow_raises_only_where_its_output_is_asked_for(tester: FlowTester):
    tester.mock_error(charge, ValueError("declined"))
    result = tester.run(SHOP, ORDER)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ValueError", "declined")
    assert result.error.node == "charge"
    with pytest.raises(FlowFailed, match="charge: ValueError: declined"):
        _ = result.output
    with pytest.raises(MissingOutput):
        _ = result.state[charge]


def test_what_completed_is_compensated(tester: FlowTester):
    tester.mock_value("charge", "r-1").mock_error("ship", OSError)
    assert tester.run(SHOP, ORDER).status == "failed"
    assert tester.calls(refund) == ["r-1"]


def test_a_predicate_can_be_mocked_and_gets_the_state(tester: FlowTester):
    seen: list[int] = []

    def free(state: FlowState) -> bool:
        seen.append(state[price])
        return False

    tester.mock("when.1", free)
    assert tester.run(SHOP, ORDER).output == "shipped, gift"
    assert seen == [10]


def test_the_input_is_checked_as_a_client_checks_it(tester: FlowTester):
    with pytest.raises(InvalidInput, match="required argument"):
        tester.run(SHOP)
    with pytest.raises(InvalidInput, match="Expected `str`, got `int`"):
        tester.run(SHOP, Order(3))  # pyright: ignore[reportArgumentType]  # wrong on purpose


def test_a_tester_keeps_its_mocks_and_forgets_the_last_run(tester: FlowTester):
    tester.mock_sequence("charge", [OSError("down"), "r"])
    for _ in range(2):
        assert tester.run(SHOP, ORDER).output == "shipped, r"
        assert tester.call_count("charge") == 2
        assert tester.now == 3600


# Mocks.


def receipt(total: int) -> str:
    return f"r-{total}"


MOCKS: dict[str, Any] = {
    "a function": receipt,
    "one without a parameter": lambda: "r-10",
    "a Mock": Mock(return_value="r-10"),
    "an AsyncMock": AsyncMock(return_value="r-10"),
    "one that is built in": "r-{}".format,
}


@pytest.mark.parametrize("mock", MOCKS.values(), ids=MOCKS)
def test_any_callable_is_a_mock(tester: FlowTester, mock: Any):
    assert tester.mock(charge, mock).run(SHOP, ORDER).output == "shipped, r-10"


def test_a_mock_may_be_a_coroutine_function(tester: FlowTester):
    async def slowly(total: int) -> str:
        await asyncio.sleep(60)
        return f"{current().node} of {total}"

    result = tester.mock("charge", slowly).run(SHOP, ORDER)
    assert result.output == "shipped, charge of 10"
    assert tester.now == 60


def test_a_mocked_value_is_checked_as_an_output_of_its_node(tester: FlowTester):
    result = tester.mock_value("charge", 7).run(SHOP, ORDER)
    assert result.error is not None
    assert result.error.type == "ValidationError"
    assert "output of node 'charge'" in result.error.message


def test_an_unknown_name_is_a_mistake_that_names_the_nodes_there_are(tester: FlowTester):
    tester.mock_value("chrage", "x")
    expected = "flow 'shop' has no node 'chrage'; it has price, when.1, charge, refund, ship"
    with pytest.raises(FlowTesterError, match=expected):
        tester.run(SHOP, ORDER)
    other = FlowTester().mock_value("charge", "x")
    other.run(SHOP, ORDER)
    with pytest.raises(FlowTesterError, match="has no node 'refnud'"):
        other.calls("refnud")


def test_what_cannot_be_a_mock_is_refused_at_once(tester: FlowTester):
    with pytest.raises(FlowTesterError, match=r"expected a function, got 5; .* mock_value\(\)"):
        tester.mock("charge", 5)  # pyright: ignore[reportArgumentType]  # wrong on purpose
    with pytest.raises(FlowTesterError, match="expected a function of one input or none"):
        tester.mock("charge", isinstance)
    with pytest.raises(FlowTesterError, match="expected an exception, got 'down'"):
        tester.mock_error("charge", "down")  # pyright: ignore[reportArgumentType]


def test_a_sequence_that_is_used_up_fails_the_test_and_not_the_flow(tester: FlowTester):
    tester.mock_sequence("charge", [OSError("down")])
    with pytest.raises(FlowTesterError, match=r"has 1 outcome\(s\), and the node was called once"):
        tester.run(SHOP, ORDER)


def test_a_test_may_fail_inside_a_mock(tester: FlowTester):
    tester.mock_value("charge", "r").mock_error("ship", OSError)
    tester.mock("refund", lambda: pytest.fail("nobody is refunded"))
    with pytest.raises(pytest.fail.Exception, match="nobody is refunded"):
        tester.run(SHOP, ORDER)


def test_nothing_can_be_asked_before_a_run(tester: FlowTester):
    with pytest.raises(FlowTesterError, match="has not run a flow yet"):
        tester.calls("charge")
    assert tester.now == 0.0


# Virtual time.


def test_backoff_takes_virtual_time_without_jitter(tester: FlowTester):
    tester.mock_error("charge", OSError("down"))
    result = tester.run(SHOP, ORDER)
    assert tester.now == 3 * 3600  # 1 h, then 2 h
    (record,) = [one for one in result.history if one.name == "charge"]
    assert (record.attempts, record.begun, record.ended) == (3, 10_800, 10_800)


def test_a_node_that_sleeps_longer_than_its_timeout_times_out(tester: FlowTester):
    async def slow(_: Any) -> None:
        await asyncio.sleep(30 * DAY)

    flow = chain_of(AsyncNode("slow", slow, timeout="1d", retry=RetryPolicy(max_attempts=2)))
    result = tester.run(flow)
    assert result.error is not None
    assert result.error.type == "NodeTimeout"
    assert tester.now == 2 * DAY + 1
    assert tester.call_count("slow") == 2


def test_nodes_of_a_parallel_step_run_at_once_and_in_a_fixed_order(tester: FlowTester):
    began: list[str] = []

    def sleeping(name: str, span: float) -> AsyncNode[Any, str]:
        async def sleep(_: Any) -> str:
            began.append(name)
            await asyncio.sleep(span)
            began.append(f"{name} ends")
            return name

        return AsyncNode(name, sleep)

    nodes = [sleeping("a", 30), sleeping("b", 10), sleeping("c", 20)]
    result = tester.run(builder("fan").then_parallel("fan", *nodes).build())
    assert result.output == {"a": "a", "b": "b", "c": "c"}
    assert began == ["a", "b", "c", "b ends", "c ends", "a ends"]
    assert tester.now == 30


def test_time_can_be_asked_for_while_a_run_lasts(tester: FlowTester):
    asked: list[float] = []

    async def ask(_: Any) -> None:
        asked.append(tester.now)
        await asyncio.sleep(5)
        asked.append(tester.now)

    tester.mock("a", ask).run(chain_of(step("a")))
    assert asked == [0, 5]


def test_plain_functions_run_in_a_thread_where_no_loop_runs(tester: FlowTester):
    async def inside() -> str:
        return "inside"

    def plain(_: Any) -> str:
        assert threading.current_thread() is not threading.main_thread()
        return f"{asyncio.run(inside())} {current().key}"

    assert tester.run(chain_of(SyncNode("plain", plain))).output == "inside test/1.0"


def test_a_thread_that_a_node_starts_takes_no_virtual_time(tester: FlowTester):
    async def work(_: Any) -> str:
        return await asyncio.to_thread(lambda: "done")

    flow = chain_of(AsyncNode("work", work, timeout="1s", retry=RetryPolicy(max_attempts=1)))
    assert tester.run(flow).output == "done"
    assert tester.now == 0


def test_what_comes_from_a_thread_that_the_loop_does_not_know_is_waited_for(tester: FlowTester):
    def answer(loop: asyncio.AbstractEventLoop, found: asyncio.Future[str]) -> None:
        loop.call_soon_threadsafe(found.set_result, "done")

    async def work(_: Any) -> str:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[str] = loop.create_future()
        threading.Timer(0.05, answer, (loop, found)).start()
        return await found

    assert tester.run(chain_of(AsyncNode("work", work))).output == "done"
    assert tester.now == 0


def test_a_node_that_waits_for_nothing_times_out_after_a_moment(tester: FlowTester):
    async def forever(_: Any) -> None:
        await asyncio.Event().wait()

    flow = chain_of(AsyncNode("stuck", forever, retry=RetryPolicy(max_attempts=1)))
    result = tester.run(flow)
    assert result.error is not None
    assert result.error.type == "NodeTimeout"
    assert tester.now == 300


def test_a_cancelled_run_stops_what_runs_and_compensates(tester: FlowTester):
    stopped: list[float] = []

    async def slow(_: Any) -> None:
        try:
            await asyncio.sleep(DAY)
        except asyncio.CancelledError:
            stopped.append(tester.now)
            raise

    tester.mock_value("charge", "r-1").mock("ship", slow).cancel_at("2m")
    result = tester.run(SHOP, ORDER)
    assert result.status is RunStatus.CANCELLED
    assert stopped == [120]
    assert tester.calls(refund) == ["r-1"]
    with pytest.raises(FlowCancelled):
        _ = result.output


def test_a_cancel_while_a_retry_is_waited_for_skips_the_node(tester: FlowTester):
    tester.mock_error("charge", OSError("down")).cancel_at("30m")
    result = tester.run(SHOP, ORDER)
    assert [one.status for one in result.history if one.name == "charge"] == [NodeStatus.SKIPPED]
    assert tester.now == 1800


def test_a_terminated_run_ends_at_once_and_undoes_nothing(tester: FlowTester):
    stopped: list[float] = []

    async def slow(_: Any) -> None:
        try:
            await asyncio.sleep(DAY)
        finally:
            stopped.append(tester.now)

    tester.mock_value("charge", "r-1").mock("ship", slow).terminate_at("2m")
    result = tester.run(SHOP, ORDER)
    assert result.status is RunStatus.TERMINATED
    assert tester.now == 120
    assert tester.calls(refund) == []


def test_children_run_with_the_same_mocks_and_are_there_by_their_ids(tester: FlowTester):
    many = (
        FlowBuilder("many-orders")
        .triggered_by(manual())
        .then_children("orders", flow="shop", inputs=lambda _: [ORDER, ORDER])
        .build()
    )
    with pytest.raises(FlowTesterError, match="known only by its name: give it to"):
        tester.run(many)
    tester.with_flow(SHOP).mock_value("charge", "r-1")
    result = tester.run(many)
    assert result.status == "completed"
    assert tester.call_count("charge") == 2
    assert [child.status for child in result.children.values()] == ["completed"] * 2
    assert list(result.children) == ["test/orders.0", "test/orders.1"]


def test_a_cancel_after_the_end_changes_nothing(tester: FlowTester):
    tester.mock_value("charge", "r").cancel_at("1h")
    assert tester.run(SHOP, ORDER).status == "completed"
    assert tester.now == 0


# Gates, signals, sleeps, deadlines.


@node("publish")
async def publish(decision: GateResult) -> str:
    return f"{decision.approved} by {decision.decided_by}"


GATED = builder("gated").then_gate("approval", timeout="24h").then(publish).build()


def test_a_signal_passes_a_gate_when_it_is_sent(tester: FlowTester):
    tester.signal("approval", GateResult(True, decided_by="ann"), after="2h")
    assert tester.run(GATED).output == "True by ann"
    assert tester.now == 7200


@pytest.mark.parametrize("flow", [builder("f").then(step("a")), "f", None])
def test_what_is_no_flow_is_not_run(tester: FlowTester, flow: Any):
    with pytest.raises(FlowTesterError, match="expected a built flow, got") as caught:
        tester.run(flow)
    assert caught.value.__context__ is None  # nothing else went wrong before


def test_a_loop_that_is_not_there_has_no_turn(tester: FlowTester):
    flow = builder("f").then(step("a").with_input(lambda state: state.turn("nowhere"))).build()
    error = tester.run(flow).error
    assert error is not None and "MissingOutput: no output 'nowhere'" in str(error)


async def forbidden() -> bool:
    return False


def test_an_answer_that_somebody_would_have_to_wait_for_fails_the_run(tester: FlowTester):
    def later(_: Any) -> Any:
        return forbidden()

    branching = builder("asks").when(later).then(step("a")).end_when().build()
    looping = builder("turns").then_loop(
        "l", body=step("a"), state=int, initial=0, while_=later, after=lambda _, n: n
    )
    for flow in (branching, looping.build()):
        result = tester.run(flow)
        assert result.status is RunStatus.FAILED
        assert result.error is not None and "expected an answer" in str(result.error)
    assert tester.mock("when.1", AsyncMock(return_value=True)).run(branching).status == "completed"


def test_a_gate_that_nobody_passes_times_out(tester: FlowTester):
    result = tester.run(GATED)
    assert result.error is not None
    assert str(result.error) == "approval: GateTimeout: gate 'approval': no signal came in time"
    assert tester.now == DAY


def test_a_gate_that_can_never_be_passed_is_a_mistake_of_the_test(tester: FlowTester):
    flow = builder("gated").then_gate("approval", signal="decision").then(publish).build()
    with pytest.raises(FlowTesterError, match="no signal 'decision' is sent"):
        tester.run(flow)
    assert tester.cancel_at("1h").run(flow).status is RunStatus.CANCELLED


def test_a_signal_is_checked_as_a_client_checks_it(tester: FlowTester):
    with pytest.raises(UnknownSignal, match="takes no signal 'aproval': it takes approval"):
        tester.signal("aproval").run(GATED)
    with pytest.raises(InvalidSignal, match="signal 'approval'"):
        FlowTester().signal("approval", {"approved": "perhaps"}).run(GATED)


@pytest.mark.parametrize(
    "payload", [None, {}, {"approve": False}, {"approved": True, "aproved": False}, [], True]
)
def test_nothing_is_approved_by_accident(tester: FlowTester, payload: object):
    with pytest.raises(InvalidSignal, match=r"signal 'approval': .* a gate takes a decision"):
        tester.signal("approval", payload).run(GATED)
    with pytest.raises(TypeError, match="approved"):
        GateResult()  # pyright: ignore[reportCallIssue]


def test_a_run_sleeps_until_a_moment_of_its_own_time(tester: FlowTester):
    morning = datetime(2030, 1, 7, 9, tzinfo=UTC)
    flow = builder("early").then_sleep_until(lambda _: morning).then(step("a")).build()
    assert tester.starts_at(morning - timedelta(hours=3)).run(flow).status == "completed"
    assert tester.now == 3 * 3600
    tester.starts_at(morning + timedelta(days=1)).run(flow)
    assert tester.now == 0
    with pytest.raises(FlowTesterError, match="expected a time zone"):
        tester.starts_at(datetime(2030, 1, 7))


def test_a_deadline_counts_the_time_between_attempts(tester: FlowTester):
    tester.mock_error("charge", OSError("down"))
    flow = builder("late").with_deadline("90m").then(charge.with_input(1)).build()
    result = tester.run(flow)
    assert result.error is not None
    assert result.error.type == "DeadlineExceeded"
    assert tester.now == 5400


# Rate limits.


def test_limits_grant_at_once_unless_asked_for(tester: FlowTester):
    flow = chain_of(*(step(f"n{i}", rate_limit="1/1h") for i in range(3)))
    tester.run(flow)
    assert tester.now == 0


def test_with_rate_limiting_limits_take_their_virtual_time(tester: FlowTester):
    limited = step("call", rate_limit=RateLimit(2, "1m", burst=2))
    calls = [limited.as_(f"c{i}") for i in range(5)]
    result = tester.with_rate_limiting().run(builder("fan").then_parallel("all", *calls).build())
    starts = [one.begun for one in result.history]
    assert [round(start or 0.0) for start in starts] == [0, 0, 30, 60, 90]
    assert [one.attempts for one in result.history] == [1] * 5


@pytest.mark.parametrize("slow_first", [True, False])
def test_of_two_limits_the_slower_one_says_when(tester: FlowTester, slow_first: bool):
    both = (RateLimit(2, "1m", burst=2), SharedRateLimit("quick", 100, "1s", burst=1))
    limited = step("call", rate_limit=both if slow_first else both[::-1])
    calls = [limited.as_(f"c{i}") for i in range(5)]
    flow = builder("fan").then_parallel("all", *calls).with_deadline("1h").build()
    result = tester.with_rate_limiting().run(flow)
    assert result.status == "completed"
    starts = [one.begun for one in result.history]
    assert [round(start or 0.0) for start in starts] == [0, 0, 30, 60, 90]
    assert [one.attempts for one in result.history] == [1] * 5


def test_a_retry_after_closes_the_limit_for_all(tester: FlowTester):
    limited = step("call", rate_limit=RateLimit(1, "1s", burst=1))
    tester.mock_sequence("call", [RetryAfter(100), "a", "b"]).with_rate_limiting()
    flow = builder("fan").then_parallel("all", limited.as_("a"), limited.as_("b")).build()
    result = tester.run(flow)
    assert result.status == "completed"
    assert min(one.ended or 0.0 for one in result.history) >= 100


def test_a_concurrency_limit_takes_its_virtual_time(tester: FlowTester):
    @node("call", concurrency=ConcurrencyLimit("two", 2))
    async def call(minutes: int) -> None:
        await asyncio.sleep(60 * minutes)

    calls = [call.with_input(minutes).as_(f"c{minutes}") for minutes in (3, 2, 1, 4)]
    result = tester.run(builder("crowd").then_parallel("all", *calls).build())
    starts = [round(one.begun or 0.0) for one in result.history]
    assert starts == [0, 0, 120, 180]
    assert [one.attempts for one in result.history] == [1] * 4


def test_a_place_is_free_when_its_node_has_timed_out_or_failed(tester: FlowTester):
    @node("call", timeout="1m", concurrency=ConcurrencyLimit("one", 1))
    async def call(number: int) -> None:
        await asyncio.sleep(600 if number == 0 else 0)
        raise TerminalError("no")

    calls = [call.with_input(number).as_(f"c{number}").best_effort() for number in range(3)]
    result = tester.run(builder("crowd").then_parallel("all", *calls).build())
    assert result.status == "completed"
    assert all(one.status == "failed" for one in result.history)


def test_a_key_function_of_a_concurrency_limit_that_raises_fails_its_node(tester: FlowTester):
    def broken(value: object) -> str:
        raise LookupError("no tenant")

    limited = step("call", concurrency=ConcurrencyLimit("one", 1, key=broken))
    limited = limited.with_retry(RetryPolicy(max_attempts=1))
    result = tester.run(chain_of(limited))
    assert result.error is not None and result.error.message == "no tenant"


# Loops.


async def test_in_a_running_loop_it_is_awaited(tester: FlowTester):
    tester.mock_value("charge", "r")
    with pytest.raises(FlowTesterError, match=r"use `await tester.run_async\(...\)`"):
        tester.run(SHOP, ORDER)
    assert (await tester.run_async(SHOP, ORDER)).output == "shipped, r"


def test_a_day_takes_no_day(tester: FlowTester):
    tester.mock_error("charge", RetryAfter(DAY)).run(SHOP, ORDER)
    assert tester.now == 2 * DAY


def test_a_node_leaves_no_task_and_no_thread_behind(tester: FlowTester):
    async def careless(_: Any) -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(DAY)))

    tasks: list[asyncio.Task[None]] = []
    before = threading.active_count()
    tester.mock("a", careless).run(chain_of(step("a"), SyncNode("b", lambda: None)))
    assert tasks[0].cancelled()
    assert threading.active_count() == before


# Nodes that are run by name.

NAMED = builder("named").then(Node.named("svc.charge", input=5, returns=int)).build()


def test_a_named_node_that_the_test_does_not_have_is_a_mistake_of_the_test(tester: FlowTester):
    text = r"'svc.charge' is run by another team's worker: mock it, or .* by with_nodes\(\)"
    with pytest.raises(FlowTesterError, match=text):
        tester.run(NAMED)
    with pytest.raises(FlowTesterError, match=r"with_nodes: the code of node 'svc\.charge'"):
        tester.with_nodes(Node.named("svc.charge"))


def double(amount: int) -> int:
    return amount * 2


def test_a_named_node_that_is_mocked_is_held_to_what_its_flow_expects(tester: FlowTester):
    assert tester.mock("svc.charge", double).run(NAMED).output == 10
    assert tester.calls("svc.charge") == [5]
    result = tester.mock_value("svc.charge", "ten").run(NAMED)
    assert result.error is not None and "Expected `int`, got `str`" in result.error.message


def test_a_named_node_is_run_as_its_team_has_it(tester: FlowTester):
    @node("svc.charge", rate_limit=RateLimit(1, "1h", burst=1))
    async def charge_it(amount: int) -> int:
        return amount * 3

    tester.with_nodes(charge_it).with_rate_limiting()
    assert tester.run(NAMED).output == 15
    fan = builder("fan").then_parallel(
        "all", *(Node.named("svc.charge", input=n).as_(f"n{n}") for n in range(2))
    )
    result = tester.run(fan.build())
    assert result.output == {"n0": 0, "n1": 3}
    assert tester.now >= 3599


# Large values.


@node("large-text")
async def large_text() -> str:
    return "x" * 500


@node("refer")
async def refer(text: str) -> DataRef[str]:
    return await current().store(text)


def storing() -> Flow[Any, Any]:
    return builder("storing").with_max_payload(100).then(large_text).then(refer).build()


def test_a_tester_has_a_storage_and_a_reference_in_the_result_can_be_loaded():
    result = FlowTester().run(storing())
    assert result.load(result.output) == "x" * 500
    assert result.state[large_text] == "x" * 500


def test_without_a_storage_what_is_above_the_limit_fails_and_a_reference_cannot_be_made():
    result = FlowTester().without_storage().run(storing())
    assert result.error is not None
    assert result.error.type == "PayloadTooLarge"
    refused = FlowTester().without_storage().mock_value(large_text, "small").run(storing())
    assert refused.error is not None
    assert refused.error.type == "ConfigurationError"
