"""Six generations of the LLM API, as they differ for an integration."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pydantic

from . import executor_core as core
from . import remote, sessions
from .cache import Cache


@dataclass(frozen=True, kw_only=True)
class Generation:
    version: str
    modern: bool
    """`tensorrt_llm.LLM` is the PyTorch one."""
    pydantic_args: bool
    flat: bool
    """PyTorch options stand at the top level."""
    pytorch: tuple[str, ...] = ()
    """Fields of PyTorchConfig."""
    top: tuple[str, ...] = ()
    """Further fields of the arguments."""
    disaggregated: tuple[str, ...] = ()
    transfer: Literal["none", "environment", "lower", "upper"] = "none"
    transceiver: tuple[str, ...] = ()
    kv_cache: tuple[str, ...] = ()
    strict_kv_cache: bool = True
    stats: Literal["private", "public"] = "public"
    events: bool = True
    event_lists: bool = False
    window: bool = False
    cached_tokens: bool = False
    sampling: tuple[str, ...] = ()
    forces_one_token: bool = False
    submit: tuple[str, ...] = ()


_KV = ("enable_block_reuse", "max_tokens", "free_gpu_memory_fraction", "host_cache_size")
_KV_EVENTS = (*_KV, "event_buffer_max_size", "enable_partial_reuse", "copy_on_partial_reuse")
_KV_FLAT = (*_KV_EVENTS, "tokens_per_block", "dtype")
_OLD_PYTORCH = ("enable_overlap_scheduler", "use_cuda_graph", "enable_iter_perf_stats",
                "kv_cache_dtype", "mixed_sampler", "attn_backend")  # fmt: skip
_FLAT = ("disable_overlap_scheduler", "cuda_graph_config", "enable_iter_perf_stats",
         "enable_iter_req_stats", "attn_backend", "stream_interval")  # fmt: skip
_FIRST = ("request_type", "first_gen_tokens", "ctx_request_id", "opaque_state")
_NEWEST = ("disagg_request_id", "ctx_dp_rank", "ctx_info_endpoint", "schedule_style",
           "first_gen_log_probs")  # fmt: skip

GENERATIONS = {
    "0.17": Generation(
        version="0.17.0.post1", modern=False, pydantic_args=False, flat=False,
        pytorch=_OLD_PYTORCH, kv_cache=_KV, strict_kv_cache=False, stats="private", events=False,
        sampling=("return_log_probs",), submit=("queries",),
    ),
    "0.19": Generation(
        version="0.19.0.dev2025031800", modern=False, pydantic_args=False, flat=False,
        pytorch=_OLD_PYTORCH, top=("_mpi_session", "_num_postprocess_workers"),
        disaggregated=_FIRST, transfer="environment", kv_cache=_KV_EVENTS, strict_kv_cache=False,
        event_lists=True, sampling=("return_log_probs",),
        submit=("queries", "kv_cache_retention_config"),
    ),
    "0.21": Generation(
        version="0.21.0rc0", modern=False, pydantic_args=True, flat=False,
        pytorch=("disable_overlap_scheduler", *_OLD_PYTORCH[1:]),
        top=("_mpi_session", "num_postprocess_workers"),
        disaggregated=(*_FIRST, "draft_tokens"), transfer="environment",
        transceiver=("max_num_tokens",), kv_cache=_KV_EVENTS, strict_kv_cache=False,
        sampling=("logprobs",),
    ),
    "1.0": Generation(
        version="1.0.0", modern=True, pydantic_args=True, flat=True,
        top=("_mpi_session", "enable_mixed_sampler", *_FLAT),
        disaggregated=(*_FIRST, "draft_tokens"), transfer="lower",
        transceiver=("backend", "max_tokens_in_buffer"), kv_cache=_KV_FLAT, window=True,
        sampling=("logprobs",),
    ),
    "1.2": Generation(
        version="1.2.0", modern=True, pydantic_args=True, flat=True,
        top=("_mpi_session", "orchestrator_type", *_FLAT),
        disaggregated=(*_FIRST, "draft_tokens", "multimodal_embedding_handles"), transfer="upper",
        transceiver=("backend", "max_tokens_in_buffer", "kv_transfer_timeout_ms"),
        kv_cache=(*_KV_FLAT, "max_gpu_total_bytes"), window=True, cached_tokens=True,
        sampling=("logprobs",), forces_one_token=True,
        submit=("scheduling_params", "cache_salt"),
    ),
    "1.3": Generation(
        version="1.3.0rc3", modern=True, pydantic_args=True, flat=True,
        top=("_mpi_session", "orchestrator_type", *_FLAT),
        disaggregated=(*_FIRST, "draft_tokens", *_NEWEST), transfer="upper",
        transceiver=("backend", "max_tokens_in_buffer", "kv_transfer_timeout_ms",
                     "transceiver_runtime"),
        kv_cache=(*_KV_FLAT, "max_gpu_total_bytes"), window=True, cached_tokens=True,
        sampling=("logprobs",), forces_one_token=True,
        submit=("scheduling_params", "cache_salt", "trace_headers", "priority"),
    ),
}  # fmt: skip
"""By the name `TENSORRT_LLM_STANDIN` has."""

_ARGUMENTS = (
    "dtype", "backend", "max_batch_size", "max_num_tokens", "max_seq_len", "max_input_len",
    "tensor_parallel_size", "pipeline_parallel_size", "moe_expert_parallel_size",
    "enable_attention_dp", "enable_chunked_prefill", "trust_remote_code", "kv_cache_config",
    "scheduler_config", "load_format", "gpus_per_node",
)  # fmt: skip
_BLOCKS = 64
_DEFAULT_BLOCK_TOKENS = 16


class ScheduleStyle(enum.IntEnum):
    CONTEXT_FIRST = 0
    GENERATION_FIRST = 1


@dataclass
class SchedulerConfig:
    capacity_scheduler_policy: str = "GUARANTEED_NO_EVICT"


def install(package: str, generation: Generation) -> None:
    """Fill the package with the modules of a generation."""
    parts = _Parts(generation)
    modules: dict[str, dict[str, Any]] = {
        "": {"SamplingParams": parts.sampling, "LLM": parts.llm if generation.modern else _Trt},
        "llmapi": {"KvCacheConfig": parts.kv_cache, "SchedulerConfig": SchedulerConfig,
                   "SamplingParams": parts.sampling},
        "llmapi.llm_args": {},
        "llmapi.llm_utils": {},
        "executor": {"CppExecutorError": core.CppExecutorError},
        "executor.utils": {"RequestError": core.RequestError},
        "_utils": {"set_mpi_comm": sessions.set_mpi_comm, "mpi_comm": sessions.mpi_comm},
    }  # fmt: skip
    where = "llmapi.llm_args" if generation.pydantic_args else "llmapi.llm_utils"
    modules[where]["LlmArgs"] = parts.arguments
    if not generation.modern:
        modules["_torch"] = {"LLM": parts.llm}
    if generation.pytorch:
        modules["_torch.pyexecutor"] = {}
        modules["_torch.pyexecutor.config"] = {"PyTorchConfig": parts.pytorch}
    if generation.transceiver:
        modules["llmapi.llm_args"]["CacheTransceiverConfig"] = parts.transceiver
    if generation.disaggregated:
        modules["disaggregated_params"] = {"DisaggregatedParams": parts.disaggregated}
        modules["llmapi"]["MpiCommSession"] = sessions.MpiCommSession
    for name, content in modules.items():
        full = f"{package}.{name}" if name else package
        module = sys.modules.setdefault(full, ModuleType(full))
        module.__dict__.update(content)
        if name:
            # Beside what is made here there are programs: `python -m ...mgmn_leader_node`.
            module.__path__ = [str(Path(__file__).parent / name)]
            parent, _, leaf = full.rpartition(".")
            setattr(sys.modules[parent], leaf, module)


class _Trt:
    """The TensorRT-engine LLM of old versions, which is not what anybody here wants."""

    def __init__(self, model: str, **_kwargs: Any) -> None:
        raise RuntimeError(f"building a TensorRT engine of {model} takes an hour")

    def generate_async(self, inputs: Any, sampling_params: Any = None) -> None: ...


class _Parts:
    """The classes of one generation."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.sampling = _sampling(generation)
        self.pytorch = _dataclass("PyTorchConfig", generation.pytorch)
        self.disaggregated = _disaggregated(generation)
        forbid: Literal["forbid", "ignore"] = "forbid" if generation.strict_kv_cache else "ignore"
        self.kv_cache = _model("KvCacheConfig", generation.kv_cache, extra=forbid)
        self.transceiver = _transceiver(generation)
        fields = (*_ARGUMENTS, *generation.top)
        if generation.transceiver:
            fields = (*fields, "cache_transceiver_config")
        make = _model if generation.pydantic_args else _dataclass
        self.arguments = make("LlmArgs", fields)
        self.llm = _llm(self)


