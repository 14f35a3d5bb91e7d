"""The folder of `resolute dev`: its data, its lock, and the address for other terminals."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Generator
from pathlib import Path
from typing import IO

from resolute.client.dev_server import DEV_FOLDER, SERVER_FILE
from resolute.errors import ConfigurationError

DATA_FOLDER = DEV_FOLDER / "data"
STORAGE_FOLDER = DEV_FOLDER / "storage"
LOCK_FILE = DEV_FOLDER / "lock"


@contextlib.contextmanager
def workspace() -> Generator[Path]:
    """The data folder, ours alone as long as the `with` lasts.

    The lock ends with the process, however it ends. Raises ConfigurationError where another
    process holds it.
    """
    DEV_FOLDER.mkdir(exist_ok=True)
    (DEV_FOLDER / ".gitignore").write_text("*\n")
    with LOCK_FILE.open("a+") as lock:
        _lock(lock)
        SERVER_FILE.unlink(missing_ok=True)  # of one that was killed
        try:
            yield DATA_FOLDER
        finally:
            SERVER_FILE.unlink(missing_ok=True)


def _lock(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigurationError(
            f"another `resolute dev` runs in this folder: it has {DEV_FOLDER}/ in use"
        ) from None
