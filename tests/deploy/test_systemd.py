"""The systemd units are accepted by systemd, hardened, and leave the worker time for its grace."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)


def settings(unit: Path) -> dict[str, list[str]]:
    """Every value of every setting: a setting may come twice."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def seconds(value: str) -> int:
    assert value.endswith("s")
    return int(value.removesuffix("s"))


@pytest.fixture(params=UNITS, ids=lambda unit: unit.name)
def unit(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def installed(unit: Path, tmp_path: Path) -> Path:
    """The unit as an instance with a program that exists here, since resolute is not in /opt."""
    text, count = re.subn(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
    assert count == 1
    path = tmp_path / unit.name.replace("@.", "@enrichment-queue.")
    path.write_text(text)
    return path


def test_there_is_a_unit_for_each_daemon() -> None:
    assert [unit.name for unit in UNITS] == ["resolute-coord.service", "resolute-worker@.service"]


@needs_systemd
def test_systemd_accepts_the_unit_without_a_word(installed: Path) -> None:
    verified = analyze("verify", "--man=no", installed)
    assert (verified.returncode, verified.stderr, verified.stdout) == (0, "", "")


@needs_systemd
def test_the_unit_exposes_little(installed: Path) -> None:
    if "--offline" not in analyze("--help").stdout:
        pytest.skip("this systemd-analyze cannot judge a unit that is not installed")
    # On systemd's scale of 0.0 to 10.0, written as 0 to 100; 20 is what it calls OK.
    judged = analyze("security", "--no-pager", "--offline=true", "--threshold=20", installed)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_the_daemon_is_supervised_and_comes_back(unit: Path) -> None:
    service = settings(unit)
    assert service["Type"] == ["notify"]
    assert service["NotifyAccess"] == ["main"]
    assert service["Restart"] == ["always"]
    assert service["KillMode"] == ["mixed"]
    assert service["StartLimitIntervalSec"] == ["0"]
    # A lease is 15 s: a daemon that is silent for less has not lost its work yet.
    assert seconds(service["WatchdogSec"][0]) > 15


def test_configuration_comes_from_files_that_may_be_missing(unit: Path) -> None:
    files = settings(unit)["EnvironmentFile"]
    assert all(file.startswith("-/etc/resolute/") for file in files)
    assert files[0] == "-/etc/resolute/resolute.env"


def test_a_worker_is_stopped_later_than_its_grace_ends() -> None:
    service = settings(FOLDER / "resolute-worker@.service")
    assert seconds(service["TimeoutStopSec"][0]) > 30
    assert service["ExecStart"][0].endswith("resolute-worker --queue %i")


def test_one_node_out_of_memory_does_not_stop_the_whole_worker() -> None:
    assert settings(FOLDER / "resolute-worker@.service")["OOMPolicy"] == ["continue"]
