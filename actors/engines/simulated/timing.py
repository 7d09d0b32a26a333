"""How long a step takes: a formula in place of a GPU.

The default coefficients are those of the mock engine in NVIDIA Dynamo 1.6, fitted there to an
8-billion-parameter model: a prefill costs a constant, a linear and a quadratic part in its new
tokens; a decode step costs more the fuller the KV cache is.
"""

from __future__ import annotations

import math

import msgspec


class Polynomial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`quadratic * x**2 + linear * x + constant`, in milliseconds."""

    quadratic: float
    linear: float
    constant: float

    def __call__(self, x: float) -> float:
        return (self.quadratic * x + self.linear) * x + self.constant


PREFILL_MS = Polynomial(quadratic=4.21e-7, linear=0.0152, constant=16.5)
"""Of the number of prompt tokens computed in the step."""
DECODE_MS = Polynomial(quadratic=-25.7, linear=54.0, constant=5.74)
"""Of the share of KV blocks in use, 0 to 1."""
HANDOFF_MS = Polynomial(quadratic=0.0, linear=0.2, constant=1.0)
"""Of the number of blocks fetched: 2 MiB each at 10 GB/s."""

_DECODE_FLOOR_MS = 1.0


class Timing(msgspec.Struct, frozen=True):
    """The formulas and the factor all of them are divided by."""

    prefill_ms: Polynomial = PREFILL_MS
    decode_ms: Polynomial = DECODE_MS
    handoff_ms: Polynomial = HANDOFF_MS
    speedup: float = 1.0
    """0 and infinity both mean that nothing takes any time."""

    def step_s(self, *, prefill_tokens: int, decoding: int, utilisation: float) -> float:
        """Seconds of one step that computes these prompt tokens and decodes these sequences."""
        total_ms = 0.0
        if prefill_tokens:
            total_ms += max(0.0, self.prefill_ms(prefill_tokens))
        if decoding:
            total_ms += max(_DECODE_FLOOR_MS, self.decode_ms(utilisation))
        return self._scaled_s(total_ms)

    def handoff_s(self, blocks: int) -> float:
        """Seconds until this many KV blocks have arrived."""
        return self._scaled_s(max(0.0, self.handoff_ms(blocks)))

    def _scaled_s(self, duration_ms: float) -> float:
        if self.speedup == 0 or math.isinf(self.speedup):
            return 0.0
        return duration_ms / 1000 / self.speedup
