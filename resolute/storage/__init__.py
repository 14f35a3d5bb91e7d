"""L2, the storage: large values, outside of Redis. The only importer of fsspec."""

from __future__ import annotations

from resolute.storage.storage import DEFAULT_MAX_STORED, Storage, folder_name, storage_of

__all__ = ["DEFAULT_MAX_STORED", "Storage", "folder_name", "storage_of"]
