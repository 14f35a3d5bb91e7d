"""Parts of worker processes, closed with their test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resolute.model.flow import Flow
from resolute.model.nodes import Node
from resolute.storage import Storage
from tests.support.stage import Stage
from tests.worker.parts import NAME, Parts


@pytest.fixture
def make_parts(stage: Stage, runner: asyncio.Runner) -> Iterator[Callable[..., Parts]]:
    made: list[Parts] = []

    def make(
        *flows: Flow[Any, Any],
        slots: int = 10,
        nodes: tuple[Node[Any, Any], ...] = (),
        storage: Storage | None = None,
        name: str = NAME,
    ) -> Parts:
        made.append(Parts(stage, flows, slots, nodes, storage, name))
        return made[-1]

    yield make
    for parts in made:
        runner.run(parts.close())
