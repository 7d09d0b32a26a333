"""A stand-in for TensorRT-LLM, which cannot be installed where these tests run.

It has no model, but it keeps the rules that an integration can break, as the real thing does:
results that are changed in place, queues bound to the loop of the first request, iterators that end
when idle and stay ended, questions before the first request that are errors, arguments that only
some versions take. `TENSORRT_LLM_STANDIN` names the generation (see `generations`).
"""

from __future__ import annotations

import os

from .generations import GENERATIONS, install

__version__ = GENERATIONS[os.environ.get("TENSORRT_LLM_STANDIN", "1.2")].version

install(__name__, GENERATIONS[os.environ.get("TENSORRT_LLM_STANDIN", "1.2")])
