"""Flows by a seed, of every form there is, in memory and on a server: they must not differ."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from resolute import RetryPolicy, TerminalError, current
from resolute.model.builder import FlowBuilder
from resolute.model.nodes import AsyncNode, Node
from resolute.model.state import FlowState
from resolute.store.store import Store
from tests.conformance.case import Case, Outcome, builder
from tests.conformance.hashes import comparable
from tests.conformance.real import run_for_real
from tests.conformance.test_conformance import run_in_memory

Builder = FlowBuilder[Any, Any]
QUICK = RetryPolicy(initial_interval="5ms", max_attempts=2)


class Maker:
    """Makes a flow; its nodes are named in order of making."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._count = 0
        self.flow = self._steps(builder(f"random-{seed}"), depth=2).build()

    def _steps(self, made: Builder, depth: int) -> Builder:
        for _ in range(self._chance.randint(1, 3)):
            match self._chance.choice(["then", "then", "parallel", "when"] if depth else ["then"]):
                case "parallel":
                    nodes = [self._node(may_retry=False) for _ in range(self._chance.randint(2, 4))]
                    made = made.then_parallel(self._name("step"), *nodes)
                case "when":
                    made = self._branch(made, depth)
                case _:
                    made = made.then(self._node(may_retry=True))
        return made

    def _branch(self, made: Builder, depth: int) -> Builder:
        answer = self._chance.random() < 0.5

        def decide(_: FlowState) -> bool:
            return answer

        made = self._steps(made.when(decide), depth - 1)
        if self._chance.random() < 0.5:
            made = self._steps(made.else_(), depth - 1)
        return made.end_when()

    def _node(self, *, may_retry: bool) -> Node[Any, Any]:
        """A node that returns its name and a sum of its input, or fails: at first, or always.

        Nodes of a parallel step do not wait for a retry: when two do, which is first is chance.
        """
        name = self._name("n")
        failing = self._chance.choice(["never"] * 6 + ["at first"] * may_retry * 3 + ["always"])
        made = _node(name, failing, QUICK if may_retry else RetryPolicy(max_attempts=1))
        if self._chance.random() < 0.5:
            undo = self._chance.choice(["never", "never", "at first", "always"])
            made = made.on_error(_node(f"undo-{name}", undo, QUICK))
        return made.best_effort() if self._chance.random() < 0.2 else made

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"


def _node(name: str, failing: str, retry: RetryPolicy) -> Node[Any, Any]:
    async def body(value: Any) -> Any:
        if failing == "at first" and current().attempt == 1:
            raise ValueError(name)
        if failing == "always":
            raise TerminalError(name) if len(name) % 2 else OSError(name)
        return [name, zlib.crc32(repr(value).encode())]

    return AsyncNode(name, body, retry=retry)


@pytest.mark.parametrize("seed", range(25))
def test_a_random_flow_comes_to_the_same_in_memory_and_on_a_server(
    store: Store, run: Callable[..., Outcome], seed: int
):
    case = Case(Maker(seed).flow, history="")
    there, here = run(run_for_real(store, case)), run_in_memory(case)
    assert there == here
    assert comparable(there.fields) == comparable(here.fields)
