"""From arguments in the spelling of any version to those the installed one takes. Pure.

What moved between versions:

    pytorch_backend_config.*            to the top level (about June 2025)
    enable_overlap_scheduler            to disable_overlap_scheduler, its opposite
    use_cuda_graph, cuda_graph_*        to cuda_graph_config: {...} or null
    kv_cache_dtype                      to kv_cache_config.dtype
    mixed_sampler, autotuner_enabled    to enable_mixed_sampler, enable_autotuner
    cache_transceiver_config            max_num_tokens to max_tokens_in_buffer; backend's case
    _num_postprocess_workers, ...       without the underscore
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from actors.engines.tensorrt_llm.api import Api
from actors.engines.tensorrt_llm.files import BadArguments

EVENT_BUFFER = 16_384
"""Cache events that TensorRT-LLM keeps for its reader; the oldest are dropped beyond it."""
_MPI_VARIABLE = "TRTLLM_USE_MPI_KVCACHE"
_UCX_VARIABLE = "TRTLLM_USE_UCX_KVCACHE"

_SPELLINGS = (
    ("enable_mixed_sampler", "mixed_sampler"),
    ("enable_autotuner", "autotuner_enabled"),
    ("num_postprocess_workers", "_num_postprocess_workers"),
    ("postprocess_tokenizer_dir", "_postprocess_tokenizer_dir"),
)
_GRAPH_KEYS = MappingProxyType(
    {
        "cuda_graph_batch_sizes": "batch_sizes",
        "cuda_graph_max_batch_size": "max_batch_size",
        "cuda_graph_padding_enabled": "enable_padding",
    }
)
_KNOWN_ELSEWHERE = frozenset(
    {
        "attn_backend", "moe_backend", "print_iter_log", "enable_iter_perf_stats",
        "enable_iter_req_stats", "torch_compile_enabled", "torch_compile_fullgraph",
        "torch_compile_inductor_enabled", "torch_compile_piecewise_cuda_graph",
        "torch_compile_enable_userbuffers", "enable_layerwise_nvtx_marker", "load_format",
        "enable_min_latency", "allreduce_strategy", "moe_max_num_tokens", "moe_load_balancer",
        "extra_resource_managers", "enable_trtllm_sampler", "enable_trtllm_decoder",
        "stream_interval", "disable_overlap_scheduler", "cuda_graph_config",
        "enable_mixed_sampler", "enable_autotuner", "num_postprocess_workers",
        "postprocess_tokenizer_dir", "cache_transceiver_config", "sampler_type", "moe_config",
        "moe_cluster_parallel_size", "reasoning_parser", "return_perf_metrics", "env_overrides",
        "perf_metrics_max_requests", "orchestrator_type", "kv_connector_config",
    }
)  # fmt: skip
"""Arguments that some version has: another one leaves them out, and says so."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What this engine wants of TensorRT-LLM where its arguments say nothing."""

    duty: str
    transfer: str
    cache_events: bool


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What the installed version is to be made with."""

    keywords: dict[str, Any]
    """Of `LLM`, without the model."""
    environ: dict[str, str]
    """To be set before it is made."""
    notes: tuple[str, ...]
    """What was left out, for a log."""
    block_tokens: int | None
    events: bool
    """Whether cache events will come."""


def fit(arguments: Mapping[str, Any], api: Api, wishes: Wishes) -> Fitted:
    """The keywords for this version. Raises BadArguments for an argument no version has."""
    wanted = canonical(arguments)
    notes: list[str] = []
    _wish(wanted, api, wishes)
    kv_cache = wanted.pop("kv_cache_config", {})
    environ: dict[str, str] = {}
    if wishes.duty != "aggregated":
        environ = _transfer(wanted, api, wishes)
    keywords: dict[str, Any] = {}
    pytorch: dict[str, Any] = {}
    if wanted.get("cache_transceiver_config") is not None and api.transceiver is not None:
        keywords["cache_transceiver_config"] = _transceiver(
            wanted["cache_transceiver_config"], api, notes
        )
        del wanted["cache_transceiver_config"]
    if isinstance(wanted.get("scheduler_config"), dict) and api.scheduler is not None:
        wanted["scheduler_config"] = api.scheduler(**wanted["scheduler_config"])
    for key, value in wanted.items():
        if value is not None or key == "cuda_graph_config":
            _place(key, value, api, keywords, pytorch, notes)
    if pytorch:
        keywords["pytorch_backend_config"] = api.pytorch(**pytorch)
    if kv_cache and api.kv_cache is not None:
        kept = _kept(kv_cache, api.kv_cache_fields, "kv_cache_config", api, notes)
        keywords["kv_cache_config"] = api.kv_cache(**kept)
    block = kv_cache.get("tokens_per_block", _default(api.kv_cache, "tokens_per_block"))
    reuses = kv_cache.get("enable_block_reuse") is not False
    return Fitted(
        keywords=keywords,
        environ=environ,
        notes=tuple(notes),
        block_tokens=block if isinstance(block, int) else None,
        events=bool(kv_cache.get("event_buffer_max_size")) and reuses,
    )


def canonical(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments in the newest spelling, all at the top level."""
    wanted = dict(arguments)
    old = wanted.pop("pytorch_backend_config", None) or {}
    if not isinstance(old, dict):
        raise BadArguments("pytorch_backend_config: expected a mapping")
    # What is said at the top level is the newer word.
    wanted = {**old, **wanted}
    overlap = wanted.pop("enable_overlap_scheduler", None)
    if overlap is not None:
        wanted.setdefault("disable_overlap_scheduler", not overlap)
    for new, former in _SPELLINGS:
        if former in wanted:
            wanted.setdefault(new, wanted.pop(former))
    _canonical_graphs(wanted)
    for key in ("kv_cache_config", "cache_transceiver_config"):
        value = wanted.get(key)
        if value is None:
            wanted.pop(key, None)
        elif not isinstance(value, dict):
            raise BadArguments(f"{key}: expected a mapping")
        else:
            wanted[key] = dict(value)
    dtype = wanted.pop("kv_cache_dtype", None)
    if dtype is not None:
        wanted.setdefault("kv_cache_config", {}).setdefault("dtype", dtype)
    transceiver = wanted.get("cache_transceiver_config", {})
    if "max_num_tokens" in transceiver:
        transceiver.setdefault("max_tokens_in_buffer", transceiver.pop("max_num_tokens"))
    return wanted


