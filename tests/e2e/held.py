"""A run whose node is running until the test lets it go."""

from __future__ import annotations

from resolute import Client, FlowRun
from tests.e2e import app
from tests.e2e.app import Word
from tests.support.system import System, until


async def start_held(system: System, client: Client, text: str) -> FlowRun[str]:
    """A run whose node `held` is running and waits for its gate."""
    run = await client.start(app.hold, Word(text))
    await until(lambda: bool(system.lines("held", text)), "the node runs")
    return run


def holder(system: System, text: str) -> int:
    """The process that runs the held node, by its own word."""
    return int(system.lines("held", text)[-1][-2])
