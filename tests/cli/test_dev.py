"""`resolute dev`: everything in one command, and nothing left when it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from resolute.cli.dev.hints import example_of
from resolute.cli.exits import Exit
from tests.cli.helpers import until
from tests.support.processes import is_alive

APP = Path(__file__).parent / "app.py"
RESOLUTE = Path(sys.executable).parent / "resolute"


def environment() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RESOLUTE_")}
    return {**clean, "COLUMNS": "100", "LINES": "40", "TERM": "xterm"}


class Dev:
    """A `resolute dev` in a folder; its output goes to a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, terminal: int | None = None) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [RESOLUTE, "dev", *arguments],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=terminal if terminal is not None else log,
                stderr=log,
            )
        self._running.append(process)
        return process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command in the same folder, which must find the server by itself."""
        return subprocess.run(
            [RESOLUTE, *arguments], cwd=self.folder, env=environment(), text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    def wait_for(self, text: str, process: subprocess.Popen[bytes]) -> None:
        def look() -> bool:
            assert process.poll() is None, self.log
            return text in self.log

        until(look, f"{text!r} is said")

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    made = Dev(tmp_path)
    yield made
    made.close()


def test_a_flow_runs_from_another_terminal_and_ctrl_c_ends_cleanly(dev: Dev):
    process = dev.start(str(APP))
    dev.wait_for("ready: 2 processes on queue default", process)
    dev.wait_for("resolute start checkout", process)
    dev.wait_for("flow remote needs queue gpu", process)

    started = dev.call("start", "checkout", "--input", '{"price": 100}', "--wait")
    assert started.stdout.strip() == "130"
    assert started.stderr.strip() in dev.call("ls").stdout

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == Exit.OK
    assert "Traceback" not in dev.log
    assert not (dev.folder / ".resolute/server.json").exists()


def test_what_was_running_goes_on_at_the_next_start(dev: Dev):
    gate = dev.folder / "gate"
    process = dev.start(str(APP), "--processes", "1")
    dev.wait_for("ready: ", process)
    given = ("start", "held", "--id", "long", "--input", json.dumps({"path": str(gate)}))
    assert dev.call(*given).returncode == 0
    until(lambda: "hold runs on" in dev.call("show", "long").stdout, "the node runs")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == Exit.OK

    gate.touch()
    (dev.folder / "log").write_text("")
    again = dev.start(str(APP), "--processes", "1")
    dev.wait_for("ready: ", again)
    assert dev.call(*given, "--wait").stdout.strip() == '"released"'


def test_a_large_result_is_kept_in_the_folder_and_shown_by_its_size(dev: Dev):
    process = dev.start(str(APP), "--processes", "1")
    dev.wait_for("ready: ", process)
    started = dev.call("start", "report", "--input", "2", "--wait", "--id", "large")
    assert json.loads(started.stdout) == "a page of text\n" * 200_000
    assert json.loads(dev.call("show", "large", "--json").stdout)["result"] == "in storage, 3.0 MB"
    assert "in storage, 3.0 MB" in dev.call("show", "large").stdout
    assert len(list((dev.folder / ".resolute/storage").rglob("1.0-*"))) == 1
    elsewhere = dev.call("start", "report", "--input", "2", "--wait", "--storage", "elsewhere")
    assert elsewhere.returncode == Exit.UNUSABLE
    assert "error: reading from file://" in elsewhere.stderr


def test_two_in_one_folder_are_refused_and_the_first_stays(dev: Dev):
    process = dev.start(str(APP), "--processes", "1")
    dev.wait_for("ready: ", process)
    second = dev.call("dev", str(APP))
    assert second.returncode == Exit.UNUSABLE
    assert second.stderr.startswith("error: another `resolute dev` runs in this folder")
    assert dev.call("flows").returncode == Exit.OK


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("answer = 42", "expected at least one flow"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_explained_and_all_is_cleared_away(
    dev: Dev, text: str, said: str
):
    (dev.folder / "broken.py").write_text(text)
    process = dev.start("broken.py")
    assert process.wait(60) == Exit.UNUSABLE
    assert said in dev.log
    assert "error: the worker ended with code 2" in dev.log
    assert not (dev.folder / ".resolute/server.json").exists()


def test_every_queue_gets_its_worker(dev: Dev):
    process = dev.start(str(APP), "--processes", "1", "--queue", "default", "--queue", "gpu")
    dev.wait_for("ready: 1 process on queue default, 1 process on queue gpu", process)
    dev.wait_for("resolute start checkout --queue default", process)
    started = dev.call("start", "remote", "--queue", "default", "--wait")
    assert started.stdout.strip() == "null", started
    assert "needs queue" not in dev.log


def test_nothing_outlives_a_dev_that_is_killed(dev: Dev):
    process = dev.start(str(APP))
    dev.wait_for("ready: ", process)
    report = msgspec.json.decode(dev.call("doctor", "--json").stdout)
    pids = [found["pid"] for found in report["processes"]]
    assert len(pids) == 3 and all(map(is_alive, pids))

    process.kill()
    process.wait()
    until(lambda: not any(map(is_alive, pids)), "coordinator and workers are gone")
    until(lambda: dev.call("ls").returncode == Exit.UNUSABLE, "the server is gone")
    assert "does `resolute dev` still run?" in dev.call("ls").stderr

    (dev.folder / "log").write_text("")
    dev.wait_for("ready: 2 processes", dev.start(str(APP)))


def read_terminal(terminal: int, pattern: str) -> str:
    """What is drawn until a regular expression matches, without the escape sequences."""
    seen = b""

    def look() -> str:
        nonlocal seen
        seen += os.read(terminal, 65_536)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace"))
        return text if re.search(pattern, text) else ""

    return until(look, f"{pattern!r} is drawn")


def test_on_a_terminal_it_draws_what_runs(dev: Dev):
    terminal, inner = pty.openpty()
    termios.tcsetwinsize(inner, (40, 100))
    try:
        process = dev.start(str(APP), "--processes", "1", terminal=inner)
        read_terminal(terminal, r"no runs yet")
        read_terminal(terminal, r"default +0 of 100")
        given = json.dumps({"path": str(dev.folder / "gate")})
        assert dev.call("start", "held", "--id", "drawn", "--input", given).returncode == 0
        read_terminal(terminal, r"1 open")
        read_terminal(terminal, r"drawn +held +● running +hold")
        read_terminal(terminal, r"default +1 of 100")
        (dev.folder / "gate").touch()
        read_terminal(terminal, r"drawn +held +✓ completed")
        process.send_signal(signal.SIGINT)
        read_terminal(terminal, r"stopping")
        os.set_blocking(terminal, False)
        assert process.wait(60) == Exit.OK
    finally:
        os.close(terminal)
        os.close(inner)


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({}, None),
        ({"type": "integer"}, 1),
        ({"type": "string", "default": "x"}, "x"),
        ({"enum": ["red", "blue"]}, "red"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"$ref": "#/$defs/A"}, {"needed": 1}),
    ],
)
def test_the_example_has_what_the_schema_requires(schema: dict[str, object], example: object):
    properties = {"needed": {"type": "integer"}, "optional": {"type": "string", "default": ""}}
    definitions = {"A": {"type": "object", "properties": properties, "required": ["needed"]}}
    assert example_of(schema, definitions) == example
