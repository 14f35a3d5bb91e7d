"""What the plan says of triggers that do not start a run each time."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from resolute import Debounce, FlowBuilder, FlowDefinitionError, Unique, input_data
from resolute.model.claims import if_running_of, of_plan
from resolute.model.plan import Plan, StartPlan, decode_plan
from resolute.model.triggers import Trigger, manual, schedule, signal, webhook
from tests.support.flows import step


class Edit(msgspec.Struct):
    doc: str = "d"


def built(*triggers: Trigger) -> Plan:
    builder: Any = FlowBuilder("f", input=Edit).on_queue("q")
    for trigger in triggers:
        builder = builder.triggered_by(trigger)
    return builder.then(step("a")).build().plan


def test_a_plan_without_keys_is_on_the_wire_what_it_was():
    plain = built(manual(), schedule("@daily"), webhook("/x", secret=None), signal("s"))
    assert plain.starts == ()
    assert len(msgspec.msgpack.decode(plain.encode())) <= Plan.__struct_fields__.index("starts")
    same = built(
        manual(), schedule("@daily", overlap="allow"), webhook("/x", secret=None), signal("s")
    )
    assert same.hash == plain.hash


def test_each_trigger_says_how_it_starts_runs_and_the_wire_keeps_it():
    debounce = Debounce(input_data("doc"), "5s", "1m")
    unique = Unique("all", "fail", "1h")
    plan = built(
        schedule("@daily"),
        schedule("@hourly", overlap="skip"),
        schedule("@weekly", overlap="replace"),
        webhook("/x", secret=None, debounce=debounce),
        signal("s", unique=unique),
        signal("t", unique="text"),
    )
    read = {one.trigger: one for one in decode_plan(plan.encode()).starts}
    assert set(read) == {"schedule 1", "schedule 2", "webhook /x", "signal s", "signal t"}
    assert (if_running_of(read["schedule 1"]), if_running_of(read["schedule 2"])) == (
        "existing",
        "replace",
    )
    assert of_plan(read["webhook /x"]) == Debounce(input_data("doc"), 5.0, 60.0)
    assert of_plan(read["signal s"]) == Unique("all", "fail", 3600.0)
    assert of_plan(read["signal t"]) == Unique("text")


@pytest.mark.parametrize(
    ("trigger", "why"),
    [
        (webhook("/x", secret=None, unique=Unique(input_data("id"))), "Edit, which has no 'id'"),
        (signal("s", debounce=Debounce(input_data("doc.x"), 1)), "is str, which has no 'x'"),
        (signal("s", unique="k", debounce=Debounce("k", 1)), "got both"),
        (
            schedule("@daily", overlap=cast("Any", "maybe")),
            "expected an overlap of 'allow', 'skip'",
        ),
    ],
)
def test_a_key_that_the_input_cannot_have_is_a_problem_of_build(trigger: Trigger, why: str):
    with pytest.raises(FlowDefinitionError, match=why):
        built(trigger)


def test_what_a_later_release_says_of_a_key_is_refused_clearly():
    with pytest.raises(ValueError, match=r"trigger 'cron0': expected .*, got 'queue'"):
        if_running_of(StartPlan("cron0", if_running="queue"))
