"""What the router knows comes back when it does: in real processes, with SIGKILL."""

from __future__ import annotations

import time
from pathlib import Path

import openai
import pytest

from tests.serving.conftest import TOPOLOGIES, Service, serving

pytestmark = pytest.mark.process

TOPOLOGY = """\
namespace: routed
supervision: {{intensity: 100, period: 60s}}
children:
  - name: aggregated
    actor: aggregated
    replicas: 3
    options: {{model: simulated, engine: {{kind: simulated, tokenizer: {tokenizer}, speedup: 10}}}}
  - actor: router
  - actor: preprocessor
  - actor: ingress
"""
PROMPTS = [
    f"Conversation {number}: " + "the capital of France is Paris. " * 12 for number in range(6)
]
BACK_S = 1.0
PATIENCE_S = 20.0


def ask(service: Service, prompt: str) -> tuple[str, int]:
    """Which worker answered, and how many of the prompt's tokens were really in its cache."""
    while True:
        try:
            raw = service.client.completions.with_raw_response.create(
                model="simulated",
                prompt=prompt,
                max_tokens=2,
                extra_headers={"x-understudy-explain": "1"},
            )
        except (openai.InternalServerError, openai.APIConnectionError):
            continue  # the router is away
        usage = raw.parse().usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        worker = raw.headers["x-understudy-generation"]
        return worker, usage.prompt_tokens_details.cached_tokens or 0


def test_a_killed_router_knows_the_caches_again_within_a_second_of_its_return(
    tmp_path: Path,
) -> None:
    path = tmp_path / "routed.yaml"
    path.write_text(TOPOLOGY.format(tokenizer=TOPOLOGIES / "models" / "capitals"))
    with serving(tmp_path, str(path)) as service:
        homes = [ask(service, prompt)[0] for prompt in PROMPTS]
        assert len(set(homes)) > 1

        service.live.kill("router/0")
        service.live.until("child_ready", child="router/0")
        returned = time.monotonic()

        while True:
            began = time.monotonic()
            answers = [ask(service, prompt) for prompt in PROMPTS]
            if [worker for worker, _ in answers] == homes and all(hit for _, hit in answers):
                break
            assert began - returned < PATIENCE_S
        # A round begun after this time would have found them: the clock is a shared machine's.
        assert began - returned < BACK_S
