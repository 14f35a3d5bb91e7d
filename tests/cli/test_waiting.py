"""What an open run waits for, from every state of its nodes and of the deployment."""

from __future__ import annotations

from typing import Any

import msgspec

from resolute import ConcurrencyLimit, FlowBuilder, Node, manual, node
from resolute.cli.live import SLOW_EVENT, Situation
from resolute.cli.show.waiting import LONER_CRASHES, Wait, WaitKind, find_waits
from resolute.errors import ErrorInfo
from resolute.model.messages import NodeRecord
from resolute.status import NodeStatus, RunStatus
from resolute.store.registry import ProcessInfo
from resolute.store.runs import Header
from resolute_worker import reader

NOW = 1_000_000.0


@node("call", queue="gpu", concurrency=ConcurrencyLimit("seats", 2))
async def call(value: int) -> int:
    return value


PLAN = FlowBuilder("calls").triggered_by(manual()).then(call).build().plan
HEADER = Header(
    id="r-1", flow="calls", status=RunStatus.RUNNING, plan=PLAN.hash, pc=0, seq=1, rev="1-a",
    pending=1, queue="default", token="1-a.0", page=1, skip=0, undos=0, undoing=0,
    cancelled=False, terminated=False, previous=None, started=NOW - 60, ended=None,
    moved=NOW - 50, error=None, retry_of=None, due=None, deadline=None, overran=False, width=0,
)  # fmt: skip
READY = NodeRecord(1, 0, "call", "call", NodeStatus.READY, 0, dispatched=NOW - 50)
COORDINATOR = ProcessInfo("c", "coordinator", "host", 1, 0, 15.0)
WORKER = ProcessInfo(
    "w", "worker", "host", 2, 0, 15.0, queue="gpu", flows={"calls": PLAN.hash}, concurrency=10
)
HEALTHY = Situation(NOW, [WORKER], [COORDINATOR])


def waits(
    record: NodeRecord, situation: Situation = HEALTHY, *, held: str = "", **header: Any
) -> list[Wait]:
    changed = msgspec.structs.replace(HEADER, **header)
    return find_waits(changed, PLAN, [record], {0: held}, situation)


def changed(**changes: Any) -> NodeRecord:
    return msgspec.structs.replace(READY, **changes)


def deployment(**changes: Any) -> Situation:
    return msgspec.structs.replace(HEALTHY, **changes)


def test_a_node_that_a_live_process_runs():
    record = changed(status=NodeStatus.RUNNING, process="w", begun=NOW - 12, attempts=1)
    (wait,) = waits(record)
    assert (wait.kind, wait.text) == (WaitKind.NODE, "call runs on w for 12.0 s")


def test_a_node_whose_process_is_gone_waits_for_a_coordinator():
    record = changed(status=NodeStatus.RUNNING, process="dead", begun=NOW - 12, attempts=1)
    (wait,) = waits(record)
    assert wait.kind is WaitKind.COORDINATOR and "dead, which is gone" in wait.text


def test_a_ready_node_with_a_worker_waits_in_its_queue():
    (wait,) = waits(READY)
    assert (wait.kind, wait.queue) == (WaitKind.QUEUE, "gpu")


def test_a_ready_node_without_a_worker_on_its_queue():
    elsewhere = msgspec.structs.replace(WORKER, queue="default")
    (wait,) = waits(READY, deployment(workers=[elsewhere]))
    assert (wait.kind, wait.queue) == (WaitKind.WORKER, "gpu")


def test_a_worker_with_another_plan_is_none():
    other = msgspec.structs.replace(WORKER, flows={"calls": "another"})
    (wait,) = waits(READY, deployment(workers=[other]))
    assert wait.kind is WaitKind.WORKER and PLAN.hash in wait.text


