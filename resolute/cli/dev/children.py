"""The subprocesses of `resolute dev`: their lines are ours, and none outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from resolute.testing.server import LAUNCH

Say = Callable[[str, str], None]
"""Takes a name and a line."""

MARGIN = 12.0  # s beyond its grace that a child has to end
LAST_WORDS = 1.0  # s for the lines of a child that has ended


class Child:
    """One subprocess; made by `start_child`."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        output: asyncio.StreamReader,
        say: Say,
    ) -> None:
        self.name = name
        self._process = process
        self._lines = asyncio.create_task(self._pump(output, say))

    async def wait(self) -> int:
        """Its exit code, once it has ended and its last lines were said."""
        code = await self._process.wait()
        self._let_go()
        # A process that it left behind may hold the pipe open.
        await asyncio.wait([self._lines], timeout=LAST_WORDS)
        return code

    async def stop(self, grace: float) -> None:
        """Ask it to end, and kill it if it does not; once it has ended this does nothing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(grace + MARGIN):
                await self._process.wait()
        except TimeoutError:
            self.kill()
        await self.wait()
        self._lines.cancel()

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _let_go(self) -> None:
        """Send the reader home: a line, and not the end of the pipe, which would make it kill."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.is_closing():
            with contextlib.suppress(OSError):
                pipe.write(b"\n")
                pipe.close()

    async def _pump(self, output: asyncio.StreamReader, say: Say) -> None:
        while line := await _line(output):
            say(self.name, str(line, "utf-8", "replace").rstrip())


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or as much of a very long one as the reader holds."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)


async def start_child(name: str, command: Sequence[str], env: Mapping[str, str], say: Say) -> Child:
    """Start a subprocess; what it prints, on whichever stream, goes to `say` line by line."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", LAUNCH, "sh", *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        start_new_session=True,
    )  # fmt: skip
    output = process.stdout or asyncio.StreamReader()
    return Child(name, process, output, say)


def program(script: str, module: str) -> list[str]:
    """The command of a console script of this installation, which need not be on PATH."""
    path = Path(sys.executable).parent / script
    if path.exists():
        return [str(path)]
    return [sys.executable, "-c", f"from {module} import main; main()"]
