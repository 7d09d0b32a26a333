"""From our way of choosing tokens to TensorRT-LLM's. Pure.

TensorRT-LLM's noise comes from a generator that starts at the request's seed, not from (seed,
position): a sampled stream that is continued after a fault goes on with another, equally valid
sample. Greedy streams are continued exactly.
"""

from __future__ import annotations

from typing import Any

from actors.engines.base import Request, RequestRefused
from actors.engines.tensorrt_llm.api import Api
from actors.messages.sampling import Sampling

_SEEDS = 2**63
_STEP = 0x9E37_79B9_7F4A_7C15
"""Odd, so that every position gets a seed of its own."""
_LOGIT_BIAS = "embedding_bias"


def ends_of(sampling: Sampling, eos_token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens that end a sequence, the model's own first."""
    own = () if sampling.ignore_eos else eos_token_ids
    return (*own, *(token for token in sampling.stop_token_ids if token not in own))


def sampling_arguments(
    request: Request, api: Api, eos_token_ids: tuple[int, ...], vocabulary: int
) -> dict[str, Any]:
    """The keywords of `SamplingParams`, `embedding_bias` as a plain list. Raises RequestRefused
    for what this version cannot do."""
    sampling = request.sampling
    if request.resumed and (sampling.presence_penalty or sampling.frequency_penalty):
        raise RequestRefused(
            "TensorRT-LLM counts only its own output for presence and frequency penalties: "
            "a stream with one cannot be continued truthfully"
        )
    ends = ends_of(sampling, eos_token_ids)
    arguments: dict[str, Any] = {
        "max_tokens": 1 if request.phase == "prefill" else sampling.max_tokens,
        "end_id": eos_token_ids[0] if eos_token_ids else -1,
        "detokenize": False,
    }
    arguments["pad_id"] = arguments["end_id"]
    others = [token for token in ends if token != arguments["end_id"]]
    if others:
        arguments["stop_token_ids"] = others
    if sampling.ignore_eos:
        arguments["ignore_eos"] = True
    arguments |= _choice(request)
    for key, neutral in (
        ("presence_penalty", 0.0),
        ("frequency_penalty", 0.0),
        ("repetition_penalty", 1.0),
    ):
        if getattr(sampling, key) != neutral:
            arguments[key] = getattr(sampling, key)
    shortest = sampling.min_tokens - request.resumed
    if shortest > 0:
        arguments["min_tokens"] = shortest
    if sampling.logit_bias:
        bias = [0.0] * vocabulary
        for token, value in sampling.logit_bias.items():
            bias[token] = value
        arguments[_LOGIT_BIAS] = bias
    arguments |= _logprobs(sampling, api)
    missing = sorted(arguments.keys() - api.sampling_fields)
    if missing:
        raise RequestRefused(f"TensorRT-LLM {api.version} has no {', '.join(missing)}")
    return arguments


def _choice(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    if sampling.greedy:
        # No temperature of 0: it divides by it in some versions.
        return {"top_k": 1}
    before = request.resumed + (1 if request.phase == "decode" else 0)
    arguments = {
        # Both said: without either it takes the most likely token.
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "temperature": sampling.temperature,
        "seed": (sampling.seed + before * _STEP) % _SEEDS,
    }
    if sampling.min_p > 0.0:
        arguments["min_p"] = sampling.min_p
    return arguments


def _logprobs(sampling: Sampling, api: Api) -> dict[str, Any]:
    if sampling.logprobs is None:
        return {}
    if "logprobs" in api.sampling_fields:
        return {"logprobs": max(1, sampling.logprobs)}
    if sampling.logprobs:
        raise RequestRefused(f"TensorRT-LLM {api.version} tells the chosen token's logprob only")
    return {"return_log_probs": True}
