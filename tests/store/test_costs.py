"""What attempts cost is summed in the run, once for each attempt, in Redis's own numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest

from resolute.client.retrying import plan_retry
from resolute.status import RunStatus
from resolute.store import runs
from resolute.store.costs import read_costs
from tests.support.flows import chain, fan
from tests.support.stage import Stage

LARGEST = 2**63 - 1


async def test_a_run_that_has_spent_nothing_has_no_field_for_it(stage: Stage):
    await stage.begin_run(chain("a"))
    assert await stage.complete("worker", await stage.claim_one("worker")) == "OK"
    assert not [name for name in await stage.hash() if name.startswith("cost")]
    assert await read_costs(stage.store, "run") == {}
    assert await read_costs(stage.store, "no-such-run") == {}


async def test_completed_failed_and_handed_back_attempts_are_summed_once(stage: Stage):
    await stage.begin_run(fan(3))
    one, two, three = await stage.claim("worker")
    for _ in range(2):  # the reply was lost
        assert await stage.complete("worker", one, costs="usd|1500000|eur|1") == "OK"
        assert await stage.fail("worker", two, 60_000, costs="usd|1") == "OK"
        assert await stage.give_back("worker", three, costs="eur|2") == "OK"
    found = await read_costs(stage.store, "run")
    assert found == {"usd": Decimal("1.500001"), "eur": Decimal("0.000003")}


@pytest.mark.parametrize("how", ["complete", "fail", "give_back"])
async def test_an_attempt_that_the_fence_refuses_costs_the_run_nothing(stage: Stage, how: str):
    await stage.begin_run(chain("a"))
    held = await stage.claim_one("worker")
    send = getattr(stage, how)
    assert await send("another", held, costs="usd|1") == "STALE"
    assert await read_costs(stage.store, "run") == {}


async def test_sums_are_exact_where_a_float_is_not(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.complete("worker", one, costs="usd|9007199254740993")
    await stage.complete("worker", two, costs="usd|9007199254740992")
    assert (await stage.hash())["cost:usd"] == b"18014398509481985"


async def test_a_sum_that_would_overflow_stays_and_the_node_completes(stage: Stage):
    await stage.begin_run(chain("a"))
    key = stage.of("run").flow("run")
    await stage.store.execute("HSET", key, "costs", "usd", "cost:usd", LARGEST)
    assert await stage.complete("worker", await stage.claim_one("worker"), costs="usd|1") == "OK"
    assert (await stage.hash())["cost:usd"] == str(LARGEST).encode()


async def test_a_retried_run_counts_what_it_spends_itself(stage: Stage):
    flow = chain("a", "b")
    await stage.begin_run(flow)
    await stage.complete("worker", await stage.claim_one("worker"), costs="usd|5|eur|1")
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"), costs="usd|2")
    await stage.coordinate()
    header = await stage.header()
    assert header.status is RunStatus.FAILED
    fields = {name: v for name, v in (await stage.hash()).items() if name[:2] in KINDS}
    resumption = plan_retry(header, flow.plan, fields)
    assert await runs.retry(
        stage.store, header, "run/~1", resumption.drop, resumption.fields
    ) == "OK"  # fmt: skip
    assert not [name for name in await stage.hash("run/~1") if name.startswith("cost")]
    assert (await read_costs(stage.store, "run"))["usd"] == Decimal("0.000007")
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"), costs="usd|3")
    assert await read_costs(stage.store, "run/~1") == {"usd": Decimal("0.000003")}


KINDS = ("s:", "n:", "o:", "x:")
