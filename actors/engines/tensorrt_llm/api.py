"""What the installed TensorRT-LLM is, found out by looking at it.

Versions differ in where classes are, which arguments they take and what results carry; release
numbers say little, as containers ship builds between releases. Only one number is looked at: from
major version 1 on `tensorrt_llm.LLM` is the PyTorch one.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from actors.engines.base import EngineFailed

_ARGUMENT_CLASSES = ("TorchLlmArgs", "LlmArgs")
_TENSORRT = frozenset({"tensorrt", "trt"})


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """The classes of one installation, and what each takes."""

    version: str
    llm: Any
    llm_fields: frozenset[str]
    """Keywords of `llm`; empty when it hides them."""
    submit_parameters: frozenset[str]
    sampling: Any
    sampling_fields: frozenset[str]
    disaggregated: Any
    """None where a version cannot hand over."""
    kv_cache: Any
    kv_cache_fields: frozenset[str]
    transceiver: Any
    """None where the environment says how KV blocks are transferred."""
    transceiver_fields: frozenset[str]
    transceiver_backends: frozenset[str]
    """The words it takes; lower case until 1.0, upper case since."""
    scheduler: Any
    pytorch: Any
    """The class of `pytorch_backend_config`, where there is one."""
    pytorch_fields: frozenset[str]
    request_errors: tuple[type[Exception], ...]
    """Raised for one request; the engine goes on."""

    @property
    def hands_over(self) -> bool:
        """Whether a prefill here can be continued elsewhere."""
        return self.disaggregated is not None


def find_api(backend: str | None) -> Api:
    """Import TensorRT-LLM and look at it; takes seconds. Raises EngineFailed."""
    try:
        package = importlib.import_module("tensorrt_llm")
    except Exception as error:
        # A missing driver or library raises whatever its loader thinks of.
        raise EngineFailed(
            f"TensorRT-LLM cannot be imported here ({type(error).__name__}: {error}); "
            "`supervise doctor` tells more"
        ) from error
    version = str(getattr(package, "__version__", "0"))
    llm = _llm(package, version, backend)
    sampling = _find("SamplingParams", "tensorrt_llm", "tensorrt_llm.llmapi")
    if llm is None or sampling is None:
        raise EngineFailed(f"TensorRT-LLM {version} has no LLM API that this engine knows")
    kv_cache = _find("KvCacheConfig", "tensorrt_llm.llmapi", "tensorrt_llm.llmapi.llm_args")
    transceiver = _find(
        "CacheTransceiverConfig", "tensorrt_llm.llmapi.llm_args", "tensorrt_llm.llmapi"
    )
    pytorch = _find("PyTorchConfig", "tensorrt_llm._torch.pyexecutor.config")
    request_error = _find("RequestError", "tensorrt_llm.executor.utils", "tensorrt_llm.executor")
    submit = frozenset(inspect.signature(llm.generate_async).parameters)
    disaggregated = _find(
        "DisaggregatedParams", "tensorrt_llm.disaggregated_params", "tensorrt_llm.llmapi"
    )
    return Api(
        version=version,
        llm=llm,
        llm_fields=_llm_fields(llm),
        submit_parameters=submit,
        sampling=sampling,
        sampling_fields=fields_of(sampling),
        disaggregated=disaggregated if "disaggregated_params" in submit else None,
        kv_cache=kv_cache,
        kv_cache_fields=fields_of(kv_cache),
        transceiver=transceiver,
        transceiver_fields=fields_of(transceiver),
        transceiver_backends=frozenset(_words(_annotation(transceiver, "backend"))),
        scheduler=_find("SchedulerConfig", "tensorrt_llm.llmapi"),
        pytorch=pytorch,
        pytorch_fields=fields_of(pytorch),
        request_errors=() if request_error is None else (request_error,),
    )


def fields_of(kind: Any) -> frozenset[str]:
    """The keywords a class is made with: a dataclass, a pydantic model, or a plain class."""
    if kind is None:
        return frozenset()
    if dataclasses.is_dataclass(kind):
        return frozenset(field.name for field in dataclasses.fields(kind) if field.init)
    models = getattr(kind, "model_fields", None)
    if isinstance(models, dict):
        aliases = (getattr(field, "alias", None) for field in models.values())
        return frozenset(models) | frozenset(alias for alias in aliases if alias)
    parameters = inspect.signature(kind).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)


def _annotation(kind: Any, field: str) -> Any:
    models = getattr(kind, "model_fields", None)
    if isinstance(models, dict):
        return getattr(models.get(field), "annotation", None)
    return getattr(kind, "__annotations__", {}).get(field)


def _words(annotation: Any) -> Iterator[str]:
    """The strings of the Literals in a type."""
    for argument in get_args(annotation):
        if isinstance(argument, str):
            yield argument
        else:
            yield from _words(argument)


def _llm(package: Any, version: str, backend: str | None) -> Any:
    modern = version.partition(".")[0] != "0"
    if backend in _TENSORRT:
        return _find("LLM", "tensorrt_llm._tensorrt_engine") if modern else package.LLM
    if modern:
        return getattr(package, "LLM", None)
    return _find("LLM", "tensorrt_llm._torch") or getattr(package, "LLM", None)


def _llm_fields(llm: Any) -> frozenset[str]:
    """Those of the constructor itself, and of the class its other keywords make."""
    parameters = inspect.signature(llm.__init__).parameters.values()
    named = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
    for name in _ARGUMENT_CLASSES:
        found = _find(name, "tensorrt_llm.llmapi.llm_args", "tensorrt_llm.llmapi.llm_utils")
        if found is not None:
            return fields_of(found) | named
    return frozenset()


def _find(name: str, *modules: str) -> Any:
    """The first of these modules that has it; None when none does."""
    for module in modules:
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            continue
        if found is not None:
            return found
    return None
