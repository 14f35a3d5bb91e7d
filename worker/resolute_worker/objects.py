"""What a process puts into the storage and reads from there, in threads."""

from __future__ import annotations

import asyncio
import logging

from resolute.errors import ConfigurationError, ResoluteError, StorageUnavailable
from resolute.model.references import Stored, fill, stub_of
from resolute.status import Code
from resolute.storage import Storage, folder_name
from resolute.store import folders
from resolute.store.connection import backoff
from resolute.store.store import Store
from resolute_worker.jobs import Job, Stop

log = logging.getLogger(__name__)

NO_STORAGE = "it is in the storage, and this worker has none: give it --storage or RESOLUTE_STORAGE"


class Objects:
    """The storage of a worker, which may have none."""

    def __init__(self, store: Store, storage: Storage | None) -> None:
        self._store = store
        self.storage = storage

    @property
    def most(self) -> int:
        """The bytes that an output may have because there is a storage; 0 without."""
        return self.storage.max_stored if self.storage is not None else 0

    def read(self, stored: Stored) -> bytes:
        """An object; it blocks. Raises StorageUnavailable, ObjectMissing, ChecksumMismatch."""
        if self.storage is None:
            raise StorageUnavailable(NO_STORAGE)
        return self.storage.read(stored)

    def whole(self, stub: bytes) -> bytes:
        """The value that a stub stands for; it blocks. Raises what `read` does."""
        return fill(stub, self.read)

    async def read_soon(self, stored: Stored) -> bytes:
        if self.storage is None:
            raise StorageUnavailable(NO_STORAGE)
        return await self.storage.read_soon(stored)

    async def keep(self, job: Job, data: bytes) -> bytes:
        """Put a result into the storage; the stub that stands for it.

        The function has run, so a storage that is away is waited for: no attempt is used up, and
        the function is not called again unless the job is stopped meanwhile.
        """
        failures = 0
        while True:
            try:
                return stub_of(await self.store_soon(job, data))
            except StorageUnavailable as error:
                log.warning("storing the output of %s of run %s, which waits for it: %s",
                            job.bound.plan.name, job.held.entry.flow, error)  # fmt: skip
            failures += 1
            await asyncio.sleep(backoff(failures))
            if job.is_stopped:  # nobody cancels the task of a thread
                raise asyncio.CancelledError

    async def store_soon(self, job: Job, data: bytes) -> Stored:
        """Put data into the folder of a job's run. Raises StorageUnavailable, PayloadTooLarge."""
        if self.storage is None:
            raise ConfigurationError("no storage: give the worker --storage or RESOLUTE_STORAGE")
        entry = job.held.entry
        new = folder_name(self._store.keys.meta.namespace, entry.flow)
        code, folder = await folders.open_folder(self._store, entry.flow, new)
        if code != Code.OK:
            job.request_stop(Stop.LOST)
            raise asyncio.CancelledError
        stored = await self.storage.write_soon(folder, f"{entry.seq}.{entry.index}", data)
        job.stored.append((folder, stored.path))
        return stored

    async def clean(self, job: Job) -> None:
        """Delete what a job stored, if nobody answers for it any more.

        That is so where this process stood still until its run was deleted.
        """
        if self.storage is None:
            return
        try:
            for folder, path in job.stored:
                ((_, code),) = await folders.judge(self._store, job.held.partition, [folder])
                if code == Code.GONE:  # else it goes with the folder
                    await self.storage.delete_soon(path)
        except ResoluteError as error:
            log.warning("deleting what %s of run %s stored: %s",
                        job.bound.plan.name, job.held.entry.flow, error)  # fmt: skip


class JobData:
    """What the function of a job loads and stores by reference; see `references.DataAccess`."""

    def __init__(self, objects: Objects, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self._objects = objects
        self._job = job
        self._loop = loop

    async def load(self, stored: Stored) -> bytes:
        return await self._objects.read_soon(stored)

    def load_sync(self, stored: Stored) -> bytes:
        return self._objects.read(stored)

    async def store(self, data: bytes) -> Stored:
        return await self._objects.store_soon(self._job, data)

    def store_sync(self, data: bytes) -> Stored:
        """From the thread of a plain function."""
        work = self._objects.store_soon(self._job, data)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
