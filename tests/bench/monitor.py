"""Counting what clients send, without what scripts call inside."""

from __future__ import annotations

import asyncio
from urllib.parse import urlparse


async def count_commands(url: str, seconds: float) -> int:
    """How many commands the server gets from others within so many seconds."""
    address = urlparse(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"MONITOR\r\n")
    await reader.readline()
    count = 0
    try:
        async with asyncio.timeout(seconds):
            while line := await reader.readline():
                count += b" lua] " not in line
    except TimeoutError:
        pass
    writer.close()
    return count
