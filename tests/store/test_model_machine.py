"""Anything in any order: the scripts on a real server against a plain Python model of a run.

Processes read, begin, complete, fail, hand back and die; coordinators handle events singly, twice
and out of order; clients start, cancel and terminate. Every call is sent twice. After each the
server must hold what the model holds, and at the end every run must have come to its end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from resolute.engine import advance as machine
from resolute.ids import random_text
from resolute.model.flow import Flow
from resolute.model.messages import Entry, Event
from resolute.model.plan import Branch, Gate, Sleep
from resolute.status import EventKind, NodeStatus, RunStatus
from resolute.store import streams
from resolute.store.keys import Partition
from resolute.store.nodes import POISON, Held
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer
from tests.support.examples import examples
from tests.support.flows import always, builder, chain_of, step, undoable
from tests.support.keyspace import erase
from tests.support.leaks import find_leaks
from tests.support.memory import Instance, MemoryRun
from tests.support.stage import NO_UNDO_INPUT, QUEUE, Stage

FLOWS: dict[str, Flow[Any, Any]] = {
    flow.name: flow
    for flow in (
        chain_of(undoable("a"), step("b"), undoable("c"), flow="chain"),
        builder("wide")
        .then_parallel(
            "fan", undoable("a"), step("b").best_effort(), undoable("c"), step("d"), undoable("e")
        )
        .then(step("last"))
        .build(),
        builder("branch")
        .then(undoable("a"))
        .when(always)
        .then_parallel("both", undoable("b"), step("c"))
        .when(always)
        .then(undoable("d"))
        .end_when()
        .else_()
        .then(step("e").best_effort())
        .end_when()
        .build(),
        builder("paused")
        .then(undoable("a"))
        .then_gate("first", signal="go", timeout="1m")
        .then_sleep("1m")
        .then(undoable("b"))
        .then_gate("second", signal="go")
        .build(),
    )
}
PROCESSES = ["worker-1", "worker-2", "worker-3"]
# What can happen, and how often.
VERBS = {
    "handle": 60, "read": 40, "begin": 60, "complete": 60, "retry": 15, "fail": 7, "defer": 7,
    "give_back": 7, "reclaim": 20, "release": 20, "cancel": 1, "terminate": 1,
    "signal": 10,
}  # fmt: skip
LOOK = Event(EventKind.LOOK)
UNCLAIMED = (NodeStatus.READY, NodeStatus.WAITING)


@dataclass
class Claim:
    """What the model knows of a hand-out: how many there were, and who has it."""

    count: int = 0
    attempt: int = 1
    crashes: int = 0
    process: str = ""
    entry: str = ""


@dataclass
class Model:
    """One run as it must be. Each verb changes it as the script must, and says what it answers."""

    run: MemoryRun
    bases: dict[int, str] = field(default_factory=dict[int, str])  # of the steps' tokens
    claims: dict[Instance, Claim] = field(default_factory=dict[Instance, Claim])

    @property
    def status(self) -> RunStatus:
        return self.run.state.status

    def claim(self, entry: Entry) -> Claim:
        return self.claims.setdefault((entry.seq, entry.index), Claim())

    def state(self, entry: Entry) -> NodeStatus:
        return self.run.nodes[entry.seq, entry.index].status

    def token(self, seq: int, index: int) -> str:
        return f"{self.bases[seq]}.{self.claims.setdefault((seq, index), Claim()).count}"

    def has_token(self, entry: Entry) -> bool:
        return entry.token == self.token(entry.seq, entry.index)

    def was_handed_out_once_more(self, entry: Entry) -> bool:
        base, _, count = entry.token.rpartition(".")
        return self.token(entry.seq, entry.index) == f"{base}.{int(count) + 1}"

    def is_current(self, entry: Entry) -> bool:
        return not self.status.is_terminal and entry.seq == self.run.state.seq

    def is_held(self, entry: Entry, process: str) -> bool:
        return (
            self.is_current(entry)
            and self.state(entry) is NodeStatus.RUNNING
            and self.has_token(entry)
            and self.claim(entry).process == process
        )

    def is_unclaimed(self, entry: Entry) -> bool:
        return (
            self.is_current(entry)
            and self.state(entry) is NodeStatus.READY
            and self.has_token(entry)
        )

    def is_live(self, entry: Entry) -> bool:
        """Whether the entry's hand-out is the latest of a node that is not settled."""
        statuses = (NodeStatus.READY, NodeStatus.RUNNING)
        has_state = self.is_current(entry) and self.state(entry) in statuses
        return has_state and self.has_token(entry)

    def ended_as(self, entry: Entry, status: NodeStatus, process: str) -> bool:
        return (
            self.state(entry) is status
            and self.has_token(entry)
            and self.claim(entry).process == process
        )

    def hand_out(self, entry: Entry, status: NodeStatus) -> None:
        claim = self.claim(entry)
        claim.count, claim.process, claim.entry = claim.count + 1, "", ""
        self.run.nodes[entry.seq, entry.index].status = status

    def begin(self, held: Held, process: str) -> str:
        entry, claim = held.entry, self.claim(held.entry)
        if self.is_unclaimed(entry):
            if self.status is RunStatus.FAILING:
                return "SKIP"
            self.run.begin((entry.seq, entry.index))
            claim.process, claim.entry = process, held.id
            return "OK"
        return "OK" if self.is_held(entry, process) and claim.entry == held.id else "STALE"

    def complete(self, held: Held, process: str, answer: bool) -> str:
        entry = held.entry
        if self.is_held(entry, process):
            self.run.complete((entry.seq, entry.index), answer=answer)
            return "OK"
        return "OK" if self.ended_as(entry, NodeStatus.COMPLETED, process) else "STALE"

    def fail(self, held: Held, process: str, is_final: bool) -> str:
        entry = held.entry
        if self.is_held(entry, process):
            if is_final or self.status is RunStatus.FAILING:
                self.run.fail((entry.seq, entry.index))
            else:
                self.claim(entry).attempt += 1
                self.hand_out(entry, NodeStatus.WAITING)
            return "OK"
        waits = self.state(entry) is NodeStatus.WAITING and self.was_handed_out_once_more(entry)
        return "OK" if waits or self.ended_as(entry, NodeStatus.FAILED, process) else "STALE"

    def give_back(self, held: Held, process: str, is_deferred: bool) -> str:
        entry = held.entry
        if self.is_held(entry, process) or self.is_unclaimed(entry):
            if self.status is RunStatus.FAILING:
                self.run.skip((entry.seq, entry.index))
            else:
                waits = NodeStatus.WAITING if is_deferred else NodeStatus.READY
                self.hand_out(entry, waits)
            return "OK"
        was_skipped = self.state(entry) is NodeStatus.SKIPPED and self.has_token(entry)
        return "OK" if was_skipped or self.was_handed_out_once_more(entry) else "STALE"

    def reclaim(self, held: Held, process: str) -> str:
        entry, claim = held.entry, self.claim(held.entry)
        if self.state(entry) is NodeStatus.WAITING and self.has_token(entry):
            return "OK"
        was_claimed = self.is_held(entry, process)
        if not was_claimed and not self.is_unclaimed(entry):
            return "STALE"
        if was_claimed and claim.entry != held.id:
            return "STALE"
        claim.crashes += was_claimed
        if self.status is RunStatus.FAILING:
            self.run.skip((entry.seq, entry.index))
        elif claim.crashes >= POISON:
            self.run.fail((entry.seq, entry.index))
            return "SKIP"
        else:
            self.hand_out(entry, NodeStatus.READY)
        return "OK"

    def signal(self) -> str:
        if self.status.is_terminal:
            return "EXISTS"
        self.run.signal("go")
        return "OK"

    def release(self) -> None:
        """Every timer is due."""
        if isinstance(self.run.plan.instructions[self.run.state.pc], Gate | Sleep):
            gate = self.run.plan.instructions[self.run.state.pc]
            if not isinstance(gate, Gate) or gate.timeout_ms:
                self.run.fire()
            return
        for (seq, _), handed in self.run.nodes.items():
            is_current = not self.status.is_terminal and seq == self.run.state.seq
            if is_current and handed.status is NodeStatus.WAITING:
                handed.status = NodeStatus.READY

    def cancel(self) -> str:
        if self.status is RunStatus.RUNNING:
            self.run.cancel()
            return "OK"
        return "OK" if self.run.state.cancelled else "EXISTS"

    def terminate(self) -> str:
        if self.status.is_terminal:
            return "EXISTS"
        self.run.terminate()
        return "OK"


