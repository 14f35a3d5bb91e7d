"""A real Redis or Valkey server that lives as long as this process.

`EmbeddedServer` runs what `find_server` finds in a directory, on a loopback port, with
an append-only file. `resolute dev`, the pytest fixtures and the chaos tests start theirs here.

The server runs in a session of its own, so that Ctrl-C in a terminal reaches the program first and
the server is stopped last. Still it must not outlive a program that is killed. PR_SET_PDEATHSIG is
no help: it fires when the *thread* that started the child ends, and needs code between fork and
exec. Instead, `sh` leaves a reader of a pipe behind before it becomes the server. We hold the other
end; when this process dies, however it dies, the kernel closes it, and the reader kills the group.

Only standard sockets here: nothing but `resolute.store` imports redis.
"""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from resolute.testing.binaries import (
    ServerBinary,
    ServerNotFound,
    find_server,
    find_servers,
    inspect_binary,
)

__all__ = [
    "EmbeddedServer",
    "ServerBinary",
    "ServerFailed",
    "ServerNotFound",
    "find_server",
    "find_servers",
    "inspect_binary",
]

HOST = "127.0.0.1"

# Below the ports that Linux and macOS hand to outgoing connections: there, a client that keeps on
# trying to reach a killed server over loopback at last connects to itself, and occupies the port.
PORTS = range(15_000, 30_000)

# Run by `sh` in a session of its own, so that Ctrl-C reaches us alone and the order of the end is
# ours. If we are killed, the kernel closes the pipe, and the reader left behind kills the group.
LAUNCH = (
    "exec 3<&0 </dev/null; { read -r _ <&3 || kill -s KILL -- -$$; } >/dev/null 2>&1 &"
    ' exec 3<&-; exec "$@"'
)


class ServerFailed(RuntimeError):
    """The server did not start, or is not running; the message ends with its last log lines."""


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
        environment: variables for the server, beside those of this process.

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
        environment: Mapping[str, str] | None = None,
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
        self.environment = dict(environment or {})
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
                ["/bin/sh", "-c", LAUNCH, "sh", *command],
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A locale that this machine lacks is fatal to Redis 7.2 and Valkey.
                env={**os.environ, "LC_ALL": "C", **self.environment},
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
