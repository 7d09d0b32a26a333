"""The status of one plain GET, for tests that need no more."""

from __future__ import annotations

import asyncio


async def get(address: tuple[str, int], path: str) -> int:
    """Of a connection of its own."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
