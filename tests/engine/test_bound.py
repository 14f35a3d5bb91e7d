"""What a plan and its functions come to for one attempt: inputs, limits, compensations."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resolute.engine.bound import Bound
from resolute.errors import ErrorInfo
from resolute.model.nodes import Node
from resolute.model.policies import ConcurrencyLimit, RateLimit
from resolute.model.state import FlowState
from tests.engine.test_attempt import Hash, bound_at, input_of, take_nothing
from tests.support.flows import chain_of, either, step


def test_an_input_function_may_make_more_than_a_payload_since_it_stays_in_the_process():
    def huge(_: FlowState) -> bytes:
        return b"x" * (1 << 21)

    bound = bound_at(chain_of(step("a").with_input(huge)), 0)
    assert len(input_of(bound, Hash())) == 1 << 21


def test_an_input_function_sees_why_a_best_effort_node_failed():
    def reason(state: FlowState) -> Any:
        error = state.error("try")
        return error and error.message

    bound = bound_at(chain_of(step("try").best_effort(), step("a").with_input(reason)), 1)
    stored = Hash(errors={"try": ErrorInfo("ValueError", "no luck")})
    assert input_of(bound, stored) == "no luck"


def test_concurrency_limits_of_who_runs_a_node_by_name_come_behind_those_of_the_flow():
    asked: Node[Any, Any] = Node.named("svc.a")
    asked = asked.with_concurrency((ConcurrencyLimit("flow", 1), ConcurrencyLimit("both", 2)))
    mine = (ConcurrencyLimit("both", 9), ConcurrencyLimit("tenant", 3, key=str))
    flow = chain_of(asked)
    served = Bound.of(flow, 0, 0, served=step("svc.a", concurrency=mine))
    found = [(limit.name, limit.n, key) for limit, key in served.places]
    assert found == [("flow", 1, None), ("both", 2, None), ("tenant", 3, str)]
    assert [limit.name for limit, _ in Bound.of(flow, 0, 0).places] == ["flow", "both"]
    assert bound_at(either(), 1).places == ()


def test_the_keys_of_limits_are_found_in_the_order_of_the_plan():
    limits = (RateLimit(1), RateLimit(2, key=str))
    bound = bound_at(chain_of(step("a", rate_limit=limits)), 0)
    assert bound.limit_keys == (None, str)
    assert [limit.keyed for limit in bound.plan.limits] == [False, True]
    assert bound_at(either(), 1).limit_keys == ()


def test_a_node_without_a_compensation_cannot_be_bound_as_one():
    with pytest.raises(LookupError, match="node 'a' has no compensation"):
        Bound.of(chain_of(step("a")), 0, 0, undo=True)


def test_what_takes_no_input_is_called_without():
    assert asyncio.run(bound_at(chain_of(take_nothing), 0).call("ignored")) is None
