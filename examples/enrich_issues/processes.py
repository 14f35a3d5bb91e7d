"""The subprocesses of the demo: started one by one, and gone when the demo is, however it ends."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
"""The folder that holds `examples`; the subprocesses import from it."""

GRACE = 20.0
"""Seconds that a subprocess has to end before it is killed."""


class ProcessDied(RuntimeError):
    """A subprocess ended, or did not get ready; the message ends with its last log lines."""


class Processes:
    """A context manager that stops what it started, the last one first.

    Each subprocess runs in a session of its own, so that a Ctrl-C reaches the demo alone and the
    order of the end is the demo's. Its output goes to a log file in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a subprocess and go on."""
        with self._log(name).open("wb") as log:
            self._launch(name, command, env, log.fileno(), log.fileno())

    def start_and_read_line(
        self, name: str, command: Sequence[str], env: Mapping[str, str], timeout: float = 30.0
    ) -> bytes:
        """Start a subprocess and wait for the line that it prints when it is ready.

        Raises ProcessDied where it ends without one, or after `timeout` seconds.
        """
        with self._log(name).open("wb") as log:
            process = self._launch(name, command, env, subprocess.PIPE, log.fileno())
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            is_readable = bool(selector.select(timeout))
            line = process.stdout.readline() if is_readable else b""
        if is_readable and not line:
            process.wait(GRACE)  # it closed its output, so it is about to end
        if not line:
            raise ProcessDied(f"{name} did not get ready\n{self._log_tail(name)}")
        return line

    def check(self) -> None:
        """Raise ProcessDied if one of them has ended."""
        for name, process in self._running.items():
            if (code := process.poll()) is not None:
                raise ProcessDied(f"{name} ended with code {code}\n{self._log_tail(name)}")

    def stop(self) -> None:
        """Ask each to end, wait, and kill what does not."""
        while self._running:
            _, process = self._running.popitem()
            try:
                process.terminate()
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                pass
            finally:
                _kill(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            # Empty, unless a second Ctrl-C came while the first was being obeyed.
            for process in self._running.values():
                _kill(process)

    def _launch(
        self, name: str, command: Sequence[str], env: Mapping[str, str], stdout: int, stderr: int
    ) -> subprocess.Popen[bytes]:
        self._running[name] = process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": _python_path(), **env},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        return process

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _log_tail(self, name: str, lines: int = 15) -> str:
        text = self._log(name).read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def script(name: str) -> str:
    """A command that was installed beside the Python that runs this."""
    path = Path(sys.executable).parent / name
    return str(path) if path.exists() else name


def _python_path() -> str:
    inherited = os.environ.get("PYTHONPATH")
    return f"{ROOT}{os.pathsep}{inherited}" if inherited else str(ROOT)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a subprocess and its group, if it is still there, and let go of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
