"""What a client puts into the storage, which is inputs, and what it reads from there."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Iterable, Mapping

from resolute.errors import ResoluteError, StorageUnavailable
from resolute.model.references import Stored, fill, is_stub, stored_in, stub_of
from resolute.status import Code
from resolute.storage import Storage, folder_name
from resolute.store import folders, runs
from resolute.store.store import Store

log = logging.getLogger(__name__)

MOST_AT_ONCE = 8  # transfers
NO_STORAGE = (
    "it is in the storage, and this client has none: Client.connect(storage=) or RESOLUTE_STORAGE"
)


class Objects:
    """The storage of a client, which may have none."""

    def __init__(self, store: Store, storage: Storage | None) -> None:
        self._store = store
        self.storage = storage
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    @property
    def most(self) -> int:
        """The bytes that an input may have because there is a storage; 0 without."""
        return self.storage.max_stored if self.storage is not None else 0

    async def read(self, stored: Stored) -> bytes:
        """Raises StorageUnavailable, ObjectMissing, ChecksumMismatch."""
        if self.storage is None:
            raise StorageUnavailable(NO_STORAGE)
        async with self._turns:
            return await self.storage.read_soon(stored)

    async def whole(self, values: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
        """Encoded values by their key, with what is in the storage in place of its stubs."""
        stubs = {key: value for key, value in values.items() if value and is_stub(value)}
        wanted = {one for stub in stubs.values() for one in stored_in(stub)}
        read = dict(zip(wanted, await _all(map(self.read, wanted)), strict=True))
        return {**values, **{key: fill(one, read.__getitem__) for key, one in stubs.items()}}

    async def keep_input(self, start: runs.Start) -> None:
        """Put the input of a run that is to be started into the storage.

        The run has a stub in its place; its folder is known before, so that nothing is left
        should this client die before the start. Raises StorageUnavailable.
        """
        if self.storage is None:
            raise StorageUnavailable(NO_STORAGE)
        async with self._turns:
            new = folder_name(self._store.keys.meta.namespace, start.id)
            _, start.folder = await folders.open_folder(self._store, start.id, new, starting=True)
            start.sum = hashlib.sha1(start.input, usedforsecurity=False).hexdigest()
            stored = await self.storage.write_soon(start.folder, "input", start.input)
            start.input = stub_of(stored)

    async def clean(self, start: runs.Start) -> None:
        """Delete the input of a run that was not started: it was there already, or it is refused.

        What cannot be deleted now is left to the coordinators.
        """
        if self.storage is None or not start.folder:
            return
        partition = self._store.keys.of(start.id)
        try:
            # Judged, not only looked at: a start that is still under way is refused from then on.
            ((folder, code),) = await folders.judge(self._store, partition, [start.folder])
            if code == Code.OK:
                await self.storage.delete_soon(folder)
                await folders.forget(self._store, partition, folder)
        except ResoluteError as error:
            log.debug("deleting the input of %s: %s", start.id, error)


async def _all(work: Iterable[Awaitable[bytes]]) -> list[bytes]:
    """Do it together; the first error is raised when all is done."""
    found: list[bytes] = []
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return found
