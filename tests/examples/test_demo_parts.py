"""The demo's parts that need no engine: subprocesses, and the comparison of rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from examples.enrich_issues.archive import SAMPLE, expected_rows, load
from examples.enrich_issues.processes import ProcessDied, Processes
from examples.enrich_issues.report import compare_rows
from examples.enrich_issues.wire import ServicesReady

PRINTS_ITS_PID = [sys.executable, "-u", "-c", "import os, time; print(os.getpid()); time.sleep(99)"]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_subprocesses_end_with_the_block(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        pid = int(processes.start_and_read_line("sleeper", PRINTS_ITS_PID, {}))
        processes.check()
        assert is_running(pid)
    assert not is_running(pid)


def test_subprocesses_end_when_the_block_fails(tmp_path: Path) -> None:
    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt), Processes(tmp_path) as processes:
        for name in ("one", "two"):
            pids.append(int(processes.start_and_read_line(name, PRINTS_ITS_PID, {})))
        raise KeyboardInterrupt
    assert not any(map(is_running, pids))


def test_a_subprocess_that_ends_is_noticed_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        fails = [sys.executable, "-c", "raise SystemExit('no such flow')"]
        with pytest.raises(ProcessDied, match="no such flow"):
            processes.start_and_read_line("worker", fails, {})
        with pytest.raises(ProcessDied, match="worker ended with code 1"):
            processes.check()


def test_the_services_say_where_they_listen(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        command = [sys.executable, "-m", "examples.enrich_issues.services"]
        line = processes.start_and_read_line("services", command, {})
    assert msgspec.json.decode(line, type=ServicesReady).url.startswith("http://127.0.0.1:")


def test_rows_that_differ_are_named_with_the_difference() -> None:
    expected = expected_rows(load(SAMPLE))
    first, second, *_ = expected
    found = {k: row for k, row in expected.items() if k != first}
    found[second] = msgspec.structs.replace(found[second], reviews=99)
    found[9999] = found[second]
    assert compare_rows(expected, expected) == []
    assert compare_rows(found, expected) == [
        f"issue {first}: no row",
        f"issue {second}: reviews is 99, expected {expected[second].reviews}",
        "issue 9999: a row, but no such issue",
    ]
