"""A whole service on the stand-in of TensorRT-LLM, from TensorRT-LLM's own configuration files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import yaml

from supervisor.topology import check_options, read
from tests.actors.engines.tensorrt_llm.fixtures import STANDIN
from tests.serving.conftest import TOPOLOGIES, Service, serving

pytestmark = pytest.mark.process

MODEL = "test/model"
PROMPT = "The capital of France is the one and only city that"


def _topology(directory: Path) -> Path:
    """The shipped disaggregated topology, on a model that is here, without asking for GPUs."""
    shipped = yaml.safe_load((TOPOLOGIES / "tensorrt_llm" / "disagg.yaml").read_text())
    arguments = yaml.safe_load((TOPOLOGIES / "tensorrt_llm" / "llm_api_config.yaml").read_text())
    arguments |= {"model_name": MODEL, "model_path": str(TOPOLOGIES / "models" / "capitals")}
    (directory / "llm_api_config.yaml").write_text(yaml.safe_dump(arguments))
    servers, *_ = shipped["children"]
    servers |= {
        "disaggregated_config": str(TOPOLOGIES / "tensorrt_llm" / "single_node_config.yaml"),
        "gpus": 0,
        "env": {
            "PYTHONPATH": str(STANDIN),
            "TENSORRT_LLM_STANDIN": "1.2",
            "TENSORRT_LLM_STANDIN_WORLD": str(directory),
        },
    }
    path = directory / "disagg.yaml"
    path.write_text(yaml.safe_dump(shipped))
    return path


def _ask(service: Service, count: int) -> str:
    answer = service.client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=count, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == count
    return answer.choices[0].text


def test_the_example_s_files_serve_and_a_killed_worker_comes_back_cold(tmp_path: Path) -> None:
    with serving(tmp_path, str(_topology(tmp_path))) as service:
        assert [model.id for model in service.client.models.list()] == [MODEL]
        before = _ask(service, 20)

        stream = service.client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=200, temperature=0, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        pieces = [next(stream).choices[0].text]
        service.live.kill("generation/0")
        pieces += [chunk.choices[0].text for chunk in stream if chunk.choices]

        service.live.until("child_ready", child="generation/0")
        assert "".join(pieces).startswith(before)
        assert "".join(pieces) == _ask(service, 200)


@pytest.mark.parametrize("name", ["aggregated", "disagg", "kv_routing"])
def test_each_shipped_topology_is_accepted(name: str) -> None:
    reading = read(TOPOLOGIES / "tensorrt_llm" / f"{name}.yaml", environ=os.environ)

    asyncio.run(check_options(reading))

    workers = {
        "aggregated": ["aggregated/0"],
        "disagg": ["context/0", "generation/0"],
        "kv_routing": [*(f"context/{n}" for n in range(4)), "generation/0"],
    }
    names = [instance.name for instance in reading.topology.node_instances()]
    assert names == [*workers[name], "router/0", "preprocessor/0", "ingress/0"]
