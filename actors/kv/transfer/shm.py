"""Pulling from another process's memory on the same host.

The exporter takes no part in it: a puller opens the memfds of pool and offers through
/proc/<pid>/fd (the kernel allows it for the same user), and reads with `pread` straight into its
own pool. Opening by pid is safe only with the start time beside it, checked after opening: a
process that started when the ticket says, and lives now, is the one whose file was opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from actors.kv.transfer.errors import Interrupted, Unreachable, Withdrawn
from actors.kv.transfer.memory import BlockMemory, SharedMemory
from actors.kv.transfer.offers import OfferTable, claim, stands
from actors.kv.transfer.ticket import Endpoint, ShmEndpoint, Ticket
from actors.kv.transfer.transport import Transport


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

    def pull(
        self,
        ticket: Ticket,
        endpoint: Endpoint,
        skip: int,
        into: BlockMemory,
        blocks: Sequence[int],
    ) -> None:
        assert isinstance(endpoint, ShmEndpoint)
        with _opened(endpoint, endpoint.offers_fd) as offers:
            claim(offers, ticket.offer, ticket.secret)
            with _opened(endpoint, endpoint.blocks_fd) as pool:
                for source, target in zip(ticket.blocks[skip:], blocks, strict=True):
                    _copy(pool, source, into, target)
            if not stands(offers, ticket.offer, ticket.secret):
                raise Withdrawn

    def close(self) -> None:
        """Nothing to do: the memory's owner closes it, and pulls never wait."""


def _copy(pool: int, source: int, into: BlockMemory, target: int) -> None:
    offset = source * into.block_bytes
    with into.write(target) as view:
        done = 0
        while done < into.block_bytes:
            read = os.preadv(pool, [view[done:]], offset + done)
            if read == 0:
                raise Interrupted(f"block {source} lies outside of the exporter's pool")
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
