"""An app that is deployed in two versions: the same flows by name, other programs.

VERSION in the environment says which. Every node writes down the version that ran it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, cast

from resolute import FlowBuilder, TerminalError, manual
from resolute.model.nodes import Node
from tests.faults.app import Work
from tests.faults.oracle import FOLDER

VERSION = os.environ.get("VERSION", "one")
GATE = "gate"  # a file; nodes that wait for it are those that a deployment finds running


def step(name: str, *, waits: bool = False, fails: bool = False) -> Node[Any, list[str]]:
    async def run(found: Any) -> list[str]:
        while waits and not (Path(os.environ[FOLDER]) / GATE).exists():
            await asyncio.sleep(0.01)  # in a node
        if fails:
            raise TerminalError(VERSION)
        before = cast("list[str]", found) if isinstance(found, list) else []
        return [*before, f"{name} {VERSION}"]

    return Node(name, run)


def begun(name: str) -> FlowBuilder[Work, Any]:
    return FlowBuilder(name, input=Work).triggered_by(manual("faults"))


def chain(name: str, *nodes: Node[Any, Any]) -> FlowBuilder[Work, Any]:
    built = begun(name)
    for one in nodes:
        built = built.then(one)
    return built


FIRST, HELD = step("first"), step("held", waits=True)
LATER = [step("added")] if VERSION == "two" else []

plain = chain("plain", FIRST, HELD, *LATER, step("last")).build()
undone = chain(
    "undone",
    FIRST.on_error(step("undo-first")),
    HELD.on_error(step("undo-held", waits=True)),
    *LATER,
    step("fails", fails=True),
).build()