def _llm(parts: _Parts) -> type:  # noqa: C901 - a class of one generation, whole
    generation = parts.generation
    signature = _submit_signature(generation)

    class LLM:
        def __init__(
            self,
            model: str,
            tokenizer: Any = None,
            skip_tokenizer_init: bool = False,
            **kwargs: Any,
        ) -> None:
            pytorch = None if generation.flat else kwargs.pop("pytorch_backend_config", None)
            assert pytorch is None or isinstance(pytorch, parts.pytorch)
            if generation.pydantic_args:
                renamed = {key.lstrip("_"): value for key, value in kwargs.items()}
                self.args = parts.arguments(**renamed)
            else:
                self.args = parts.arguments(**kwargs)
            if not os.path.isdir(model):  # noqa: PTH112 - a str, as the real one takes it
                raise RuntimeError(f"{model} is not a model")
            self._skips_tokenizer = skip_tokenizer_init
            self.pytorch = pytorch
            self._settings = _settings(parts, kwargs, pytorch)
            self._settings["team"] = _team(generation, kwargs)
            self._executor = core.Executor(self._settings)
            self.kwargs = kwargs
            made.append(self)

        def generate_async(self, *args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            params, disaggregated = given["sampling_params"], given.get("disaggregated_params")
            params._setup(needs_end=self._skips_tokenizer)
            if getattr(disaggregated, "request_type", None) == "context_only":
                self._check_context(params)
            return self._executor.enqueue(
                list(given["inputs"]),
                params,
                streaming=given["streaming"],
                disaggregated=disaggregated,
            )

        def _check_context(self, params: Any) -> None:
            if generation.forces_one_token:
                params.max_tokens = 1
            elif params.max_tokens != 1:
                raise ValueError("a context phase makes one token")
            if self._settings["overlap"]:
                raise RuntimeError("the overlap scheduler does not support context workers")

        def shutdown(self) -> None:
            self._executor.shutdown()

    LLM.generate_async.__signature__ = signature  # type: ignore[attr-defined]
    _add_measures(LLM, generation)
    return LLM


def _team(
    generation: Generation, kwargs: dict[str, Any]
) -> sessions.Team | remote.RemoteTeam | None:
    session = kwargs.get("_mpi_session")
    size = (kwargs.get("tensor_parallel_size") or 1) * (kwargs.get("pipeline_parallel_size") or 1)
    transfers = _may_transfer(generation, kwargs) and generation.transfer == "environment"
    if session is None:
        # Starting ranks of its own is not played.
        return remote.team(size, transfer=transfers) if size > 1 else None
    if session.n_workers != size:
        raise ValueError(f"the session has {session.n_workers} ranks, the model wants {size}")
    return sessions.Team(session, transfer=transfers)


made: list[Any] = []
"""Every LLM, in order, for tests that look behind the scenes."""


def _add_measures(kind: Any, generation: Generation) -> None:
    def get_stats_async(self: Any, timeout: float = 2) -> Any:
        found = self._executor.stats_result
        if found is None:
            return _Nothing()
        if self.kwargs.get("orchestrator_type") == "rpc":
            return _Listed(found.now(timeout))
        found.timeout = timeout
        return found

    async def _get_stats_async(
        self: Any,
        timeout: float | None = None,  # noqa: ASYNC109 - as the real one
    ) -> str:
        found = self._executor.stats_result
        found.timeout, found.done = timeout or 0.0, False
        async for item in found:
            return json.dumps(item)
        return ""

    def get_kv_cache_events_async(self: Any, timeout: float = 2) -> Any:
        found = self._executor.events_result
        assert found is not None, "KV Event IterationResult is not properly instantiated."
        if self.kwargs.get("orchestrator_type") == "rpc":
            return _Listed(found.now(timeout))
        found.timeout = timeout
        return found

    if generation.stats == "private":
        kind._get_stats_async = _get_stats_async
    else:
        kind.get_stats_async = get_stats_async
    if generation.events:
        kind.get_kv_cache_events_async = get_kv_cache_events_async


class _Listed:
    def __init__(self, items: list[Any]) -> None:
        self._items = items

    async def __aiter__(self) -> Any:
        for item in self._items:
            yield item


class _Nothing(_Listed):
    def __init__(self) -> None:
        super().__init__([])


def _settings(parts: _Parts, kwargs: dict[str, Any], pytorch: Any) -> dict[str, Any]:
    generation = parts.generation
    kv_cache = kwargs.get("kv_cache_config")
    assert kv_cache is None or isinstance(kv_cache, parts.kv_cache)

    def option(name: str, default: Any) -> Any:
        value = getattr(pytorch, name, None) if name in generation.pytorch else kwargs.get(name)
        return default if value is None else value

    if "disable_overlap_scheduler" in (*generation.pytorch, *generation.top):
        overlap = not option("disable_overlap_scheduler", False)
    else:
        overlap = bool(option("enable_overlap_scheduler", False))
    sampler = "mixed_sampler" if "mixed_sampler" in generation.pytorch else "enable_mixed_sampler"
    knows_sampler = sampler in (*generation.pytorch, *generation.top)
    reuse = getattr(kv_cache, "enable_block_reuse", None) is not False
    block = getattr(kv_cache, "tokens_per_block", None) or _DEFAULT_BLOCK_TOKENS
    context = kwargs.get("max_seq_len") or 512
    return {
        "cache": Cache(
            _BLOCKS,
            block,
            reuse=reuse,
            buffer=(getattr(kv_cache, "event_buffer_max_size", None) or 0) if reuse else 0,
            window=context if generation.window else None,
        ),
        "stats": bool(option("enable_iter_perf_stats", False)),
        "samples": bool(option(sampler, False)) if knows_sampler else True,
        "overlap": overlap,
        "event_lists": generation.event_lists,
        "max_batch_size": kwargs.get("max_batch_size") or 2048,
        "context": context,
        "cached_tokens": generation.cached_tokens,
        "plain_logprobs": "return_log_probs" in generation.sampling,
        "transfer": _may_transfer(generation, kwargs),
        "context_params": lambda **found: _context_params(parts, found),
    }


def _may_transfer(generation: Generation, kwargs: dict[str, Any]) -> bool:
    if generation.transfer == "environment":
        switches = ("TRTLLM_USE_MPI_KVCACHE", "TRTLLM_USE_UCX_KVCACHE")
        return any(os.environ.get(switch) == "1" for switch in switches)
    return getattr(kwargs.get("cache_transceiver_config"), "backend", None) is not None


def _context_params(parts: _Parts, found: dict[str, Any]) -> Any:
    if "disagg_request_id" in parts.generation.disaggregated:
        found |= {
            "disagg_request_id": 2**62 + 7,
            "ctx_dp_rank": 0,
            "ctx_info_endpoint": ["tcp://127.0.0.1:1"],
            "schedule_style": ScheduleStyle.CONTEXT_FIRST,
        }
    return parts.disaggregated(request_type="context_only", **found)


def _submit_signature(generation: Generation) -> inspect.Signature:
    names = ["self", "inputs", "sampling_params", "lora_request", "prompt_adapter_request"]
    names += ["streaming", *generation.submit]
    if generation.disaggregated:
        names.append("disaggregated_params")
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty
            if index < 2
            else False
            if name == "streaming"
            else None,
        )
        for index, name in enumerate(names)
    ]
    return inspect.Signature(parameters)


