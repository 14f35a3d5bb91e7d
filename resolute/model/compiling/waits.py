"""Gates and sleeps: steps that wait, and that no worker runs."""

from __future__ import annotations

from resolute.ids import check_name
from resolute.model.compiling.assembly import Assembly
from resolute.model.flow import Until
from resolute.model.functions import check_plain
from resolute.model.gates import GateResult
from resolute.model.operations import ThenGate, ThenSleep, ThenSleepUntil
from resolute.model.plan import Gate, Moment, NodePlan, Sleep


def gate(on: Assembly, gate: ThenGate) -> None:
    on.name_step(gate.name)
    on.add_key(gate.name)
    on.check(lambda: check_name("signal", gate.signal))
    timeout = on.span(f"gate {gate.name!r}: timeout", gate.timeout)
    on.signals.setdefault(gate.signal, GateResult)
    on.instructions.append(Gate((NodePlan(gate.name, gate.name),), gate.signal, timeout))
    on.types = (GateResult,)


def sleep(on: Assembly, sleep: ThenSleep) -> None:
    name = _name_sleep(on, sleep.name)
    span = on.span(name, sleep.span)
    on.instructions.append(Sleep((NodePlan(name, name),), span))


def sleep_until(on: Assembly, sleep: ThenSleepUntil) -> None:
    name = _name_sleep(on, sleep.name)
    asked = f"{name}.until"
    on.check(lambda: check_plain(name, sleep.moment, "FlowState"))
    on.bindings[len(on.instructions), 0] = Until(asked, sleep.moment)
    on.instructions += [Moment((on.question(asked),)), Sleep((NodePlan(name, name),))]


def _name_sleep(on: Assembly, name: str) -> str:
    on.sleeps += 1
    name = name or f"sleep.{on.sleeps}"
    on.name_step(name)
    return name
