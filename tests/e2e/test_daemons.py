"""The daemons refuse what cannot work, say why, and tell the world when they are ready."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from resolute import Client
from resolute.testing.server import ServerBinary
from tests.support.system import ROOT, System, until


def ended(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).parent / program
    return subprocess.run(
        [path, *flags], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )


WORKER = ("--queue", "q", "--app", "tests.e2e.app")


@pytest.mark.parametrize(
    ("program", "flags"), [("resolute-coord", ()), ("resolute-worker", WORKER)]
)
def test_an_unsuitable_server_is_refused_with_exit_code_2(
    make_system: Callable[..., System],
    one_binary: ServerBinary,
    program: str,
    flags: tuple[str, ...],
) -> None:
    system = make_system(
        one_binary, password="s3cret", options=["--maxmemory-policy", "allkeys-lru"]
    )
    evicting = ended(program, "--redis", system.server.url, *flags)
    assert evicting.returncode == 2
    assert "maxmemory-policy is allkeys-lru" in evicting.stderr
    assert "noeviction" in evicting.stderr
    wrong = ended(program, "--redis", system.server.url.replace("s3cret", "wr0ng"), *flags)
    assert wrong.returncode == 2
    assert "refused the connection" in wrong.stderr
    assert "wr0ng" not in wrong.stderr
    assert "s3cret" not in evicting.stderr


def test_a_server_that_is_not_there_is_exit_code_2() -> None:
    nobody = ended("resolute-coord", "--redis", "redis://127.0.0.1:1/0")
    assert nobody.returncode == 2
    assert nobody.stderr.startswith("error: cannot reach redis://127.0.0.1:1/0")


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nowhere.to_be_found", "there is no module 'nowhere.to_be_found'"),
        ("missing.py", "there is no file 'missing.py'"),
        ("tests.e2e.app:nothing", "the module has no 'nothing'"),
        ("tests.e2e.conftest", "expected at least one flow"),
    ],
)
def test_an_app_that_cannot_be_served_is_exit_code_2(
    system: System, app: str, message: str
) -> None:
    worker = ended("resolute-worker", "--redis", system.server.url, "--queue", "q", "--app", app)
    assert worker.returncode == 2
    assert message in worker.stderr


def get(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_health_says_ready_when_it_is_and_live_while_redis_is_away(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary)
    ports = [free_port(), free_port()]
    system.coordinator("--health", f"127.0.0.1:{ports[0]}")
    system.worker("--health", f":{ports[1]}")

    async def run() -> None:
        for port in ports:
            await until(lambda port=port: get(port, "/health/ready") == 200, "it is ready")
            assert get(port, "/health/live") == 200
            assert get(port, "/nowhere") == 404
        system.server.kill()
        for port in ports:
            await until(lambda port=port: get(port, "/health/ready") == 503, "it is not ready")
            assert get(port, "/health/live") == 200
        system.server.restart()
        for port in ports:
            await until(lambda port=port: get(port, "/health/ready") == 200, "it is again")

    asyncio.run(run())


def test_systemd_is_told_when_the_daemon_is_ready(
    make_system: Callable[..., System], one_binary: ServerBinary, tmp_path: Path
) -> None:
    system = make_system(one_binary)
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        program = Path(sys.executable).parent / "resolute-coord"
        process = subprocess.Popen(
            [program, "--redis", system.server.url, "--log-level", "error"], env=environment
        )
        try:
            assert notify.recv(100) == b"READY=1"
            assert notify.recv(100) == b"WATCHDOG=1"
            process.terminate()
            while (message := notify.recv(100)) == b"WATCHDOG=1":
                continue
            assert message == b"STOPPING=1"
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


def test_a_wrong_flag_says_what_was_expected() -> None:
    result = ended("resolute-coord", "--lease", "soon")
    assert result.returncode == 2
    assert 'expected a duration such as "500ms"' in result.stderr


def test_a_namespace_keeps_its_number_of_partitions(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary, partitions=3)
    refused = ended("resolute-coord", "--redis", system.server.url, "--partitions", "2")
    assert refused.returncode == 2
    assert "has 3 partition(s) and cannot be given 2" in refused.stderr

    async def run() -> int:
        async with Client.connect(system.server.url) as client:
            return client.store.keys.count

    assert asyncio.run(run()) == 3
