"""What a topology may say about a TensorRT-LLM engine. Imports nothing of TensorRT-LLM."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0)]
KIND = "tensorrt_llm"
Transfer = Literal["auto", "default", "ucx", "nixl", "mpi", "mooncake"]


class TensorRtLlmOptions(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=KIND,
    forbid_unknown_fields=True,
):  # fmt: skip
    """Options of one engine."""

    model: str = ""
    """A local directory (of Hugging Face, of a checkpoint or of a built engine) or a hub id.
    Empty: what `engine_args` names."""
    engine_args: str | None = None
    """A YAML file of arguments of TensorRT-LLM's `LLM`, as `--engine_args`, `--extra-engine-args`
    and `--extra_llm_api_options` take it, in the spelling of any version. Relative to the
    topology."""
    arguments: dict[str, Any] = {}
    """More of the same, over those of the file; a sub-configuration replaces the file's whole."""
    kv_transfer: Transfer = "auto"
    """How KV blocks go from a context to a generation worker, unless the arguments say; of no
    meaning for an aggregated worker. auto: what the installed version calls its default."""
    cache_events: bool = True
    """Ask for KV cache events, which routing by KV cache lives on, where the version has them."""
    block_tokens: Positive | None = None
    """Tokens of a KV block, where neither arguments nor version tell."""
    vocabulary: Positive | None = None
    """Of the model; None: as its config.json says."""
    eos_token_ids: tuple[int, ...] | None = None
    """The model's end tokens; None: as its files say."""
    max_context_tokens: Positive | None = None
    """Prompt and output together; the arguments' `max_seq_len` and the model bound it too."""
    max_waiting: Positive = 1024
    """Requests accepted beyond the largest batch; one more is refused."""
    handoff_ttl_s: PositiveSeconds = 30.0
    """After this a handoff that nobody fetched is aborted."""
    patience_s: PositiveSeconds = 60.0
    """How long a step may take before a watchdog believes that the engine is stuck."""
    cancel_grace_s: PositiveSeconds = 5.0
    """How long an aborted request may take to say so; then it counts as ended."""
    quiet_s: PositiveSeconds = 2.0
    """How long to wait for the next statistic or cache event before the iteration ends."""
    poll_s: PositiveSeconds = 0.2
    """Between two such iterations."""
    shutdown_s: PositiveSeconds = 20.0
    """How long TensorRT-LLM's own shutdown may take; then it is left to the end of the process."""
