"""A server whose memory is full."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from resolute.store.store import Store


@contextlib.asynccontextmanager
async def full_memory(store: Store) -> AsyncGenerator[None]:
    """Meanwhile the server holds more than it may, and evicts nothing."""
    await store.execute("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        await store.execute("CONFIG", "SET", "maxmemory", 0)
