"""Signals: a gate that waits is passed, anything else is kept until somebody takes it."""

from __future__ import annotations

from typing import Any

import pytest

from resolute.model.flow import Flow
from resolute.status import NodeStatus, RunStatus
from resolute.store import runs
from tests.support.flows import builder, step
from tests.support.keyspace import snapshot
from tests.support.stage import Stage

GATE = (
    builder("gate").then_gate("approval", signal="decision", timeout="1h").then(step("b")).build()
)
TWO = builder("two").then_gate("one", signal="go").then_gate("two", signal="go").build()
YES, NO = b"\xa3yes", b"\xa2no"


async def test_a_gate_that_waits_is_passed_and_the_payload_is_its_output(stage: Stage):
    await stage.begin_run(GATE)
    assert (await stage.header()).pending == 1
    assert await stage.signal("decision", YES) == "OK"
    fields = await stage.hash()
    assert fields["o:approval"] == YES
    assert (await stage.header()).pending == 0
    assert await stage.store.execute("ZCARD", stage.of("run").timers) == 0
    await stage.coordinate()
    assert [entry.pc for _, entry in await stage.entries()] == [1]
    assert (await stage.header()).previous == 0


async def test_a_signal_that_comes_before_the_gate_is_reached_passes_it_at_once(stage: Stage):
    await stage.offer(GATE)
    await stage.start(GATE)
    assert await stage.signal("decision", YES) == "OK"
    await stage.coordinate()
    assert (await stage.hash())["o:approval"] == YES
    assert [entry.pc for _, entry in await stage.entries()] == [1]
    assert await stage.store.execute("ZCARD", stage.of("run").timers) == 0


async def test_signals_are_taken_in_the_order_they_came_each_by_one_gate(stage: Stage):
    await stage.offer(TWO)
    await stage.start(TWO)
    for sender, payload in (("a", YES), ("b", NO)):
        assert await stage.signal("go", payload, sender=sender) == "OK"
    await stage.coordinate()
    fields = await stage.hash()
    assert (fields["o:one"], fields["o:two"]) == (YES, NO)
    assert await stage.status() is RunStatus.COMPLETED
    assert not [name for name in fields if name.startswith("sg:")]


async def test_a_second_signal_waits_for_the_second_gate(stage: Stage):
    await stage.begin_run(TWO)
    await stage.signal("go", YES, sender="a")
    await stage.signal("go", NO, sender="b")
    await stage.coordinate()
    fields = await stage.hash()
    assert (fields["o:one"], fields["o:two"]) == (YES, NO)


async def test_another_signal_passes_no_gate_and_is_kept(stage: Stage):
    await stage.begin_run(GATE)
    assert await stage.signal("another", YES) == "OK"
    fields = await stage.hash()
    assert (fields["sg:another:0"], fields["sn:another"]) == (YES, b"1")
    assert (await stage.header()).pending == 1


@pytest.mark.parametrize("reached", [True, False])
async def test_the_same_sender_s_signal_sent_twice_is_one(stage: Stage, reached: bool):
    await stage.offer(TWO)
    await stage.start(TWO)
    if reached:
        await stage.coordinate()
    assert await stage.signal("go", YES) == "OK"
    before = await snapshot(stage.store)
    assert await stage.signal("go", NO) == "OK"
    assert await snapshot(stage.store) == before
    await stage.coordinate()
    assert await stage.status() is RunStatus.RUNNING  # at the second gate


async def test_a_run_that_ended_or_was_never_there_takes_no_signal(stage: Stage):
    await stage.begin_run(GATE)
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    before = await snapshot(stage.store)
    assert await stage.signal("decision") == "EXISTS"
    assert await stage.signal("decision", run_id="nobody") == "GONE"
    assert await snapshot(stage.store) == before


async def test_no_more_are_kept_than_may_be(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs, "MAX_SIGNALS", 2)
    await stage.begin_run(GATE)
    answers = [await stage.signal("other", sender=str(n)) for n in range(4)]
    assert answers == ["OK", "OK", "FULL", "FULL"]


async def test_a_failing_run_s_gate_is_not_passed(stage: Stage):
    await stage.begin_run(GATE)
    await stage.stop("run")
    assert await stage.signal("decision", YES) == "OK"
    await stage.coordinate()
    assert await stage.status() is RunStatus.CANCELLED
    record = await stage.record_of("run", 1, 0)
    assert record is not None
    assert record.status is NodeStatus.SKIPPED


def looping() -> Flow[Any, Any]:
    made = (
        builder("looping")
        .with_signal("nudge")
        .then_loop(
            "turns",
            body=step("body"),
            state=int,
            initial=0,
            while_=lambda _: True,
            after=lambda _, turn: turn + 1,
        )
    )
    return made.build()


async def turn(stage: Stage, nodes: int) -> None:
    """Let so many nodes of a loop complete, one after the other."""
    for _ in range(nodes):
        held = await stage.claim_one("worker")
        assert await stage.complete("worker", held, b"\xc3", arg="1") == "OK"
        await stage.coordinate()


async def test_a_turn_takes_the_signals_that_came_before_it_and_forgets_those_of_the_last(
    stage: Stage,
):
    await stage.begin_run(looping())
    for number in range(1003):
        await stage.signal("nudge", b"\x01", sender=str(number))
    await turn(stage, 1)  # the loop begins: its first turn has them all
    fields = await stage.hash()
    assert (fields["d:1:nudge"], fields["st:nudge"]) == (b"0|1003", b"1003")
    assert "sg:nudge:1002" in fields
    await stage.signal("nudge", b"\x02", sender="late")
    await turn(stage, 2)
    assert (await stage.hash())["d:1:nudge"] == b"0|1003"  # the same to the end of the turn
    await turn(stage, 1)
    fields = await stage.hash()
    assert fields["d:1:nudge"] == b"1003|1004"
    assert [name for name in fields if name.startswith("sg:")] == ["sg:nudge:1003"]
    await turn(stage, 3)
    fields = await stage.hash()
    assert fields["d:1:nudge"] == b"1004|1004"
    assert not any(name.startswith("sg:") for name in fields)
