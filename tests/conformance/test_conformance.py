"""One list of flows, and one outcome of each: in memory, on Redis and on Valkey."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resolute.errors import FlowFailed
from resolute.store.store import Store
from resolute.testing import FlowTester
from tests.conformance.case import Case, Outcome, expected, lines_of, load_cases
from tests.conformance.hashes import comparable
from tests.conformance.real import run_for_real

CASES = load_cases()
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
CANCEL_AT = 30.0  # virtual seconds; the node that is cancelled sleeps for a minute


def run_in_memory(case: Case) -> Outcome:
    tester = FlowTester().with_rate_limiting()
    tester.with_nodes(*case.served)
    if not case.has_storage:
        tester.without_storage()
    if case.cancel_while:
        (tester.terminate_at if case.is_terminated else tester.cancel_at)(CANCEL_AT)
    for name, payload in case.signals:
        tester.signal(name, payload)
    result = tester.run(case.flow, case.input, priority=case.priority)
    try:
        output = result.output
    except FlowFailed:
        output = None
    error = result.error.type if result.error else None
    history = lines_of(result.history)
    return Outcome(result.status, output, error, history, result.costs, result.fields)


@EACH
def test_a_flow_comes_to_its_outcome_in_memory(case: Case) -> None:
    assert run_in_memory(case) == expected(case)


@EACH
def test_a_flow_comes_to_its_outcome_on_a_server(
    store: Store, run: Callable[..., Outcome], case: Case
) -> None:
    there = run(run_for_real(store, case))
    assert there == expected(case)
    assert comparable(there.fields) == comparable(run_in_memory(case).fields)
