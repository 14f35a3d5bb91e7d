"""Triggers as the plan has them: paths, cron lines, how urgent, how many runs at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from resolute.model import codec
from resolute.model.claims import as_plan
from resolute.model.defaults import default_of
from resolute.model.fitting import type_name
from resolute.model.plan import SchedulePlan, StartPlan, WebhookPlan, trigger_key
from resolute.model.triggers import Manual, Schedule, Signalled, Trigger, Webhook
from resolute.priority import check_priority


class TriggerPlans(NamedTuple):
    """What a plan says of the triggers of its flow."""

    webhooks: tuple[WebhookPlan, ...]
    schedules: tuple[SchedulePlan, ...]
    signals: tuple[str, ...]  # those that start a run
    priorities: dict[str, str]  # by `trigger_key`
    starts: tuple[StartPlan, ...]  # of those that do not start a run each time


def trigger_plans(
    triggers: tuple[Trigger, ...], input_type: Any, problems: list[str]
) -> TriggerPlans:
    """The plans of a flow's triggers; what is wrong with them is added to `problems`.

    Where there are problems the flow is not built, and the plans may be none.
    """
    if not triggers:
        problems.append('no trigger: add one, such as triggered_by(manual("api"))')
    for trigger in triggers:
        if isinstance(trigger, Webhook | Signalled):
            problem = trigger.problem() or trigger.key_problem(input_type)
            problems += [problem] if problem else []
    schedules = tuple(_schedules(triggers, input_type, problems))
    if problems:
        return TriggerPlans((), schedules, (), {}, ())
    hooks = (trigger for trigger in triggers if isinstance(trigger, Webhook))
    keyed = tuple(_keyed(triggers))
    return TriggerPlans(
        tuple(WebhookPlan(hook.path, (hook.secret or "").removeprefix("env:")) for hook in hooks),
        schedules,
        tuple(trigger.name for trigger in triggers if isinstance(trigger, Signalled)),
        {key: check_priority(one.priority).value for key, one in keyed if one.priority is not None},
        tuple(start for key, one in keyed if (start := _start(key, one)) is not None),
    )


def _keyed(
    triggers: tuple[Trigger, ...],
) -> Iterator[tuple[str, Schedule | Webhook | Signalled]]:
    """The triggers that the plan has a key for."""
    schedules = 0
    for trigger in triggers:
        match trigger:
            case Schedule():
                yield trigger_key("schedule", schedules), trigger
                schedules += 1
            case Webhook():
                yield trigger_key("webhook", trigger.path), trigger
            case Signalled():
                yield trigger_key("signal", trigger.name), trigger
            case Manual():
                pass


def _start(key: str, trigger: Schedule | Webhook | Signalled) -> StartPlan | None:
    if isinstance(trigger, Schedule):
        if trigger.overlap == "allow":
            return None
        how = "existing" if trigger.overlap == "skip" else "replace"
        return StartPlan(key, if_running=how)
    how = trigger.unique or trigger.debounce
    return None if how is None else as_plan(key, how)


def _schedules(
    triggers: tuple[Trigger, ...], input_type: Any, problems: list[str]
) -> Iterator[SchedulePlan]:
    for trigger in triggers:
        if not isinstance(trigger, Schedule):
            continue
        problem = trigger.problem()
        if problem:
            problems.append(problem)
            continue
        try:
            data = _scheduled_input(trigger, input_type)
        except Exception as error:
            problems.append(
                f"schedule {trigger.cron!r}: its input does not fit"
                f" {type_name(input_type)}: {error}"
            )
            continue
        yield SchedulePlan(trigger.cron, trigger.timezone, data)


def _scheduled_input(trigger: Schedule, input_type: Any) -> bytes:
    value = default_of(input_type) if trigger.input is None else trigger.input
    data = codec.encode(value)
    codec.decode(data, input_type)
    return data
