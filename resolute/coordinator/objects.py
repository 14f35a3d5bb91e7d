"""What runs had in the storage is deleted when no run has it any more.

`resolute/store/folders.py` says who answers for a folder, and until when.
"""

from __future__ import annotations

import asyncio
import logging

from resolute.coordinator.surviving import surviving
from resolute.errors import StorageUnavailable
from resolute.status import Code
from resolute.storage import Storage
from resolute.store import folders
from resolute.store.keys import Partition
from resolute.store.store import Store

log = logging.getLogger(__name__)


class Objects:
    """One pass each `period` seconds; a pass goes on while there is more."""

    def __init__(self, store: Store, storage: Storage | None, period: float) -> None:
        self._store = store
        self._storage = storage
        self.period = period
        self._has_told = False

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            await asyncio.sleep(self.period)
            with surviving(log, "objects"):
                await self.run_once()

    async def run_once(self) -> int:
        """Delete the folders that no run has any more; how many."""
        deleted = 0
        for partition in self._store.keys.partitions:
            while due := await folders.due(self._store, partition):
                if self._storage is None:
                    self._tell(len(due), due[0])
                    break
                for folder, code in await folders.judge(self._store, partition, due):
                    if code == Code.OK:
                        deleted += await self._delete(self._storage, partition, folder)
                if len(due) < folders.MOST:
                    break
        return deleted

    async def _delete(self, storage: Storage, partition: Partition, folder: str) -> int:
        """First what is in the storage, then that it was there: whoever comes next finds either."""
        try:
            await storage.delete_soon(folder)
        except StorageUnavailable as error:
            log.warning("the objects in %s stay for now: %s", folder, error)
            return 0
        await folders.forget(self._store, partition, folder)
        return 1

    def _tell(self, count: int, folder: str) -> None:
        if not self._has_told:
            self._has_told = True
            log.warning(
                "%d or more runs had objects in a storage, such as %s, and this coordinator has"
                " none: what they left stays until a coordinator runs with --storage",
                count, folder,
            )  # fmt: skip
