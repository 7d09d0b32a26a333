"""The KV pool: one tensor [blocks, layers, 2, block_tokens, kv_heads, head_dim].

Block-major, so that a block is one contiguous range of bytes for all layers: one slice to export,
one range to receive into. On the CPU it lies in memory that other processes can read; on a GPU it
is device memory, and blocks are staged through the host on their way out and in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from actors.kv.transfer import BlockMemory, Geometry, SharedMemory


def block_bytes(geometry: Geometry) -> int:
    """Size of one block."""
    return geometry.elements * torch_dtype(geometry).itemsize


def torch_dtype(geometry: Geometry) -> torch.dtype:
    """The dtype that the geometry names."""
    dtype = getattr(torch, geometry.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def allocate(
    geometry: Geometry, blocks: int, device: torch.device
) -> tuple[torch.Tensor, BlockMemory]:
    """The pool's tensor, zeros, and the same memory as bytes."""
    shape = (
        blocks,
        geometry.layers,
        2,
        geometry.block_tokens,
        geometry.kv_heads,
        geometry.head_dim,
    )
    dtype = torch_dtype(geometry)
    if device.type == "cpu":
        memory = SharedMemory(blocks, block_bytes(geometry))
        return torch.frombuffer(memory.view, dtype=torch.uint8).view(dtype).view(shape), memory
    tensor = torch.zeros(shape, dtype=dtype, device=device)
    return tensor, DeviceMemory(tensor)


class DeviceMemory:
    """Blocks on an accelerator. Every access copies one block through host memory and waits for
    the device, so what `read` returns is complete and what `write` left is in place."""

    def __init__(self, pool: torch.Tensor) -> None:
        self._bytes = pool.view(pool.shape[0], -1).view(torch.uint8)
        self.block_bytes = self._bytes.shape[1]

    def read(self, block: int) -> memoryview:
        return self._bytes[block].cpu().numpy().data

    @contextmanager
    def write(self, block: int) -> Iterator[memoryview]:
        staged = torch.empty(self.block_bytes, dtype=torch.uint8)
        yield staged.numpy().data
        self._bytes[block].copy_(staged)

    def close(self) -> None:
        """Nothing to do: the device frees the memory with the tensor."""
