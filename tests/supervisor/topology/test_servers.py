"""Workers made of the servers in TensorRT-LLM's disaggregated configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.topology import Node, TopologyError, read_text, render
from tests.supervisor.topology.files import NO_ENVIRON

CONFIG = """\
backend: pytorch
context_servers: {num_instances: 1, max_batch_size: 16}
generation_servers: {num_instances: 2, tensor_parallel_size: 2}
"""


def nodes(directory: Path, entry: str, config: str = CONFIG) -> list[Node]:
    (directory / "config.yaml").write_text(config)
    text = f"children:\n  - disaggregated_config: config.yaml\n{entry}"
    reading = read_text(text, directory / "x.yaml", environ=NO_ENVIRON)
    return list(reading.topology.nodes())


def mistake(directory: Path, entry: str, config: str = CONFIG) -> str:
    with pytest.raises(TopologyError) as raised:
        nodes(directory, entry, config)
    return render(raised.value).replace(str(directory), "")


def test_two_tp2_generation_servers_are_two_workers_with_two_gpus_each(tmp_path: Path) -> None:
    context, generation = nodes(tmp_path, "    start_deadline: 30m\n")

    assert (context.name, context.replicas, context.gpus) == ("context", 1, 1)
    assert (generation.name, generation.replicas, generation.gpus) == ("generation", 2, 2)
    assert context.actors[0].class_path == "actors.worker.actor:ContextWorker"
    assert generation.start_deadline_s == 1800


def test_a_section_s_arguments_are_over_those_of_the_topology(tmp_path: Path) -> None:
    entry = (
        "    options:\n      model: m\n"
        "      engine: {engine_args: a.yaml, arguments: {max_batch_size: 1, dtype: auto}}\n"
    )
    context, generation = nodes(tmp_path, entry)

    assert context.actors[0].options == {
        "model": "m",
        "engine": {
            "kind": "tensorrt_llm",
            "engine_args": "a.yaml",
            "arguments": {"max_batch_size": 16, "dtype": "auto", "backend": "pytorch"},
        },
    }
    arguments = generation.actors[0].options["engine"]["arguments"]
    assert arguments["tensor_parallel_size"] == 2
    assert arguments["max_batch_size"] == 1


def test_another_engine_gets_the_parallel_size_alone(tmp_path: Path) -> None:
    entry = "    options: {engine: {kind: transformers, model: m}}\n"
    context, generation = nodes(tmp_path, entry)

    assert context.actors[0].options["engine"] == {"kind": "transformers", "model": "m"}
    assert generation.actors[0].options["engine"]["tensor_parallel_size"] == 2
    assert generation.gpus is None


def test_a_server_of_both_kinds_is_an_aggregated_worker(tmp_path: Path) -> None:
    both = "context_servers: {urls: ['h:1']}\ngeneration_servers: {urls: ['h:1']}"
    (node,) = nodes(tmp_path, "    name: left\n", both)

    assert (node.name, node.actors[0].role) == ("left-aggregated", "aggregated")


@pytest.mark.parametrize(
    ("entry", "config", "message"),
    [
        ("    replicas: 2\n", CONFIG, "num_instances in the file says how many there are"),
        (
            "    options: {engine: {kind: transformers, model: m}}\n",
            "context_servers: {pipeline_parallel_size: 2}",
            "x.yaml:2:27: children[0].disaggregated_config: expected pipeline and context parallel",
        ),
        ("", "context_servers: {num_instances: x}", "config.yaml:1:34: context_servers.num_inst"),
    ],
)
def test_a_mistake_is_told_in_the_file_that_has_it(
    tmp_path: Path, entry: str, config: str, message: str
) -> None:
    assert message in mistake(tmp_path, entry, config)


def test_a_line_of_another_file_is_not_shown_from_the_topology(tmp_path: Path) -> None:
    assert "disaggregated_config" not in mistake(tmp_path, "", "context_servers: 3")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    text = "children:\n  - disaggregated_config: nowhere.yaml\n"
    with pytest.raises(TopologyError, match=r"nowhere\.yaml: expected a file for disaggregated"):
        read_text(text, tmp_path / "x.yaml", environ=NO_ENVIRON)
