"""An engine without a model, for benchmarks, fault runs and capacity planning."""

from actors.engines.simulated.engine import SimulatedEngine
from actors.engines.simulated.options import SimulatedOptions
from actors.engines.simulated.tokens import Vocabulary, expected_token, expected_tokens

__all__ = (
    "SimulatedEngine",
    "SimulatedOptions",
    "Vocabulary",
    "expected_token",
    "expected_tokens",
)
