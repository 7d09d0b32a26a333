"""Where blocks live, as bytes. One block is one contiguous range.

`SharedMemory` lies in a memfd: an anonymous file that other processes of the same user can open
through /proc while its owner lives, and that the kernel frees with the last process that uses it.
So nothing is left behind after SIGKILL, which named shared memory cannot say.
"""

from __future__ import annotations

import mmap
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class BlockMemory(Protocol):
    """A pool of equal blocks. The methods may be called from any thread, for blocks that nobody
    else writes meanwhile."""

    @property
    def block_bytes(self) -> int:
        """Size of one block."""

    def read(self, block: int) -> memoryview:
        """The contents of a block in host memory; a copy or the block itself."""

    def write(self, block: int) -> AbstractContextManager[memoryview]:
        """Host memory of a block's size; what is in it on leaving becomes the block."""

    def close(self) -> None:
        """Stop others from reaching the memory; who holds views of it keeps them."""


class SharedMemory:
    """Blocks in a memfd, mapped here and readable by other processes. Zero at first."""

    def __init__(self, blocks: int, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.fd = os.memfd_create("kv-blocks", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, blocks * block_bytes)
        self.view = memoryview(mmap.mmap(self.fd, blocks * block_bytes))

    def read(self, block: int) -> memoryview:
        return self.view[block * self.block_bytes : (block + 1) * self.block_bytes]

    def write(self, block: int) -> AbstractContextManager[memoryview]:
        return nullcontext(self.read(block))

    def close(self) -> None:
        """Stop others from opening the memory. The kernel frees it with the last view of it."""
        os.close(self.fd)
