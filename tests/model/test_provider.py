"""Providers: the names of their nodes, and what these have in common."""

from __future__ import annotations

from typing import Any

import pytest

from resolute import (
    ConcurrencyLimit,
    FlowBuilder,
    Node,
    Provider,
    RateLimit,
    RetryPolicy,
    SharedRateLimit,
    Worker,
    http_classifier,
    manual,
    node,
)
from resolute.model.node_plans import node_plan, places_plans
from resolute.testing import FlowTester


@node("charge")
async def charge(amount: int) -> int:
    return amount * 2


@node("cards.refund", timeout="1s", rate_limit="5/s", retry=RetryPolicy(max_attempts=9), queue="q")
def refund(amount: int) -> int:
    return -amount


def cards(**options: Any) -> Provider:
    return Provider("cards", "1.2", [charge, refund], **options)


def test_its_nodes_are_found_under_its_name():
    provider = cards()
    assert list(provider.offered) == ["cards.charge", "cards.refund"]
    assert provider["charge"] is provider["cards.charge"]
    assert provider["charge"].key == "cards.charge"
    with pytest.raises(KeyError, match=r"no node 'pay'; it has cards\.charge, cards\.refund"):
        provider["pay"]


def test_a_node_of_it_can_be_used_like_any_other():
    flow = FlowBuilder("pay", input=int).triggered_by(manual()).then(cards()["charge"]).build()
    assert FlowTester().run(flow, 4).output == 8


def test_what_a_node_does_not_say_itself_is_said_by_its_provider():
    policy = RetryPolicy(max_attempts=2)
    provider = cards(timeout="30s", retry=policy, queue="cards", classify=http_classifier)
    found = provider["charge"]
    assert (found.timeout, found.retry, found.queue) == ("30s", policy, "cards")
    assert found.classify is http_classifier
    own = provider["refund"]
    assert (own.timeout, own.retry.max_attempts, own.queue) == ("1s", 9, "q")


@pytest.mark.parametrize("limit", ["100/1m", RateLimit(100, "1m")])
def test_its_rate_limit_has_one_bucket_for_all_its_nodes_beside_those_they_have(limit: Any):
    provider = cards(rate_limit=limit)
    one, two = (node_plan("flow", provider[name]).limits for name in ("charge", "refund"))
    assert [plan.bucket for plan in one] == ["shared:provider:cards"]
    assert [plan.bucket for plan in two] == ["shared:provider:cards", "node:flow/cards.refund/1"]


def test_a_limit_that_is_shared_already_keeps_its_name():
    several = (SharedRateLimit("bank", 5), RateLimit(10), RateLimit(9))
    found = node_plan("flow", cards(rate_limit=several)["charge"]).limits
    buckets = ["shared:bank", "shared:provider:cards:1", "shared:provider:cards:2"]
    assert [plan.bucket for plan in found] == buckets


def test_its_concurrency_limits_come_behind_those_of_its_nodes():
    mine = charge.with_concurrency((ConcurrencyLimit("tenant", 1), ConcurrencyLimit("all", 9)))
    provider = Provider("cards", "1", [mine, refund], concurrency=ConcurrencyLimit("all", 5))
    found = places_plans(provider["charge"])
    assert [(limit.name, limit.n) for limit in found] == [("tenant", 1), ("all", 5)]
    assert [limit.name for limit in places_plans(provider["refund"])] == ["all"]


REFUSED: list[tuple[tuple[Any, ...], str]] = [
    (("cards!", "1", [charge]), "provider: expected"),
    (("cards", "", [charge]), "version: expected"),
    (("cards", "1", []), "provider 'cards' has no nodes"),
    (("cards", "1", [charge, charge.as_("x")]), "two nodes are named 'charge'"),
    (("cards", "1", [Node.named("cards.x")]), r"the code of 'cards\.x' is not here"),
    (("cards", "1", [charge], None, "0s"), "expected a timeout above 0, got '0s'"),
    (("cards", "1", [charge], None, None, None, "a@b"), "queue: expected"),
]


@pytest.mark.parametrize(("arguments", "problem"), REFUSED)
def test_what_cannot_be_is_refused(arguments: Any, problem: str):
    with pytest.raises(ValueError, match=problem):
        Provider(*arguments)


def test_a_worker_and_a_tester_take_it_as_a_whole():
    provider = cards()
    worker = Worker("payments", app="x").with_providers(provider)
    assert worker.config().nodes == ("cards.charge", "cards.refund")
    named = Node.named("cards.charge", input=3)
    flow = FlowBuilder("pay").triggered_by(manual()).then(named).build()
    assert FlowTester().with_providers(provider).run(flow).output == 6
