"""The state machine, case by case and at random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolute.engine import advance as machine
from resolute.engine.advance import advance
from resolute.engine.run import PAGE, PAGE_OF_SKIPS, Decision, Dispatch, NeedsRun, Stale, Transition
from resolute.errors import ResoluteError
from resolute.model.builder import FlowBuilder
from resolute.model.flow import Flow
from resolute.model.messages import Event, RunState
from resolute.model.plan import Branch, End, Jump, Plan, Run
from resolute.status import EventKind, NodeStatus, RunStatus
from tests.support.examples import examples
from tests.support.flows import always, builder, chain, either, fan, step, undoable
from tests.support.memory import MemoryRun

CHAIN = chain("a", "b").plan
EITHER = either().plan  # 0 first, 1 branch, 2 yes, 3 jump, 4 no, 5 last, 6 end
SAGA = (
    builder("saga")
    .then(undoable("book"))
    .then_parallel("pay", undoable("card"), undoable("points"))
    .then(step("ship"))
    .build()
    .plan
)


def run_of(**fields: Any) -> RunState:
    """A run at the beginning, but for `fields`."""
    start: dict[str, Any] = {
        "flow": "run", "plan": "p", "pc": 0, "seq": 0, "rev": "1-x", "pending": 0,
        "status": RunStatus.RUNNING, "queue": "q",
    }  # fmt: skip
    return RunState(**{**start, **fields})


LOOK = Event(EventKind.LOOK, "run")


def look(plan: Plan, **fields: Any) -> Decision:
    return advance(plan, run_of(**fields), LOOK)


def settled(plan: Plan, pc: int, seq: int, arg: str = "") -> Decision:
    return advance(plan, None, Event(EventKind.SETTLED, "run", "p", pc, seq, "1-x", "q", arg))


# A sequence.


def test_a_new_run_dispatches_its_first_step():
    assert look(CHAIN) == Transition(RunStatus.RUNNING, 1, Dispatch(0, 0, 1, width=1))


def test_a_settled_step_dispatches_the_one_after_it_which_follows_on_it():
    assert settled(CHAIN, pc=0, seq=1) == Transition(
        RunStatus.RUNNING, 2, Dispatch(1, 0, 1, width=1), previous=0
    )


def test_the_last_settled_step_completes_the_run_and_is_its_result():
    assert settled(CHAIN, pc=1, seq=2) == Transition(RunStatus.COMPLETED, 2, previous=1)


def test_a_step_that_is_not_settled_is_not_left():
    assert look(CHAIN, seq=1, pending=1, page=1) == Stale()


# Parallel steps, and pages.


def test_a_parallel_step_is_dispatched_as_one():
    assert look(fan(3).plan) == Transition(RunStatus.RUNNING, 1, Dispatch(0, 0, 3, width=3))


@pytest.mark.parametrize(("width", "pages"), [(499, 1), (500, 1), (501, 2), (1000, 2), (1203, 3)])
def test_a_wide_step_is_dispatched_in_pages_each_once(width: int, pages: int):
    run = MemoryRun(fan(width).plan)
    while run.inbox:
        run.handle(run.inbox.pop())
    dispatched = [made.dispatch for made in run.transitions]
    assert [d.stop - d.start for d in dispatched if d] == [
        min(PAGE, width - at * PAGE) for at in range(pages)
    ]
    assert run.state.pending == width
    assert [index for _, index in sorted(run.nodes)] == list(range(width))


def test_a_page_event_dispatches_the_page_it_names_and_stays_in_the_step():
    event = Event(EventKind.PAGE, "run", "p", 0, 1, "1-x", "q", f"{PAGE} 1-x.0")
    assert advance(fan(PAGE + 7).plan, None, event) == Transition(
        RunStatus.RUNNING, 1, Dispatch(0, PAGE, PAGE + 7, width=PAGE + 7)
    )


def test_a_missing_page_is_due():
    found = look(fan(PAGE + 7).plan, seq=1, pending=PAGE + 7, page=PAGE)
    assert found == Transition(RunStatus.RUNNING, 1, Dispatch(0, PAGE, PAGE + 7, width=PAGE + 7))


def test_only_the_first_page_opens_a_step_and_only_a_later_one_is_followed_by_none():
    first, last = Dispatch(0, 0, PAGE, PAGE + 1), Dispatch(0, PAGE, PAGE + 1, PAGE + 1)
    assert (first.is_first, first.has_more) == (True, True)
    assert (last.is_first, last.has_more) == (False, False)


# Branches.


@pytest.mark.parametrize(("answer", "pc"), [("1", 2), ("0", 4)])
def test_a_branch_goes_the_way_its_predicate_says(answer: str, pc: int):
    assert settled(EITHER, 1, 2, answer) == Transition(
        RunStatus.RUNNING, 3, Dispatch(pc, 0, 1, width=1)
    )


@pytest.mark.parametrize(("answer", "pc"), [(True, 2), (False, 4)])
def test_a_branch_that_is_looked_at_goes_the_way_its_stored_answer_says(answer: bool, pc: int):
    found = look(EITHER, pc=1, seq=2, answer=str(int(answer)))
    assert found == Transition(RunStatus.RUNNING, 3, Dispatch(pc, 0, 1, width=1))


def test_a_settled_branch_without_an_answer_is_an_error_and_no_guess():
    with pytest.raises(ResoluteError, match="without an answer"):
        look(EITHER, pc=1, seq=2)


def test_a_branch_leaves_the_step_before_it_as_the_previous_one():
    found = settled(EITHER, 1, 2, "1")
    assert isinstance(found, Transition)
    assert found.previous is None


def test_after_an_arm_the_run_jumps_over_the_other():
    found = settled(EITHER, pc=2, seq=3)
    assert found == Transition(RunStatus.RUNNING, 4, Dispatch(5, 0, 1, width=1), previous=2)


def arms(*, then: bool, otherwise: bool) -> Flow[Any, Any]:
    """A branch in the middle, one or both of whose arms are empty."""
    made = builder("arms").then(step("first")).when(always)
    made = made.then(step("yes")) if then else made
    made = made.else_()
    made = made.then(step("no")) if otherwise else made
    return made.end_when().then(step("last")).build()


@pytest.mark.parametrize("answer", ["0", "1"])
@pytest.mark.parametrize("then", [False, True])
@pytest.mark.parametrize("otherwise", [False, True])
def test_an_empty_arm_goes_on_behind_the_branch(answer: str, then: bool, otherwise: bool):
    plan = arms(then=then, otherwise=otherwise).plan
    has_nodes = then if answer == "1" else otherwise
    found = settled(plan, 1, 2, answer)
    assert isinstance(found, Transition)
    assert found.dispatch is not None
    expected = ("yes" if answer == "1" else "no") if has_nodes else "last"
    assert plan.step(found.dispatch.pc).step == expected


def test_a_branch_at_the_end_with_an_empty_arm_completes_the_run():
    plan = builder("end").then(step("first")).when(always).then(step("yes")).end_when().build().plan
    assert settled(plan, 1, 2, "0") == Transition(RunStatus.COMPLETED, 2)


def test_a_branch_in_the_empty_arm_of_a_branch_is_reached():
    plan = (
        builder("nested")
        .when(always)
        .then(step("a"))
        .else_()
        .when(always)
        .then(step("b"))
        .end_when()
        .end_when()
        .build()
        .plan
    )
    found = settled(plan, 0, 1, "0")
    assert isinstance(found, Transition)
    assert found.dispatch is not None
    assert isinstance(plan.instructions[found.dispatch.pc], Branch)


# Failing, undoing, failed.


def test_a_failing_run_first_skips_what_nobody_has_claimed():
    found = look(fan(3).plan, seq=1, pending=2, page=3, status=RunStatus.FAILING)
    assert found == Transition(RunStatus.FAILING, 1, skip=(0, 3))


def test_a_wide_step_is_skipped_in_pages():
    plan = fan(PAGE + 7).plan
    fields: dict[str, Any] = {"seq": 1, "pending": 9, "status": RunStatus.FAILING}
    first = look(plan, page=PAGE, **fields)
    assert first == Transition(RunStatus.FAILING, 1, skip=(0, PAGE_OF_SKIPS), skip_more=True)
    second = look(plan, page=PAGE, skip=PAGE - 7, **fields)
    assert second == Transition(RunStatus.FAILING, 1, skip=(PAGE - 7, PAGE + 7))
    assert look(plan, page=PAGE, skip=PAGE + 7, **fields) == Stale()


def test_what_runs_in_a_failing_step_is_waited_for():
    found = look(fan(3).plan, seq=1, pending=1, page=3, skip=3, status=RunStatus.FAILING)
    assert found == Stale()


def test_a_settled_failing_step_is_not_skipped_again_but_undone():
    found = look(SAGA, pc=2, seq=3, status=RunStatus.FAILING, undos=3, undo_at=(1, 1))
    assert found == Transition(RunStatus.COMPENSATING, 4, Dispatch(1, 1, 2, width=1, undo=3))


def test_a_run_with_nothing_to_undo_has_failed():
    assert look(CHAIN, seq=1, status=RunStatus.FAILING) == Transition(RunStatus.FAILED, 1)


def test_compensations_follow_each_other_down_to_the_first():
    fields: dict[str, Any] = {"status": RunStatus.COMPENSATING, "undos": 3}
    second = look(SAGA, pc=1, seq=4, undoing=3, undo_at=(1, 0), **fields)
    assert second == Transition(RunStatus.COMPENSATING, 5, Dispatch(1, 0, 1, width=1, undo=2))
    third = look(SAGA, pc=1, seq=5, undoing=2, undo_at=(0, 0), **fields)
    assert third == Transition(RunStatus.COMPENSATING, 6, Dispatch(0, 0, 1, width=1, undo=1))
    assert look(SAGA, seq=6, undoing=1, **fields) == Transition(RunStatus.FAILED, 6)


def test_a_running_compensation_is_waited_for():
    found = look(SAGA, pc=1, seq=4, pending=1, undoing=3, status=RunStatus.COMPENSATING, undos=3)
    assert found == Stale()


def test_a_compensation_is_a_step_of_its_own_and_has_no_pages():
    dispatch = Dispatch(1, 7, 8, width=1, undo=3)
    assert dispatch.is_first
    assert not dispatch.has_more


# Cancel and terminate.


def test_a_cancelled_run_ends_as_cancelled_with_or_without_compensations():
    fields: dict[str, Any] = {"seq": 1, "cancelled": True}
    assert look(CHAIN, status=RunStatus.FAILING, **fields) == Transition(RunStatus.CANCELLED, 1)
    assert look(SAGA, status=RunStatus.COMPENSATING, undos=1, undoing=1, **fields) == Transition(
        RunStatus.CANCELLED, 1
    )


@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.FAILING, RunStatus.COMPENSATING])
def test_a_terminated_run_ends_at_once_whatever_it_does(status: RunStatus):
    found = look(SAGA, pc=1, seq=2, pending=2, undos=1, undoing=1, status=status, terminated=True)
    assert found == Transition(RunStatus.TERMINATED, 2)


@pytest.mark.parametrize("status", [s for s in RunStatus if s.is_terminal])
def test_an_ended_run_is_never_left(status: RunStatus):
    assert look(SAGA, pc=1, seq=2, undos=1, terminated=True, status=status) == Stale()


# Events.


@pytest.mark.parametrize("kind", [EventKind.START, EventKind.LOOK])
def test_an_event_that_does_not_say_enough_asks_for_the_run(kind: EventKind):
    assert advance(CHAIN, None, Event(kind, "run")) == NeedsRun()


def test_an_event_for_an_instruction_that_runs_nothing_is_an_error():
    with pytest.raises(ResoluteError, match="runs no nodes"):
        settled(EITHER, pc=3, seq=3)


def test_a_look_decides_as_the_event_it_stands_for_would():
    """Look can replace any of a run's events: the same transition follows, event by event."""
    for plan in (CHAIN, EITHER, SAGA, fan(PAGE + 3).plan):
        run = MemoryRun(plan)
        while not run.state.status.is_terminal:
            for event in list(run.inbox):
                seen = run._loaded()
                by_event = advance(plan, None, event)
                if not isinstance(by_event, NeedsRun):
                    assert by_event == advance(plan, seen, LOOK)
                run.inbox.remove(event)
                run.handle(event)
            for instance in run.ready():
                run.begin(instance)
                run.complete(instance)


