"""The stages of a request's life, as every role names them in metrics and traces."""

from __future__ import annotations

from actors.runtime.metrics import FRACTIONS_OF_A_SECOND, SECONDS, Histogram, Metrics
from actors.runtime.metrics.registry import Series

ASSIGN = "assign"
"""Ingress: from submitting to knowing the workers. Holds the two that follow, and the way."""
PREPROCESS = "preprocess"
"""Preprocessor: from taking the request to sending it on, a wait for a thread included."""
ROUTE = "route"
"""Router: waiting for room, and choosing."""
PREFILL = "prefill"
"""Worker: from taking the request to its first token, the engine's queue included."""
HANDOFF = "handoff"
"""Generation worker: from being told to having the KV blocks, a wait for room included."""
DECODE = "decode"
"""Worker: from a sequence's first output here to its end."""
FIRST_TOKEN = "first_token"  # noqa: S105 - no secret
"""Ingress: from knowing the workers to the first token."""

BOUNDS = tuple(sorted({*FRACTIONS_OF_A_SECOND, *SECONDS}))


def stages(metrics: Metrics) -> Series[Histogram]:
    """`understudy_stage_seconds`, one series a stage."""
    return metrics.histogram(
        "understudy_stage_seconds",
        "Time a request spends in a stage of its life: assign, preprocess, route, first_token, "
        "prefill, handoff, decode.",
        ("stage",),
        BOUNDS,
    )
