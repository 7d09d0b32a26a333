"""What a topology may say about a Transformers engine. Imports neither torch nor transformers:
options are also checked by processes that never load a model.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+)\s*([KMG]iB|[kMG]B|)")


class TransformersOptions(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="transformers",
    forbid_unknown_fields=True,
):  # fmt: skip
    """Options of one engine. Constructing or decoding one raises ValueError (msgspec: its
    ValidationError) with a sentence when a value makes no sense."""

    model: str
    """A local directory, or a model id for the hub."""
    tokenizer: str | None = None
    """Directory or hub id of the tokenizer for structured output; the model's when None."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: as the checkpoint says."""
    threads: Positive = 1
    """Torch threads. More than one a worker stalls badly when cores are shared."""
    tensor_parallel_size: Positive = 1
    """Ranks of an MPI program that the model is split over; this process and the next ones. The
    first one is the worker. See `launcher: mpi` of a topology."""
    block_tokens: Positive = 16
    kv_memory: int | str = "256MiB"
    """Bytes of KV cache on each rank; a number with kB, MB, GB, KiB, MiB or GiB may be written."""
    blocks: Positive | None = None
    """Blocks of KV cache, instead of `kv_memory`."""
    max_running: Positive = 64
    """Requests that take part in steps at the same time."""
    max_waiting: Positive = 1024
    """Requests accepted and not yet begun; one more is refused."""
    max_step_tokens: Positive = 512
    """Tokens computed in one step at most: decodes first, prompt chunks with what is left."""
    max_context_tokens: Positive | None = None
    """Prompt and output together; the model's own limit and the pool's size bound it too."""
    deterministic: bool = False
    """Logits are bit-identical whatever else is in the batch and however a prompt was cut, at
    two to three times the cost of a step. CPU, float32, and equal `threads` on all workers."""
    cuda_graphs: bool = True
    """On a CUDA device, record decode steps and replay them: several times the speed for models
    whose kernels are short. Costs some memory, and a moment whenever a new size is recorded."""
    prefix_cache: bool = True
    handoff_ttl_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """After this a handoff that nobody fetched is dropped."""
    transport: Literal["auto", "shm", "tcp"] = "auto"
    """How others may fetch from here; auto: shared memory on one host, and TCP."""
    transfer_host: str = "127.0.0.1"
    """The address that a TCP fetch connects to, and that this engine listens on."""

    def __post_init__(self) -> None:
        parse_bytes(self.kv_memory)
        if self.deterministic and self.device == "cuda":
            raise ValueError("deterministic is made for and measured on the CPU only")
        if self.deterministic and self.dtype in {"bfloat16", "float16"}:
            raise ValueError(f"deterministic needs float32, not {self.dtype}")
        if self.transport == "shm" and self.device == "cuda":
            raise ValueError("a KV pool on a GPU cannot be fetched through shared memory; use tcp")

    @property
    def kv_bytes(self) -> int:
        """`kv_memory` in bytes."""
        return parse_bytes(self.kv_memory)


def parse_bytes(size: int | str) -> int:
    """Bytes from a number or a text such as `256MiB`. Raises ValueError."""
    if isinstance(size, int):
        found, unit = size, ""
    else:
        match = _SIZE.fullmatch(size.strip())
        if match is None:
            raise ValueError(f"not a size: {size!r} (expected bytes, or such as 256MiB)")
        found, unit = int(match[1]), match[2]
    if found <= 0:
        raise ValueError(f"a size must be positive, not {size!r}")
    return found * _UNITS[unit]
