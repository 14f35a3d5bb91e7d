"""Where objects are: a local folder, this process's memory, or whatever fsspec knows.

Each writes, reads and deletes by a path below its root, and blocks. What goes wrong is an OSError,
FileNotFoundError where there is no such object.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from resolute.errors import ConfigurationError
from resolute.ids import random_text

MARK = ".resolute-storage"  # a file in a folder that was written to
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class Backend(Protocol):
    """`where` names it for people, without its credentials."""

    where: str

    def write(self, path: str, data: bytes) -> None: ...

    def read(self, path: str, most: int) -> bytes:
        """The first `most` bytes of an object."""
        ...

    def delete(self, path: str) -> None:
        """Delete an object, or a folder with all that is in it; what is not there is no error."""
        ...


class LocalFolder:
    """A folder of this machine, or one that is mounted on all of them."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.where = f"file://{self._root}"

    def write(self, path: str, data: bytes) -> None:
        """Write it beside its place, down to the disk, and move it there: never half an object."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (self._root / MARK).touch()
        draft = target.with_name(f".{random_text(12)}.part")
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def read(self, path: str, most: int) -> bytes:
        try:
            with (self._root / path).open("rb") as file:
                return file.read(most)
        except FileNotFoundError:
            self._check_mounted()
            raise

    def delete(self, path: str) -> None:
        self._check_mounted()
        target = self._root / path
        try:
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink()
        except FileNotFoundError:
            pass  # it, or a part of it, is gone: another coordinator deletes it too

    def _check_mounted(self) -> None:
        """Raises OSError where this is not the folder that was written to, such as the empty one
        below what is not mounted: what is not there now is not gone.
        """
        if not (self._root / MARK).exists():
            raise OSError(f"{self._root} has no {MARK}: nothing was stored there, or not mounted")


def _sync_folder(folder: Path) -> None:
    """So that the name is on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_memories: dict[str, dict[str, bytes]] = {}


class Memory:
    """Objects in this process, for tests: the same for everybody in it who gives the same URL.

    ``memory://`` without a name is nobody else's.
    """

    def __init__(self, url: str) -> None:
        name = url.removeprefix("memory://").rstrip("/")
        self._objects: dict[str, bytes] = _memories.setdefault(name, {}) if name else {}
        self.where = without_secrets(url)

    def write(self, path: str, data: bytes) -> None:
        self._objects[path] = data

    def read(self, path: str, most: int) -> bytes:
        if path not in self._objects:
            raise FileNotFoundError(path)
        return self._objects[path][:most]

    def delete(self, path: str) -> None:
        for name in list(self._objects):
            if name == path or name.startswith(f"{path}/"):
                self._objects.pop(name, None)


class Remote:
    """Anything that fsspec knows: s3://, gs://, az://, sftp://…

    An object's name is never used twice and nobody knows it before it is written, so that a store
    which shows half an object for a while does no harm.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        try:
            import fsspec  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise ConfigurationError(
                f"storage {without_secrets(url)}: fsspec is not installed:"
                ' pip install "resolute[storage]", and what its protocol needs (s3fs, gcsfs…)'
            ) from None
        try:
            found = fsspec.core.url_to_fs(url, **options)  # pyright: ignore
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"storage {without_secrets(url)}: {_censored(error, url)}"
            ) from None
        self._fs, root = cast("tuple[Any, str]", found)
        self._root = root.rstrip("/")
        self._url = url
        self.where = without_secrets(url)

    def write(self, path: str, data: bytes) -> None:
        target = f"{self._root}/{path}"
        with _only_os_errors(self._url):
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(target, data)

    def read(self, path: str, most: int) -> bytes:
        with _only_os_errors(self._url):
            return self._fs.cat_file(f"{self._root}/{path}", start=0, end=most)

    def delete(self, path: str) -> None:
        target = f"{self._root}/{path}"
        with _only_os_errors(self._url):
            # What was listed before somebody else wrote is not what is there.
            self._fs.invalidate_cache()
            if self._fs.exists(target):
                try:
                    self._fs.rm(target, recursive=True)
                except FileNotFoundError:
                    pass  # another coordinator deletes it too


class _only_os_errors:
    """Whatever a library of some protocol raises is an OSError here, without credentials."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, FileNotFoundError):
            return
        if isinstance(error, Exception):
            raise OSError(f"{type(error).__name__}: {_censored(error, self._url)}") from None


def _censored(error: BaseException, url: str) -> str:
    return str(error).replace(url, without_secrets(url))


def without_secrets(url: str) -> str:
    """A URL without the user, the password and the query that it may have."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def backend_of(url: str, options: dict[str, Any]) -> Backend:
    """The backend of a URL, or of the path of a folder. Raises ConfigurationError."""
    scheme, separator, rest = url.partition("://")
    if not separator or _DRIVE.match(url):
        scheme, rest = "file", url
    if scheme == "file":
        _refuse_options(options, url)
        path = unquote(rest) if separator else rest
        if not path:
            raise ConfigurationError(f"storage: expected file:///folder, got {url!r}")
        if separator and not path.startswith("/"):
            raise ConfigurationError(f"storage: expected file:///absolute/folder, got {url!r}")
        return LocalFolder(Path(path))
    if scheme == "memory":
        _refuse_options(options, url)
        return Memory(url)
    return Remote(url, options)


def _refuse_options(options: dict[str, Any], url: str) -> None:
    if options:
        raise ConfigurationError(f"storage {url}: takes no options, got {', '.join(options)}")
