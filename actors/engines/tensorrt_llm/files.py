"""The arguments file and the model's own files, read before TensorRT-LLM is.

`llm_api_config.yaml` names the model (`model_name`, `model_path`; later versions `model`) and holds
keyword arguments of `LLM`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import yaml

from actors.engines.tensorrt_llm.options import TensorRtLlmOptions

PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size")
"""Their product is the number of an engine's ranks."""
_NAMES = ("model_name", "model_path", "model")


class BadArguments(ValueError):
    """Arguments that cannot be used, with the reason."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """What `LLM` is to be given, before it is fitted to a version."""

    model: str
    """Where it is loaded from."""
    name: str
    """What the files call it: a public name when there is no other."""
    tokenizer: str | None = None
    keywords: dict[str, Any]

    @property
    def ranks(self) -> int:
        """MPI processes, one a GPU. Raises BadArguments."""
        ranks = 1
        for key in PARALLEL_SIZES:
            size = self.keywords.get(key)
            if size is not None and (not isinstance(size, int) or size < 1):
                raise BadArguments(f"{key}: expected a number from 1 on; found {size!r}")
            ranks *= size or 1
        return ranks


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's files tell; None or empty where they do not."""

    vocabulary: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    max_context_tokens: int | None = None


def read_arguments(options: TensorRtLlmOptions, base_dir: Path) -> Arguments:
    """The arguments of the file with those of the options over them. Raises BadArguments."""
    keywords: dict[str, Any] = {}
    beside = base_dir
    if options.engine_args is not None:
        path = base_dir / options.engine_args
        keywords, beside = _read(path), path.parent
    keywords |= options.arguments
    named = {key: keywords.pop(key, None) for key in _NAMES}
    path = named["model_path"]
    if path and not _exists(str(path), beside, base_dir):
        raise BadArguments(f"model_path: {path} does not exist")
    source = options.model or path or named["model"] or named["model_name"]
    if not source:
        where = options.engine_args or "the engine's options"
        raise BadArguments(f"{where}: expected model_name, model_path or model; found none")
    located = _exists(str(source), base_dir, beside)
    tokenizer = keywords.get("tokenizer")
    return Arguments(
        model=str(source) if located is None else str(located),
        name=str(named["model_name"] or named["model"] or options.model or source),
        tokenizer=str(tokenizer) if isinstance(tokenizer, str) else None,
        keywords=keywords,
    )


def read_model_facts(model: str) -> ModelFacts:
    """What the files of a local directory, or of a repository of the hub, tell of the model."""
    config = _read_json(model, "config.json")
    generation = _read_json(model, "generation_config.json")
    # Of a multimodal model, and of an engine that TensorRT-LLM has built.
    inner = config.get("text_config") or config.get("pretrained_config") or {}
    build = config.get("build_config") or {}
    context = (
        build.get("max_seq_len")
        or config.get("max_position_embeddings")
        or inner.get("max_position_embeddings")
    )
    return ModelFacts(
        vocabulary=config.get("vocab_size") or inner.get("vocab_size"),
        eos_token_ids=next(
            (ends for where in (generation, config, inner) if (ends := _ends(where))), ()
        ),
        max_context_tokens=context,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadArguments(f"engine_args: {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadArguments(f"engine_args: {path}: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise BadArguments(f"engine_args: {path}: expected a mapping of arguments")
    return data


def _exists(named: str, *bases: Path) -> Path | None:
    return next((path.resolve() for base in bases if (path := base / named).is_dir()), None)


def _read_json(model: str, name: str) -> dict[str, Any]:
    directory = Path(model)
    path = directory / name
    if not directory.is_dir():
        found = _download(model, name)
        if found is None:
            return {}  # no such file, no such model, no network: TensorRT-LLM will say it better
        path = found
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _download(model: str, name: str) -> Path | None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - local models do without
    from huggingface_hub.errors import (  # noqa: PLC0415
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(hf_hub_download(model, name))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None


def _ends(config: dict[str, Any]) -> tuple[int, ...]:
    match config.get("eos_token_id"):
        case int(token):
            return (token,)
        case [*tokens]:
            return tuple(int(token) for token in tokens)
    return ()
