"""The storage of a run in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resolute.errors import ConfigurationError, StorageUnavailable
from resolute.model.messages import Entry
from resolute.model.references import Stored, stub_of
from resolute.storage import Storage

if TYPE_CHECKING:
    from resolute.testing.memory import MemoryRun

FOLDER = "flow-tester/run"


class MemoryObjects:
    """What one run has in the storage of its test, which may have none.

    `above` are the runs that it is a child of. They have its folder, as in open_folder.lua.
    """

    def __init__(
        self, storage: Storage | None, fields: dict[str, bytes], above: Sequence[MemoryRun] = ()
    ) -> None:
        self.storage = storage
        self._fields = fields
        self._above = above

    @property
    def most(self) -> int:
        """The bytes that an output may have because there is a storage; 0 without."""
        return self.storage.max_stored if self.storage is not None else 0

    def read(self, stored: Stored) -> bytes:
        if self.storage is None:
            raise StorageUnavailable("this FlowTester has no storage")
        return self.storage.read(stored)

    def keep(self, name: str, data: bytes) -> Stored:
        if self.storage is None:
            raise ConfigurationError("no storage: this FlowTester was told without_storage()")
        self._fields["folder"] = FOLDER.encode()
        for run in self._above:
            if not run.header().status.is_terminal:
                run.fields["folder"] = FOLDER.encode()
        return self.storage.write(FOLDER, name, data)

    def keep_input(self, limit: int) -> None:
        """Have a stub in the hash in place of an input above the limit, as a client has."""
        data = self._fields["input"]
        if len(data) > limit:
            self._fields["sum"] = hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
            self._fields["input"] = stub_of(self.keep("input", data))

    def store(self, entry: Entry, data: bytes) -> Stored:
        return self.keep(f"{entry.seq}.{entry.index}", data)


class EntryData:
    """What a node's function loads and stores by reference; see `references.DataAccess`."""

    def __init__(self, objects: MemoryObjects, entry: Entry) -> None:
        self._objects = objects
        self._entry = entry

    async def load(self, stored: Stored) -> bytes:
        return self._objects.read(stored)

    def load_sync(self, stored: Stored) -> bytes:
        return self._objects.read(stored)

    async def store(self, data: bytes) -> Stored:
        return self._objects.store(self._entry, data)

    def store_sync(self, data: bytes) -> Stored:
        return self._objects.store(self._entry, data)