def test_a_named_node_waits_for_who_offers_it_by_name_whatever_its_plan():
    plan = FlowBuilder("calls").triggered_by(manual()).then(Node.named("call", queue="gpu"))
    named = plan.build().plan
    header = msgspec.structs.replace(HEADER, plan=named.hash)
    has_flow = msgspec.structs.replace(WORKER, flows={"calls": named.hash})
    (wait,) = find_waits(header, named, [READY], {}, deployment(workers=[has_flow]))
    assert wait.kind is WaitKind.WORKER and "offers this node by name on queue gpu" in wait.text
    has_node = msgspec.structs.replace(WORKER, flows={}, nodes=("call",))
    (wait,) = find_waits(header, named, [READY], {}, deployment(workers=[has_node]))
    assert wait.kind is WaitKind.QUEUE


def test_a_retry_has_its_number_and_the_error_before():
    record = changed(
        status=NodeStatus.WAITING, attempts=1, due=NOW + 3, error=ErrorInfo("IOError", "no\nmore")
    )
    (wait,) = waits(record)
    assert wait.kind is WaitKind.RETRY
    assert wait.text == "call: attempt 2 of 3 due in 3.0 s, after IOError: no"


def test_a_deferred_node_waits_for_its_limit_even_after_a_failure():
    first = changed(status=NodeStatus.WAITING, due=NOW + 3)
    later = changed(status=NodeStatus.WAITING, attempts=2, due=NOW + 3)
    assert waits(first)[0].kind is WaitKind.RATE_LIMIT
    assert waits(later, held="reserved:1:0")[0].kind is WaitKind.RATE_LIMIT
    assert waits(later)[0].kind is WaitKind.RETRY


def test_a_node_in_line_says_for_which_limit():
    record = changed(status=NodeStatus.WAITING, due=NOW + 60)
    (wait,) = waits(record, held="line:1:0+5:0")
    assert (wait.kind, wait.due) == (WaitKind.CONCURRENCY, NOW + 60)
    assert wait.text == "call: concurrency limit seats, it is in line for a place"
    # Of limits behind those of the flow only who runs the node by name knows the names.
    assert "concurrency limit of its provider" in waits(record, held="+5:1")[0].text
    assert waits(record, held="reserved:1:0=5")[0].kind is WaitKind.RATE_LIMIT
    overdue = changed(status=NodeStatus.WAITING, due=NOW - 60)
    assert waits(overdue, held="+5:0")[0].kind is WaitKind.COORDINATOR


def test_a_node_that_crashed_twice_says_that_it_waits_to_run_alone():
    assert waits(changed(crashes=LONER_CRASHES - 1))[0].kind is WaitKind.QUEUE
    (wait,) = waits(changed(crashes=LONER_CRASHES))
    assert wait.kind is WaitKind.ALONE
    assert wait.text.startswith("call: 2 processes died with it, so that it runs alone")
    assert LONER_CRASHES == reader.LONER_CRASHES


def test_a_timer_that_nobody_fires_is_a_coordinators_fault():
    record = changed(status=NodeStatus.WAITING, attempts=1, due=NOW - 60)
    (wait,) = waits(record)
    assert wait.kind is WaitKind.COORDINATOR and "due since" in wait.text


def test_without_a_coordinator_that_comes_first():
    found = waits(READY, deployment(coordinators=[]))
    assert [wait.kind for wait in found] == [WaitKind.COORDINATOR, WaitKind.QUEUE]
    assert "start resolute-coord" in found[0].text


def test_coordinators_that_do_not_handle_events():
    found = waits(READY, deployment(event_age=SLOW_EVENT + 1))
    assert found[0].kind is WaitKind.COORDINATOR and "do not keep up" in found[0].text


def test_a_run_that_has_not_begun():
    (wait,) = find_waits(msgspec.structs.replace(HEADER, plan="", seq=0), None, [], {}, HEALTHY)
    assert (wait.kind, wait.text) == (WaitKind.COORDINATOR, "a coordinator is to begin it")


def test_between_two_steps():
    record = changed(status=NodeStatus.COMPLETED, attempts=1, begun=NOW - 2, ended=NOW - 1)
    (wait,) = waits(record)
    assert wait.text == "a coordinator is to go on to the next step"
