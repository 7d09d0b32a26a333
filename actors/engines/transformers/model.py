"""Loading a checkpoint, and making sure that this engine can run it truthfully."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils.logging import disable_progress_bar

from actors.engines.base import EngineFailed
from actors.engines.transformers import attention
from actors.engines.transformers.options import TransformersOptions
from actors.engines.transformers.pool import allocate, block_bytes
from actors.engines.transformers.runner import Runner
from actors.engines.transformers.work import Work
from actors.kv.transfer import BlockMemory, Geometry
from actors.text.model_files import TokenizerNotFound, read_model_files

_PROBE_TOKENS = 24


class Loaded(NamedTuple):
    """A model that was shown to work on its pool."""

    runner: Runner
    memory: BlockMemory
    geometry: Geometry
    blocks: int
    max_context_tokens: int
    vocabulary: int
    eos_token_ids: tuple[int, ...]
    tokenizer: Path | None
    """The tokenizer.json that grammars are followed with."""


def load(options: TransformersOptions) -> Loaded:
    """Load the model and allocate its pool. Raises EngineFailed with what is wrong."""
    # A service's log is no place for progress bars.
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    device = torch.device(_device(options.device))
    try:
        config = AutoConfig.from_pretrained(options.model)
        _refuse_unsupported(config)
        model = AutoModelForCausalLM.from_pretrained(
            options.model,
            dtype="auto" if options.dtype == "auto" else getattr(torch, options.dtype),
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, ImportError) as error:
        raise EngineFailed(f"model {options.model!r} cannot be loaded: {error}") from error
    model = model.to(device).eval()
    config = model.config
    geometry = Geometry(
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None)
        or config.hidden_size // config.num_attention_heads,
        dtype=str(model.dtype).removeprefix("torch."),
        block_tokens=options.block_tokens,
    )
    if options.deterministic and (device.type != "cpu" or geometry.dtype != "float32"):
        raise EngineFailed(
            f"deterministic needs float32 on the CPU, not {geometry.dtype} on {device.type}"
        )
    blocks = options.blocks or options.kv_bytes // block_bytes(geometry)
    if blocks < 1:
        raise EngineFailed(
            f"kv_memory {options.kv_memory} holds no block of {block_bytes(geometry)} bytes"
        )
    graphs = options.cuda_graphs and device.type == "cuda"
    pool, memory = allocate(geometry, blocks + graphs, device)
    runner = Runner(model, pool, deterministic=options.deterministic, graphs=graphs)
    _probe(model, runner, geometry, blocks)
    limits = [
        blocks * options.block_tokens,
        getattr(config, "max_position_embeddings", None),
        options.max_context_tokens,
    ]
    return Loaded(
        runner,
        memory,
        geometry,
        blocks,
        min(limit for limit in limits if limit is not None),
        config.vocab_size,
        _eos_token_ids(model),
        _tokenizer(options),
    )


def _device(choice: str) -> str:
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise EngineFailed("device is cuda, but torch sees no CUDA device")
    return choice


def _refuse_unsupported(config: Any) -> None:
    """Refuse what is known not to be full attention over one KV cache; `_probe` finds the rest."""
    name = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise EngineFailed(f"{name} is an encoder-decoder; only decoders are supported")
    if getattr(config, "kv_lora_rank", None):
        raise EngineFailed(f"{name} uses latent attention (MLA), which this engine lacks")
    # Some families carry a window they do not use unless another switch says so.
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise EngineFailed(f"{name} uses sliding-window attention, which this engine lacks")
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        raise EngineFailed(
            f"{name} has layers of kind {', '.join(sorted(kinds))}, not full attention alone"
        )


def _probe(model: Any, runner: Runner, geometry: Geometry, blocks: int) -> None:
    """Compare logits through the pool, in two pieces, with those of the plain model.

    What a configuration does not tell (state-space layers, positions that are not passed on, a
    cache used in another way) shows here, before a request is answered wrongly.
    """
    count = min(_PROBE_TOKENS, blocks * geometry.block_tokens)
    tokens = [(7 * i + 3) % min(model.config.vocab_size, 199) for i in range(count)]
    table = list(range(blocks))[: -(-count // geometry.block_tokens)]
    try:
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=model.device)
            expected = model(input_ids=ids, use_cache=False).logits[0, -1].float()
        if runner.deterministic:
            _use_attention(model, attention.INVARIANT, attention.invariant_attention)
        elif model.device.type == "cuda":
            _use_attention(model, attention.GROUPED, attention.grouped_attention)
        if count > 1:
            runner.run([Work(tokens[: count // 2], 0, table)])
        cut = count // 2
        found = runner.run([Work(tokens[cut:], cut, table)])[0].float()
    except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise EngineFailed(
            f"{model.config.model_type} does not work with a paged KV cache: {error}"
        ) from error
    if runner.cache.updated_layers != set(range(geometry.layers)):
        raise EngineFailed(f"{model.config.model_type} does not keep its state in a KV cache only")
    # Rounding moves logits by a few units in the last place; a wrong mask or position moves them
    # by much of their spread.
    spread = float(expected.max() - expected.min())
    if not float((found - expected).abs().max()) <= 0.05 * spread + 1e-6:
        raise EngineFailed(f"{model.config.model_type} computes wrong logits with a paged KV cache")


def _use_attention(model: Any, name: str, function: Callable[..., Any]) -> None:
    AttentionInterface.register(name, function)
    # Transformers asks for a mask function even where the mask is given ready-made.
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def _tokenizer(options: TransformersOptions) -> Path | None:
    try:
        return read_model_files(options.tokenizer or options.model).tokenizer
    except TokenizerNotFound:
        return None


def _eos_token_ids(model: Any) -> tuple[int, ...]:
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = model.config.eos_token_id
    if found is None:
        return ()
    return (found,) if isinstance(found, int) else tuple(found)
