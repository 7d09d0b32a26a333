"""The other topologies that ship serve the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.conftest import serving

pytestmark = pytest.mark.process


@pytest.mark.parametrize("topology", ["aggregated.yaml", "fused.yaml"])
def test_a_shipped_topology_answers(tmp_path: Path, topology: str) -> None:
    with serving(tmp_path, topology) as service:
        assert service.ask("What is the capital of Chad?") == "The capital of Chad is N'Djamena."


def test_the_simulated_topology_streams_as_many_tokens_as_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, "simulated.yaml") as service:
        stream = service.client.completions.create(
            model="simulated",
            prompt="anything",
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
        usage = [chunk.usage for chunk in stream if chunk.usage is not None]

    assert [one.completion_tokens for one in usage] == [32]
