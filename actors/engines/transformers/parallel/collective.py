"""The sum over the ranks of an engine: by MPI on the CPU, by NCCL on CUDA."""

from __future__ import annotations

from typing import Any

import torch


class MpiSum:
    """Sums in host memory. At the sizes of a step MPI is many times faster than torch's gloo."""

    def __init__(self, group: Any, *, exact: bool) -> None:
        """`group`: a communicator of mpi4py. `exact`: add in the order of the ranks, however
        many numbers there are. For two ranks any order is exact: a + b is b + a."""
        self._group = group
        self._in_order = exact and group.size > 2

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        # MPI knows no half precision; and sums are better in float32 anyway.
        wide = tensor.contiguous() if tensor.dtype in _KNOWN else tensor.float()
        if self._in_order:
            every = torch.empty((self._group.size, *wide.shape), dtype=wide.dtype)
            self._group.Allgather(wide.numpy(), every.numpy())
            summed = every[0]
            for one in every[1:]:
                summed += one
        else:
            summed = wide
            self._group.Allreduce(_in_place(), summed.numpy())
        return summed.to(tensor.dtype)


class NcclSum:
    """Sums on the devices of the ranks, in a process group of torch.distributed."""

    def __init__(self, rendezvous: str, rank: int, size: int, device: torch.device) -> None:
        """Returns when all ranks have come to the rendezvous."""
        torch.distributed.init_process_group(
            "nccl", init_method=rendezvous, rank=rank, world_size=size, device_id=device
        )

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.contiguous()
        torch.distributed.all_reduce(tensor)
        return tensor


_KNOWN = frozenset({torch.float32, torch.float64})


def _in_place() -> Any:
    from mpi4py import MPI  # noqa: PLC0415 - importing it starts MPI: only where a group exists

    return MPI.IN_PLACE