def _canonical_graphs(wanted: dict[str, Any]) -> None:
    use = wanted.pop("use_cuda_graph", None)
    details = {new: wanted.pop(key) for key, new in _GRAPH_KEYS.items() if key in wanted}
    if "cuda_graph_config" not in wanted and (use is not None or details):
        wanted["cuda_graph_config"] = details if use is not False else None


def _wish(wanted: dict[str, Any], api: Api, wishes: Wishes) -> None:
    """Add what this engine lives on: statistics, cache events, token ids in and out."""
    for key in ("enable_iter_perf_stats", "enable_mixed_sampler", "skip_tokenizer_init"):
        if _has(key, api):
            wanted.setdefault(key, True)
    if wishes.duty == "context" and _has("disable_overlap_scheduler", api):
        # It does not support workers that only compute prompts.
        wanted["disable_overlap_scheduler"] = True
    if wishes.cache_events and "event_buffer_max_size" in api.kv_cache_fields:
        kv_cache = wanted.setdefault("kv_cache_config", {})
        kv_cache.setdefault("enable_block_reuse", True)
        kv_cache.setdefault("event_buffer_max_size", EVENT_BUFFER)


def _transfer(wanted: dict[str, Any], api: Api, wishes: Wishes) -> dict[str, str]:
    """Say how KV blocks are transferred: in `wanted`, or in the environment returned."""
    config = wanted.setdefault("cache_transceiver_config", {})
    named = wishes.transfer if wishes.transfer != "auto" else None
    if "backend" in api.transceiver_fields:
        config.setdefault("backend", named or "default")
        return {}
    asked = str(config.pop("backend", None) or named or "default").lower()
    if asked not in {"mpi", "ucx", "default"}:
        raise BadArguments(f"TensorRT-LLM {api.version} cannot transfer KV blocks by {asked}")
    if not config or api.transceiver is None:
        del wanted["cache_transceiver_config"]
    # MPI only when it is said: a worker that comes back is in no MPI program with the others.
    return {_MPI_VARIABLE if asked == "mpi" else _UCX_VARIABLE: "1"}


def _transceiver(config: dict[str, Any], api: Api, notes: list[str]) -> Any:
    config = dict(config)
    if isinstance(config.get("backend"), str):
        written = config["backend"]
        upper = written.upper() in api.transceiver_backends
        config["backend"] = written.upper() if upper else written.lower()
    if "max_tokens_in_buffer" in config and "max_num_tokens" in api.transceiver_fields:
        config["max_num_tokens"] = config.pop("max_tokens_in_buffer")
    return api.transceiver(
        **_kept(config, api.transceiver_fields, "cache_transceiver_config", api, notes)
    )


def _place(
    key: str,
    value: Any,
    api: Api,
    keywords: dict[str, Any],
    pytorch: dict[str, Any],
    notes: list[str],
) -> None:
    """Put one argument where this version has it."""
    for name, written in _spelled(key, value):
        if name in api.llm_fields or not api.llm_fields:
            keywords[name] = written
            return
        if name in api.pytorch_fields:
            pytorch[name] = written
            return
    if key == "cuda_graph_config":
        _place_graphs(value, api, keywords, pytorch, notes)
    elif key in _KNOWN_ELSEWHERE:
        notes.append(f"TensorRT-LLM {api.version} has no {key}: left out")
    else:
        raise BadArguments(f"TensorRT-LLM {api.version} has no argument {key!r}")


def _spelled(key: str, value: Any) -> list[tuple[str, Any]]:
    """An argument in all its spellings, the newest first."""
    spelled = [(key, value)]
    spelled += [(former, value) for new, former in _SPELLINGS if new == key]
    if key == "disable_overlap_scheduler":
        spelled.append(("enable_overlap_scheduler", not value))
    return spelled


def _place_graphs(
    value: Any, api: Api, keywords: dict[str, Any], pytorch: dict[str, Any], notes: list[str]
) -> None:
    target = keywords if "use_cuda_graph" in api.llm_fields else pytorch
    known = api.llm_fields if target is keywords else api.pytorch_fields
    if "use_cuda_graph" not in known:
        notes.append(f"TensorRT-LLM {api.version} has no CUDA graphs: left out")
        return
    target["use_cuda_graph"] = value is not None
    for old, new in _GRAPH_KEYS.items():
        if isinstance(value, dict) and new in value and old in known:
            target[old] = value[new]


def _kept(
    config: Mapping[str, Any], known: frozenset[str], name: str, api: Api, notes: list[str]
) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key in known}
    left = sorted(config.keys() - kept.keys())
    notes += [f"TensorRT-LLM {api.version} has no {name}.{key}: left out" for key in left]
    return {key: value for key, value in kept.items() if value is not None}


def _has(key: str, api: Api) -> bool:
    names = {name for name, _ in _spelled(key, value=True)}
    return bool(names & (api.llm_fields | api.pytorch_fields))


def _default(kind: Any, field: str) -> Any:
    models = getattr(kind, "model_fields", None)
    if isinstance(models, dict) and field in models:
        return models[field].default
    return getattr(kind, field, None)
