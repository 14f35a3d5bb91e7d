"""What `resolute dev` prints: lines of everybody, and the dashboard below them on a terminal."""

from __future__ import annotations

import asyncio

from rich.live import Live
from rich.text import Text

from resolute.cli.dev.dashboard import Board, read_board, render, summary
from resolute.cli.dev.hints import hints
from resolute.cli.output import console
from resolute.cli.target import Target
from resolute.client import Client
from resolute.errors import ConfigurationError, StoreUnavailable

PERIOD = 0.3  # s between drawings
MIN_ROWS, MAX_ROWS = 3, 20  # of runs
FRAME = 14  # lines of the dashboard that are no runs, and some for what is said above it

_STYLES = {"dev": "green", "coord": "magenta", "worker": "cyan"}


class Screen:
    """Draws while `run` runs; `say` prints at any time.

    Ready is when `expected` worker processes registered since `began` (Unix time, s): those of a
    session that was killed may still be there.
    """

    def __init__(self, began: float, expected: int) -> None:
        self._began = began
        self._expected = expected
        self._console = console()
        self._is_ready = False

    def say(self, name: str, line: str) -> None:
        """A line with the name of who said it."""
        text = Text(f"{name:<6} │ ", style=_STYLES.get(name, ""))
        self._console.print(text.append_text(Text.from_ansi(line)), soft_wrap=True)

    async def run(self, target: Target) -> None:
        """Announce when everybody is there; on a terminal, draw until cancelled."""
        live = Live(console=self._console, auto_refresh=False, transient=True)
        if self._console.is_terminal:
            live.start()
        try:
            await _wait_for_namespace(target)
            async with target.connect() as client:
                while True:
                    await self._look(client, live)
                    await asyncio.sleep(PERIOD)
        finally:
            live.stop()

    async def _look(self, client: Client, live: Live) -> None:
        if self._is_ready and not live.is_started:
            return
        rows = max(MIN_ROWS, min(MAX_ROWS, self._console.height - FRAME))
        try:
            board = await read_board(client, rows)
        except StoreUnavailable:
            return  # who watches the server says so
        if not self._is_ready:
            await self._announce(client, board)
        if live.is_started:
            live.update(render(board), refresh=True)

    async def _announce(self, client: Client, board: Board) -> None:
        ours = [w for w in board.situation.workers if w.started / 1000 >= self._began]
        if len(ours) < self._expected or not board.situation.coordinators:
            return
        self._is_ready = True
        lines = await hints(client, board.situation)
        for line in (f"ready: {summary(ours)}; Ctrl-C stops everything", *lines):
            self.say("dev", line)


async def _wait_for_namespace(target: Target) -> None:
    """Return once the first of the children has made it."""
    while True:
        try:
            async with target.connect():
                return
        except ConfigurationError:
            await asyncio.sleep(0.05)