class Machine(RuleBasedStateMachine):
    """Chooses what happens next. `url` and `partitions` are set by the test."""

    url = ""
    partitions = 1

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.models: dict[str, Model] = {}
        self.bag: list[Held] = []  # every entry that was ever read
        self.settled: Counter[tuple[str, int]] = Counter()
        self.seen: dict[int, str] = {}
        self.stage: Stage = self.runner.run(self.open())
        self.rng = random.Random(0)

    async def open(self) -> Stage:
        namespace = f"m-{random_text(8)}"
        store = await Store.open(self.url, namespace, partitions=self.partitions)
        stage = Stage(store)
        await stage.offer(*FLOWS.values())
        return stage

    @initialize(flows=st.lists(st.sampled_from(sorted(FLOWS)), min_size=1, max_size=3))
    def start(self, flows: list[str]) -> None:
        async def starting() -> None:
            for number, flow in enumerate(flows):
                run_id = f"run-{number}"
                assert await self.stage.start(flow, run_id) == "OK"
                assert await self.stage.start(flow, run_id) == "EXISTS"
                self.models[run_id] = Model(MemoryRun(FLOWS[flow].plan))

        self.runner.run(starting())

    @rule(verb=st.sampled_from([v for v in VERBS if VERBS[v] > 1]), seed=st.integers(0, 1 << 32))
    def one_thing_happens(self, verb: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.runner.run(self.happen(verb))

    @rule(seed=st.integers(0, 1 << 32))
    def much_happens(self, seed: int) -> None:
        self.rng = random.Random(seed)

        async def happening() -> None:
            for verb in self.rng.choices(list(VERBS), list(VERBS.values()), k=50):
                await self.happen(verb)
                await self.compare()

        self.runner.run(happening())

    async def happen(self, verb: str) -> None:
        await getattr(self, verb)()

    async def twice(self, send: Callable[[], Awaitable[str]], expect: Callable[[], str]) -> None:
        """Send a call twice; each time the model says what must be answered."""
        for _ in range(2):
            expected = expect()
            assert await send() == expected

    def model(self, held: Held) -> Model:
        return self.models[held.entry.flow]

    # Clients.

    async def cancel(self) -> None:
        run_id, model = self.rng.choice(sorted(self.models.items(), key=str))
        await self.twice(lambda: self.stage.stop(run_id), model.cancel)

    async def terminate(self) -> None:
        run_id, model = self.rng.choice(sorted(self.models.items(), key=str))
        await self.twice(lambda: self.stage.stop(run_id, terminate=True), model.terminate)

    async def signal(self) -> None:
        """Sent twice with one sender's id it is one signal."""
        run_id, model = self.rng.choice(sorted(self.models.items(), key=str))
        sender = random_text(8)
        expected = model.signal()
        for _ in range(2):
            assert await self.stage.signal("go", sender=sender, run_id=run_id) == expected

    # Coordinators.

    async def handle(self) -> None:
        """Events in any order, some by two coordinators."""
        waiting = await self.events()
        for partition, message, event in self.rng.sample(waiting, min(3, len(waiting))):
            for _ in range(self.rng.choice([1, 1, 2])):
                await self.handle_one(partition, message, event)

    async def events(self) -> list[tuple[Partition, streams.Message, Event]]:
        found: list[tuple[Partition, streams.Message, Event]] = []
        for partition in self.stage.store.keys.partitions:
            entries = await self.stage.store.execute("XRANGE", partition.inbox, "-", "+")
            for message in streams.parse_entries(entries):
                found.append((partition, message, decode_event(message)))
        return found

    async def handle_one(
        self, partition: Partition, message: streams.Message, event: Event
    ) -> None:
        """The model decides as the coordinator does; a new step's token is the server's choice."""
        model = self.models.get(event.flow)
        rev = (await self.stage.header(event.flow)).rev if model else ""
        await self.stage.dispatcher.handle(partition, [message])
        if model is not None:
            is_current = event.rev == rev and event.kind in (EventKind.PAGE, EventKind.SETTLED)
            known = msgspec.structs.replace(event, rev=model.run.state.rev)
            model.run.handle(known if is_current else LOOK)
            header = await self.stage.header(event.flow)
            model.bases.setdefault(header.seq, header.token.rpartition(".")[0])

    async def release(self) -> None:
        """All timers are due, and released by two coordinators."""
        for partition in self.stage.store.keys.partitions:
            await self.stage.make_due(partition)
            await self.stage.release(partition)
            await self.stage.release(partition)
        for model in self.models.values():
            model.release()

    # Workers.

    async def read(self) -> None:
        self.bag += await self.stage.take(self.rng.choice(PROCESSES), count=self.rng.randint(1, 4))

    async def begin(self) -> None:
        held, process = self.choose()
        if held is None:
            return

        async def send() -> str:
            return (await self.stage.begin(process, held)).code

        await self.twice(send, lambda: self.model(held).begin(held, process))

    async def complete(self) -> None:
        held, process = self.choose()
        answer = self.rng.random() < 0.5
        if held is not None:
            await self.twice(
                lambda: self.send_completion(process, held, answer),
                lambda: self.model(held).complete(held, process, answer),
            )

    async def send_completion(self, process: str, held: Held, answer: bool) -> str:
        node = self.stage.node(held)
        is_branch = isinstance(self.stage.plan(held).step(held.entry.pc), Branch)
        output = msgspec.msgpack.encode(answer) if is_branch else b"\x01"
        undo = NO_UNDO_INPUT if node.compensation and not held.entry.undo else None
        arg = str(int(answer)) if is_branch else ""
        return await self.stage.complete(process, held, output, undo=undo, arg=arg)

    async def retry(self) -> None:
        await self.fail(60_000)

    async def fail(self, delay: int | None = None) -> None:
        held, process = self.choose()
        if held is not None:
            best_effort = self.stage.node(held).best_effort
            await self.twice(
                lambda: self.stage.fail(process, held, delay, best_effort=best_effort),
                lambda: self.model(held).fail(held, process, delay is None),
            )

    async def defer(self) -> None:
        await self.give_back(60_000)

    async def give_back(self, delay: int = 0) -> None:
        held, process = self.choose()
        if held is not None:
            await self.twice(
                lambda: self.stage.give_back(process, held, delay),
                lambda: self.model(held).give_back(held, process, delay > 0),
            )

    async def reclaim(self) -> None:
        held, process = self.choose()
        if held is not None:
            await self.twice(
                lambda: self.stage.reclaim(held, process),
                lambda: self.model(held).reclaim(held, process),
            )

    def choose(self) -> tuple[Held | None, str]:
        """An entry, mostly one that still matters, and a process, mostly the one that has it."""
        process = self.rng.choice(PROCESSES)
        live = [held for held in self.bag if self.model(held).is_live(held.entry)]
        pool = live if live and self.rng.random() < 0.9 else self.bag
        if not pool:
            return None, process
        held = self.rng.choice(pool)
        holder = self.model(held).claim(held.entry).process
        return held, holder if holder and self.rng.random() < 0.8 else process

    # What must always be so.

    @invariant()
    def the_server_holds_what_the_model_holds(self) -> None:
        self.runner.run(self.compare())

    async def compare(self) -> None:
        for run_id, model in self.models.items():
            header, state = await self.stage.header(run_id), model.run.state
            assert header.status is state.status
            assert (header.seq, header.pending) == (state.seq, state.pending)
            if state.seq:
                assert (header.pc, header.page) == (state.pc, state.page)
            assert (header.undos, header.undoing) == (state.undos, state.undoing)
            await self.compare_nodes(run_id, model)
        await self.count_settled()

    async def compare_nodes(self, run_id: str, model: Model) -> None:
        found = await self.stage.hash(run_id)
        unsettled = len(model.run.plan.step(model.run.state.pc).nodes)
        if model.run.state.undoing:
            unsettled = 1
        for (seq, index), handed in model.run.nodes.items():
            record = await self.stage.record_of(run_id, seq, index)
            claim = model.claims.get((seq, index), Claim())
            if record is None:
                assert handed.status is NodeStatus.READY
                assert claim.count == 0
            else:
                assert record.status is handed.status
                assert record.token == model.token(seq, index)
                assert (record.attempt, record.crashes) == (claim.attempt, claim.crashes)
                assert record.process == claim.process or handed.status in UNCLAIMED
            if seq == model.run.state.seq and handed.status in (
                NodeStatus.COMPLETED, NodeStatus.FAILED, NodeStatus.SKIPPED,
            ):  # fmt: skip
                unsettled -= 1
        if model.run.state.seq:
            assert int(found["pending"]) == unsettled
        completed = {
            f"uo:{handed.undo}" if handed.undo else f"o:{handed.node.key}"
            for handed in model.run.nodes.values()
            if handed.status is NodeStatus.COMPLETED
            and not isinstance(model.run.plan.step(handed.pc), Sleep)
        }
        assert {name for name in found if name.startswith(("o:", "uo:"))} == completed

    async def count_settled(self) -> None:
        """Each fan-in fires once: one settled event a step, ever."""
        for partition in self.stage.store.keys.partitions:
            after = self.seen.get(partition.number, "0-0")
            entries = await self.stage.store.execute("XRANGE", partition.inbox, f"({after}", "+")
            for message in streams.parse_entries(entries):
                self.seen[partition.number] = message.id
                event = decode_event(message)
                if event.kind is EventKind.SETTLED:
                    self.settled[event.flow, event.seq] += 1
                    assert self.settled[event.flow, event.seq] == 1

    # The end.

    def teardown(self) -> None:
        try:
            self.runner.run(self.finish())
            leaks = self.runner.run(find_leaks(self.stage.store))
            assert not leaks, leaks
        finally:
            self.runner.run(erase(self.stage.store))
            self.runner.run(self.stage.store.close())
            self.runner.close()

    async def finish(self) -> None:
        """Let everything go on that can: every run must come to its end."""
        for _ in range(100):
            if all(model.status.is_terminal for model in self.models.values()):
                break
            for partition, message, event in await self.events():
                await self.handle_one(partition, message, event)
            await self.release()
            for run_id, model in self.models.items():
                await self.work_on(run_id, model)
                sent = await self.stage.signal("go", sender=random_text(8), run_id=run_id)
                assert sent == model.signal()
        await self.compare()
        for run_id, model in self.models.items():
            assert model.status.is_terminal, f"{run_id} is stuck: {model.run.state}"
            if not model.run.state.terminated and model.status is not RunStatus.COMPLETED:
                assert model.run.undone == model.run.undo_stack[::-1]

    async def work_on(self, run_id: str, model: Model) -> None:
        """Begin and complete what can be, as whoever has it, or a process that comes last."""
        for seq, index in [*model.run.ready(), *model.run.running()]:
            handed, claim = model.run.nodes[seq, index], model.claims.get((seq, index), Claim())
            entry = Entry(
                run_id, FLOWS[model.run.plan.flow].plan_hash, handed.pc, seq, index,
                model.token(seq, index), undo=handed.undo,
            )  # fmt: skip
            process = claim.process or "the-last"
            held = Held(self.stage.of(run_id), QUEUE, claim.entry or "0-1", entry)
            assert (await self.stage.begin(process, held)).code == model.begin(held, process)
            done = await self.send_completion(process, held, True)
            assert done == model.complete(held, process, True) == "OK"


def decode_event(message: streams.Message) -> Event:
    return msgspec.msgpack.decode(message.payload or b"", type=Event)


def test_whatever_happens_in_whatever_order_the_scripts_keep_to_the_model(
    server: EmbeddedServer, partitions: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(machine, "PAGE", 2)
    monkeypatch.setattr(machine, "PAGE_OF_SKIPS", 2)
    made = type("MachineOfThisServer", (Machine,), {"url": server.url, "partitions": partitions})
    # A seed does not shrink, and so neither does what came of it.
    chosen = settings(examples(30, steps=8), phases=[Phase.explicit, Phase.reuse, Phase.generate])
    run_state_machine_as_test(made, settings=chosen)
