"""Losing power for real: a server whose file keeps only what the disk was made to keep.

`disk.c`, loaded into the server, writes down how much of each file an fsync or fdatasync that
succeeded has covered. To lose power is to kill the server and to cut its append-only files there:
what was acknowledged before and is gone after was never durable.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Sequence
from pathlib import Path

from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.support.preload import build

SOURCE = Path(__file__).with_suffix(".c")
_FILE = re.compile(r"^file (\S+) ", re.MULTILINE)


class Disk:
    """A server on a disk that can lose power. Skips the test where there is no C compiler.

    Not a fixture, so that a soak can start it too: `with Disk(folder, binary=...) as disk`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binary: ServerBinary,
        appendfsync: str = "everysec",
        options: Sequence[str] = (),
    ) -> None:
        loaded = build(SOURCE, folder)
        self._log = folder / "synced.log"
        self._log.touch()
        self._hold = folder / "hold"
        self.server = EmbeddedServer(
            folder / "server",
            binary=binary,
            appendfsync=appendfsync,
            options=options,
            environment={
                **loaded,
                "DISK_LOG": str(self._log),
                "DISK_HOLD": str(self._hold),
            },
        )

    def __enter__(self) -> Disk:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.unlink(missing_ok=True)
        self.server.stop()

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """As long as this lasts the disk keeps nothing more: every fsync waits."""
        self._hold.touch()
        try:
            yield
        finally:
            self._hold.unlink(missing_ok=True)

    def lose_power(self) -> int:
        """Kill the server and cut off what no fsync has covered; how many bytes that were."""
        self.server.kill()
        synced = self._synced()
        lost = 0
        for path in self._files():
            status = path.stat()
            kept = min(status.st_size, synced.get(status.st_ino, 0))
            lost += status.st_size - kept
            with path.open("r+b") as file:
                file.truncate(kept)
        return lost

    def start(self) -> EmbeddedServer:
        """Start on what is left. That is on the disk, and is where the reckoning begins anew."""
        self._log.write_text("")
        self.server.start()
        sizes = [path.stat() for path in self._files()]
        with self._log.open("a") as log:  # the server writes there by now
            log.write("".join(f"{one.st_ino} {one.st_size}\n" for one in sizes))
        return self.server

    def syncs(self) -> int:
        """How many fsyncs there have been since the start."""
        return len(self._lines())

    def unsynced(self) -> int:
        """How many bytes of the append-only files no fsync has covered yet."""
        synced = self._synced()
        sizes = [path.stat() for path in self._files()]
        return sum(max(0, one.st_size - synced.get(one.st_ino, 0)) for one in sizes)

    def _synced(self) -> dict[int, int]:
        """By inode, the most that was ever covered. Files only grow; those deleted are gone."""
        found: dict[int, int] = {}
        for line in self._lines():
            inode, size = map(int, line.split())
            if size < 0:
                found.pop(inode, None)
            else:
                found[inode] = max(size, found.get(inode, 0))
        return found

    def _lines(self) -> list[str]:
        """Those that are whole: who is killed while it writes one has told nobody of that fsync."""
        return self._log.read_text().rpartition("\n")[0].splitlines()

    def _files(self) -> list[Path]:
        """The base and increment files that the manifest names."""
        folder = self.server.directory / "appendonlydir"
        manifest = (folder / "appendonly.aof.manifest").read_text()
        return [folder / name for name in _FILE.findall(manifest)]