def test_a_stale_event_asks_for_nothing():
    run = MemoryRun(CHAIN)
    events: list[Event] = []
    while not run.state.status.is_terminal:
        for event in run.inbox:
            events.append(event)
            run.handle(event)
        run.inbox.clear()
        for instance in run.ready():
            run.begin(instance)
            run.complete(instance)
    before = run.state
    assert [run.handle(event) for event in events] == [False] * len(events)
    assert run.state == before


# At random.

Shape = list[Any]  # of int (a step so wide), or (then, otherwise) of shapes

shapes: st.SearchStrategy[Shape] = st.recursive(
    st.lists(st.integers(1, 9), min_size=0, max_size=3),
    lambda inner: st.lists(st.one_of(st.integers(1, 9), st.tuples(inner, inner)), max_size=4),
    max_leaves=10,
)


class Writer:
    """Writes a flow of a given shape with a builder; every node has a name of its own."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = 0

    def flow(self, shape: Shape) -> Plan:
        made: FlowBuilder[Any, Any] = builder("random").then(self.node())
        return self.write(made, shape).build().plan

    def write(self, made: FlowBuilder[Any, Any], shape: Shape) -> FlowBuilder[Any, Any]:
        for part in shape:
            if isinstance(part, int) and part == 1:
                made = made.then(self.node())
            elif isinstance(part, int):
                nodes = [self.node() for _ in range(part)]
                made = made.then_parallel(f"step-{self.count}", *nodes)
            else:
                then, otherwise = part
                made = self.write(made.when(always), then)
                made = self.write(made.else_(), otherwise).end_when()
        return made

    def node(self) -> Any:
        self.count += 1
        name = f"n{self.count}"
        kind = self.rng.choice(["plain", "undoable", "best effort"])
        if kind == "undoable":
            return undoable(name)
        return step(name).best_effort() if kind == "best effort" else step(name)


class Driver:
    """Lets things happen to a run in any order until nothing can."""

    def __init__(self, run: MemoryRun, rng: random.Random, *, failing: bool) -> None:
        self.run = run
        self.rng = rng
        self.failing = failing
        self.answers: dict[int, bool] = {}
        self.path: list[int] = []
        self.stopped = RunStatus.COMPLETED

    def drive(self) -> None:
        run = self.run
        while True:
            can: list[str] = []
            can += ["event", "copy of event", "look"] if run.inbox else []
            can += ["begin"] if run.ready() else []
            can += ["settle"] if run.running() else []
            if not can:
                return
            if self.failing and self.rng.random() < 0.03:
                can = ["cancel", "terminate"]
            self.happen(self.rng.choice(can))

    def happen(self, what: str) -> None:
        run = self.run
        match what:
            case "event":
                run.handle(run.inbox.pop(self.rng.randrange(len(run.inbox))))
            case "copy of event":
                run.handle(self.rng.choice(run.inbox))
            case "look":
                run.handle(LOOK)
            case "begin":
                run.begin(self.rng.choice(run.ready()))
            case "settle":
                self.settle(self.rng.choice(run.running()))
            case "cancel":
                run.cancel()
            case _:
                run.terminate()

    def settle(self, instance: tuple[int, int]) -> None:
        handed = self.run.nodes[instance]
        is_branch = isinstance(self.run.plan.step(handed.pc), Branch)
        if self.failing and not is_branch and self.rng.random() < 0.15:
            self.run.fail(instance)
            return
        if is_branch:
            self.answers[handed.pc] = self.rng.random() < 0.5
        self.run.complete(instance, answer=self.answers.get(handed.pc, True))


def steps_taken(plan: Plan, answers: dict[int, bool]) -> list[int]:
    """The instructions with nodes that a run which answers so goes through."""
    taken: list[int] = []
    pc = 0
    while not isinstance(instruction := plan.instructions[pc], End):
        match instruction:
            case Jump(to=to):
                pc = to
            case Run():
                taken.append(pc)
                pc += 1
            case Branch(otherwise=otherwise):
                taken.append(pc)
                pc = pc + 1 if answers[pc] else otherwise
            case _:
                taken.append(pc)
                pc += 1
    return taken


def instances(plan: Plan, steps: Iterable[int]) -> Counter[tuple[int, int]]:
    return Counter((pc, index) for pc in steps for index in range(len(plan.step(pc).nodes)))


@pytest.fixture(autouse=True)
def small_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the property tests a page is 3 nodes, so that there are many."""
    if "at_random" in request.node.name:
        monkeypatch.setattr(machine, "PAGE", 3)
        monkeypatch.setattr(machine, "PAGE_OF_SKIPS", 3)


