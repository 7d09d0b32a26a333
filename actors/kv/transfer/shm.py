"""Pulling from another process's memory on the same host.

The exporter takes no part in it: a puller opens the memfds of pool and offers through
/proc/<pid>/fd (the kernel allows it for the same user), and reads with `pread` straight into its
own pool. Opening by pid is safe only with the start time beside it, checked after opening: a
process that started when the ticket says, and lives now, is the one whose file was opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.kv.transfer.errors import Interrupted, Unreachable, Withdrawn
from actors.kv.transfer.memory import SharedMemory
from actors.kv.transfer.offers import OfferTable, check_claimed, claim, stands
from actors.kv.transfer.ticket import Endpoint, ShmEndpoint
from actors.kv.transfer.transport import Source, Transport, Wanted


class ShmTransport(Transport):
    """Shared memory; nothing runs in the background."""

    def __init__(self, memory: SharedMemory, offers: OfferTable) -> None:
        pid = os.getpid()
        started = process_start_time(pid)
        assert started is not None, "this process is not in /proc"
        self._here = host_identity()
        self._endpoint = ShmEndpoint(self._here, pid, started, memory.fd, offers.fd)

    @property
    def endpoint(self) -> ShmEndpoint:
        return self._endpoint

    def reaches(self, endpoint: Endpoint) -> bool:
        return isinstance(endpoint, ShmEndpoint) and endpoint.host == self._here

    @contextmanager
    def open(self, endpoint: Endpoint, wanted: Wanted) -> Iterator[Source]:
        assert isinstance(endpoint, ShmEndpoint)
        shard = wanted.shard
        with _opened(endpoint, endpoint.offers_fd) as offers:
            if wanted.claim:
                claim(offers, shard.offer, shard.secret)
            else:
                check_claimed(offers, shard.offer, shard.secret)
            with _opened(endpoint, endpoint.blocks_fd) as pool:
                yield _ShmSource(pool, offers, wanted)

    def close(self) -> None:
        """Nothing to do: the memory's owner closes it, and pulls never wait."""


class _ShmSource(Source):
    """Reads with `pread`; a slice of a block by way of the whole of it."""

    def __init__(self, pool: int, offers: int, wanted: Wanted) -> None:
        self._pool = pool
        self._offers = offers
        self._wanted = wanted
        self._blocks = iter(wanted.blocks)
        self._whole = memoryview(bytearray(wanted.shape.block_bytes))

    def read(self, view: memoryview) -> None:
        block, (shape, heads) = next(self._blocks), (self._wanted.shape, self._wanted.heads)
        if shape.is_whole(heads):
            self._copy(block, view)
        else:
            self._copy(block, self._whole)
            view[:] = shape.take(self._whole, heads)

    def finish(self) -> None:
        shard = self._wanted.shard
        if not stands(self._offers, shard.offer, shard.secret):
            raise Withdrawn

    def _copy(self, block: int, view: memoryview) -> None:
        offset = block * len(view)
        done = 0
        while done < len(view):
            read = os.preadv(self._pool, [view[done:]], offset + done)
            if read == 0:
                raise Interrupted(f"block {block} lies outside of the exporter's pool")
            done += read


@contextmanager
def _opened(endpoint: ShmEndpoint, fd: int) -> Iterator[int]:
    """A descriptor of the exporter's file, its own open file description."""
    try:
        opened = os.open(f"/proc/{endpoint.pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unreachable(
            f"process {endpoint.pid}, which holds the KV blocks, cannot be reached: "
            f"{error.strerror}"
        ) from error
    try:
        if process_start_time(endpoint.pid) != endpoint.started:
            raise Unreachable(f"process {endpoint.pid}, which held the KV blocks, has ended")
        yield opened
    finally:
        os.close(opened)


def process_start_time(pid: int) -> int | None:
    """Start of a process in clock ticks after boot (proc(5), stat field 22); None without one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    # The command name in parentheses may hold spaces and parentheses; count behind the last one.
    return int(stat.rpartition(")")[2].split()[19])


def host_identity() -> str:
    """Names this boot of this kernel and this process's pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
