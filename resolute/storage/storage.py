"""Storage: objects by path, checked by size and SHA-256 whenever they are read."""

from __future__ import annotations

import asyncio
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from urllib.parse import quote

from resolute.errors import (
    ChecksumMismatch,
    ConfigurationError,
    ObjectMissing,
    PayloadTooLarge,
    StorageUnavailable,
)
from resolute.ids import random_text
from resolute.model.references import Stored, check_path
from resolute.storage.backends import Backend, backend_of, without_secrets

DEFAULT_MAX_STORED = 1024 * 1024 * 1024  # bytes
THREADS = 8  # transfers of one process at a time
ID_PART = 60  # characters of a run's id in the name of its folder


class Storage:
    """Where values above `max_payload` go: ``file:///folder``, ``s3://bucket/prefix``, ``gs://``,
    ``memory://name`` for tests, or the path of a folder.

    `options` go to the file system of fsspec (``key=``, ``secret=``, ``endpoint_url=``…), so that
    no secret need be in the URL; neither is ever logged or written to Redis. `max_stored` is the
    most bytes that one value may have. Raises ConfigurationError, also where fsspec is needed and
    is not installed: ``pip install "resolute[storage]"``.
    """

    def __init__(self, url: str, *, max_stored: int = DEFAULT_MAX_STORED, **options: Any) -> None:
        if max_stored < 1:
            raise ConfigurationError(f"max_stored: expected 1 byte or more, got {max_stored!r}")
        self.url = url
        self.max_stored = max_stored
        self._options = options
        self._backend: Backend = backend_of(url, options)
        self._threads: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"Storage({without_secrets(self.url) if '://' in self.url else self.url!r})"

    @property
    def where(self) -> str:
        """Its URL, without secrets."""
        return self._backend.where

    def told(self) -> str:
        """What another process needs to have the same one; see `from_told`.

        Raises ConfigurationError where an option cannot be told.
        """
        try:
            return json.dumps([self.url, self.max_stored, self._options])
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"storage {self.where}: options of a worker must be plain data (text, numbers,"
                " lists, dicts), since its processes are told them"
            ) from None

    @classmethod
    def from_told(cls, told: str) -> Self:
        url, max_stored, options = json.loads(told)
        return cls(url, max_stored=max_stored, **options)

    def write(self, folder: str, name: str, data: bytes) -> Stored:
        """Keep an object; it blocks. Its name is used for nothing else, ever.

        Raises PayloadTooLarge above `max_stored`, StorageUnavailable.
        """
        if len(data) > self.max_stored:
            raise PayloadTooLarge(len(data), self.max_stored)
        path = check_path(f"{folder}/{name}-{random_text(12)}")
        try:
            self._backend.write(path, data)
        except OSError as error:
            raise StorageUnavailable(f"writing to {self.where}: {error}") from error
        return Stored(path, len(data), hashlib.sha256(data).hexdigest())

    def read(self, stored: Stored) -> bytes:
        """An object as it was stored; it blocks.

        Raises ObjectMissing, ChecksumMismatch, StorageUnavailable.
        """
        try:
            # One byte more shows that it grew, without reading all that it may have become.
            data = self._backend.read(check_path(stored.path), stored.size + 1)
        except FileNotFoundError:
            raise ObjectMissing(stored.path, self.where) from None
        except OSError as error:
            raise StorageUnavailable(f"reading from {self.where}: {error}") from error
        if len(data) != stored.size:
            more = "more" if len(data) > stored.size else f"{len(data):,}"
            raise ChecksumMismatch(stored.path, f"{stored.size:,} bytes", more)
        found = hashlib.sha256(data).hexdigest()
        if found != stored.sha256:
            raise ChecksumMismatch(stored.path, f"SHA-256 {stored.sha256}", found)
        return data

    def delete(self, path: str) -> None:
        """Delete an object, or a folder with all in it; it blocks. Raises StorageUnavailable."""
        try:
            self._backend.delete(check_path(path))
        except OSError as error:
            raise StorageUnavailable(f"deleting in {self.where}: {error}") from error

    async def write_soon(self, folder: str, name: str, data: bytes) -> Stored:
        """`write`, in a thread."""
        return await self._in_thread(self.write, folder, name, data)

    async def read_soon(self, stored: Stored) -> bytes:
        """`read`, in a thread."""
        return await self._in_thread(self.read, stored)

    async def delete_soon(self, path: str) -> None:
        """`delete`, in a thread."""
        await self._in_thread(self.delete, path)

    async def _in_thread(self, fn: Any, *arguments: Any) -> Any:
        # Threads of our own: the loop's are few, and an app may have them all waiting.
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="storage")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, fn, *arguments)


def storage_of(
    storage: Storage | str | None, max_stored: int = DEFAULT_MAX_STORED
) -> Storage | None:
    """A storage from what an option says: one, its URL, or nothing. Raises ConfigurationError."""
    if isinstance(storage, Storage):
        return storage
    return Storage(storage, max_stored=max_stored) if storage else None


def folder_name(namespace: str, flow_id: str) -> str:
    """A new folder for the objects of a run: of this run, not of another under the same id."""
    part = quote(flow_id, safe="")[:ID_PART]
    return f"{_harmless(quote(namespace, safe=''))}/{part}.{random_text(16)}"


def _harmless(part: str) -> str:
    return part.replace(".", "%2E") if not part.strip(".") else part