at_random = examples(300)


@at_random
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_at_random_a_run_without_failures_ends_and_runs_each_node_of_its_path_once(
    shape: Shape, seed: int
):
    rng = random.Random(seed)
    plan = Writer(rng).flow(shape)
    run = MemoryRun(plan)
    driver = Driver(run, rng, failing=False)
    driver.drive()
    assert run.state.status is RunStatus.COMPLETED
    ran = Counter((handed.pc, handed.index) for handed in run.nodes.values())
    assert ran == instances(plan, steps_taken(plan, driver.answers))
    assert {handed.status for handed in run.nodes.values()} == {NodeStatus.COMPLETED}
    assert set(run.settled_events.values()) == {1}
    assert run.state.undoing == 0


@at_random
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_at_random_a_run_with_failures_and_stops_ends_and_undoes_what_completed_in_reverse(
    shape: Shape, seed: int
):
    rng = random.Random(seed)
    plan = Writer(rng).flow(shape)
    run = MemoryRun(plan)
    Driver(run, rng, failing=True).drive()
    state = run.state
    assert state.status.is_terminal
    forward = [handed for handed in run.nodes.values() if not handed.undo]
    ran = Counter((handed.pc, handed.index) for handed in forward)
    assert set(ran.values()) == {1} or not ran
    assert all(count == 1 for count in run.settled_events.values())
    if state.terminated:
        assert state.status is RunStatus.TERMINATED
        assert run.undone == run.undo_stack[::-1][: len(run.undone)]
        return
    assert state.pending == 0
    if state.cancelled:
        assert state.status is RunStatus.CANCELLED
    elif run.errors:
        assert state.status is RunStatus.FAILED
    else:
        assert state.status is RunStatus.COMPLETED
    if state.status is not RunStatus.COMPLETED:
        assert run.undone == run.undo_stack[::-1]
    else:
        assert run.undone == []


def test_the_memory_run_itself_refuses_to_dispatch_a_node_twice():
    run = MemoryRun(CHAIN)
    made = Transition(RunStatus.RUNNING, 1, Dispatch(0, 0, 1, width=1))
    run._commit(made)
    with pytest.raises(AssertionError):
        run._commit(msgspec.structs.replace(made))