def _sampling(generation: Generation) -> Any:
    common = (
        "end_id", "pad_id", "stop_token_ids", "embedding_bias", "n", "top_k", "top_p", "seed",
        "temperature", "min_tokens", "repetition_penalty", "presence_penalty",
        "frequency_penalty", "min_p", "ignore_eos", "detokenize",
    )  # fmt: skip
    columns: list[Any] = [(name, Any, None) for name in (*common, *generation.sampling)]
    columns.append(("max_tokens", int, 32))
    columns.append(("_used", bool, field(default=False, init=False)))

    def _setup(self: Any, *, needs_end: bool) -> None:
        if self.end_id is None and needs_end:
            raise ValueError("end_id must be given when there is no tokenizer")
        assert not self._used, "SamplingParams are completed in place: use them once"
        self._used = True
        if self.temperature == 0:
            raise ValueError("division by a temperature of zero")
        if self.pad_id is None:
            self.pad_id = self.end_id

    def greedy(self: Any) -> bool:
        return self.top_k in {None, 1} and self.top_p in {None, 0.0}

    def wanted_logprobs(self: Any) -> int:
        return int(getattr(self, "logprobs", 0) or bool(getattr(self, "return_log_probs", 0)))

    namespace = {
        "_setup": _setup,
        "greedy": property(greedy),
        "wanted_logprobs": property(wanted_logprobs),
    }
    return dataclasses.make_dataclass(
        "SamplingParams", columns, namespace=namespace, kw_only=True, slots=True
    )


