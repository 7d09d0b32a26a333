"""Aliases in real processes: added, used and removed while the official client asks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import openai
import pytest

from tests.serving.conftest import TOPOLOGIES, Service, serving
from tests.supervisor.live import supervise

pytestmark = pytest.mark.process

TOPOLOGY = """\
namespace: named
supervision: {{intensity: 100, period: 60s}}
children:
  - name: aggregated
    actor: aggregated
    options: {{model: simulated, engine: {{kind: simulated, tokenizer: {tokenizer}, speedup: 10}}}}
  - actor: router
  - actor: preprocessor
  - actor: ingress
"""
PATIENCE_S = 60.0


def models(service: Service, *words: str) -> str:
    """Run the command; what it prints."""
    done = supervise(service.live.base, "models", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def complete(service: Service, model: str, count: int = 4) -> str:
    answer = service.client.completions.create(
        model=model, prompt="hello", max_tokens=count, seed=5
    )
    assert answer.model == model
    return answer.choices[0].text


def await_alias(service: Service, model: str, *, there: bool) -> None:
    """Return when an ingress that may be starting, or is just being told, has it so."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            complete(service, model, 1)
        except openai.NotFoundError:
            if not there:
                return
        except (openai.InternalServerError, openai.APIConnectionError):
            pass  # the ingress is away, or has not heard of the others yet
        else:
            if there:
                return
    pytest.fail(f"{model} should be {'there' if there else 'gone'}")


def test_an_alias_comes_and_goes_while_serving_and_outlives_every_process(tmp_path: Path) -> None:
    path = tmp_path / "named.yaml"
    path.write_text(TOPOLOGY.format(tokenizer=TOPOLOGIES / "models" / "capitals"))
    with serving(tmp_path, str(path)) as service:
        with pytest.raises(openai.NotFoundError):
            complete(service, "org/alias")
        models(service, "add", "completion", "org/alias", "simulated")
        await_alias(service, "org/alias", there=True)
        assert complete(service, "org/alias") == complete(service, "simulated")
        with pytest.raises(openai.NotFoundError, match="/v1/completions"):
            service.client.chat.completions.create(
                model="org/alias", messages=[{"role": "user", "content": "hello"}]
            )
        assert [model.id for model in service.client.models.list()] == ["org/alias", "simulated"]
        listed = json.loads(models(service, "list", "--json"))
        assert [(one["name"], one["kinds"], one["target"]) for one in listed] == [
            ("org/alias", ["completion"], "simulated"),
            ("simulated", ["chat", "completion"], None),
        ]

        service.live.kill("ingress/0")
        service.live.until("child_ready", child="ingress/0")
        await_alias(service, "org/alias", there=True)

        stream = service.client.completions.create(
            model="org/alias", prompt="hello", max_tokens=300, seed=5, stream=True
        )
        text = next(stream).choices[0].text
        models(service, "remove", "completion", "org/alias")
        await_alias(service, "org/alias", there=False)
        text += "".join(chunk.choices[0].text for chunk in stream)
        assert text == complete(service, "simulated", 300)
        models(service, "add", "completion", "kept", "simulated")

    with serving(tmp_path, str(path)) as service:
        await_alias(service, "kept", there=True)
