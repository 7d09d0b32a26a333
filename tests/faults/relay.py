"""A TCP relay between a service and one of its servers, that can cut single processes off.

It stands for the network: a connection of a process that is cut off stays, and nothing of it gets
through in either direction until it is healed; a new one is accepted and gets nowhere, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

PIECE_BYTES = 65536


class Relay:
    """Listens on a port of its own from `start` to `stop`."""

    def __init__(self, host: str, port: int) -> None:
        """Where what comes in is passed on to."""
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._cut: dict[int, set[int]] = {}
        """Processes that are cut off, and the ports at their ends."""
        self._changed = asyncio.Condition()
        self._lines: set[asyncio.Task[None]] = set()
        self.held = 0
        """Pieces that had to wait."""

    @property
    def port(self) -> int:
        assert self._server is not None, "start comes first"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None, "start comes first"
        self._server.close()
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def cut(self, *pids: int) -> None:
        """Let nothing of these processes through."""
        async with self._changed:
            self._cut |= {pid: ports_of(pid) for pid in pids}

    async def heal(self, *pids: int) -> None:
        """Let these through again, and what they and their server have said meanwhile."""
        async with self._changed:
            for pid in pids:
                self._cut.pop(pid, None)
            self._changed.notify_all()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in one"
        self._lines.add(task)
        try:
            peer: int = writer.get_extra_info("peername")[1]
            self._cut = {pid: ports_of(pid) for pid in self._cut}
            with contextlib.suppress(OSError):
                back, forth = await asyncio.open_connection(*self._target)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on(peer, reader, forth))
                    both.create_task(self._pass_on(peer, back, writer))
        except* OSError:
            pass  # one end has gone, and so has the other by now
        finally:
            self._lines.discard(task)
            writer.close()

    async def _pass_on(
        self, peer: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while piece := await reader.read(PIECE_BYTES):
                if self._is_cut(peer):
                    self.held += 1
                    async with self._changed:
                        await self._changed.wait_for(lambda: not self._is_cut(peer))
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()

    def _is_cut(self, peer: int) -> bool:
        return any(peer in ports for ports in self._cut.values())


def ports_of(pid: int) -> set[int]:
    """The local ports of a process's TCP connections; none when it has gone."""
    inodes = set()
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
    ports = set()
    # gRPC uses sockets of IPv6 for addresses of IPv4, too.
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                ports.add(int(fields[1].split(":")[1], 16))
    return ports