def _disaggregated(generation: Generation) -> Any:
    def check(self: Any) -> None:
        kinds = {"context_only", "generation_only", "context_and_generation"}
        if self.request_type not in kinds:
            raise ValueError(f"unknown request type {self.request_type}")

    columns: list[Any] = [(name, Any, None) for name in generation.disaggregated]
    return dataclasses.make_dataclass(
        "DisaggregatedParams", columns, kw_only=True, slots=True,
        namespace={"__post_init__": check} if generation.disaggregated else {},
    )  # fmt: skip


def _transceiver(generation: Generation) -> Any:
    words: Any = {
        "lower": Literal["default", "ucx", "nixl", "mpi"],
        "upper": Literal["DEFAULT", "UCX", "NIXL", "MPI", "MOONCAKE"],
    }.get(generation.transfer, Any)
    columns: dict[str, Any] = {
        name: (words | None if name == "backend" else Any, None) for name in generation.transceiver
    }
    config = pydantic.ConfigDict(extra="forbid")
    return pydantic.create_model("CacheTransceiverConfig", __config__=config, **columns)


def _dataclass(name: str, columns: tuple[str, ...]) -> Any:
    return dataclasses.make_dataclass(name, [(column, Any, None) for column in columns])


def _model(
    name: str, columns: tuple[str, ...], *, extra: Literal["forbid", "ignore"] = "forbid"
) -> Any:
    """A pydantic model. A leading underscore is an alias, as it is there."""
    fields: dict[str, Any] = {}
    for column in columns:
        if column.startswith("_"):
            fields[column[1:]] = (Any, pydantic.Field(default=None, alias=column))
        else:
            default = _DEFAULT_BLOCK_TOKENS if column == "tokens_per_block" else None
            fields[column] = (Any, default)
    config = pydantic.ConfigDict(extra=extra, populate_by_name=True)
    return pydantic.create_model(name, __config__=config, **fields)
