"""TensorRT-LLM's disaggregated configuration: what it describes, and which mistakes it can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.topology import TopologyError
from supervisor.topology.disaggregation import (
    Disaggregation,
    read_disaggregation,
    read_disaggregation_text,
)

HERE = Path("/srv/config.yaml")

SINGLE_NODE = """\
hostname: localhost
port: 8080
trust_remote_code: true
backend: pytorch
context_servers:
  num_instances: 1
  max_num_tokens: 10240
  max_batch_size: 16
  enable_chunked_prefill: false
  tensor_parallel_size: 1
  kv_cache_config:
    free_gpu_memory_fraction: 0.85
  pytorch_backend_config:
    enable_overlap_scheduler: false
    use_cuda_graph: false
  urls:
    - "localhost:8001"
generation_servers:
  num_instances: 1
  tensor_parallel_size: 1
  max_num_tokens: 256
  max_batch_size: 256
  kv_cache_config:
    free_gpu_memory_fraction: 0.90
  pytorch_backend_config:
    enable_overlap_scheduler: true
    use_cuda_graph: false
  urls:
    - "localhost:8002"
"""
MULTI_NODE = """\
hostname: localhost
port: 8001
context_servers:
  num_instances: 2
  tensor_parallel_size: 2
  urls: ["node1:8002", "node2:8003"]
generation_servers:
  num_instances: 2
  tensor_parallel_size: 2
  urls: ["node2:8004", "node2:8005"]
"""


def read(text: str) -> Disaggregation:
    return read_disaggregation_text(text, HERE)


def mistakes(text: str) -> list[str]:
    with pytest.raises(TopologyError) as raised:
        read(text)
    return [str(problem).removeprefix("/srv/") for problem in raised.value.problems]


def test_the_single_node_form_is_two_servers_of_one_rank_each() -> None:
    found = read(SINGLE_NODE)
    context, generation = found.servers

    assert (found.hostname, found.port, found.world_size) == ("localhost", 8080, 2)
    assert (context.duty, context.url, context.first_rank) == ("context", "localhost:8001", 0)
    assert (generation.duty, generation.url, generation.first_rank) == (
        "generation",
        "localhost:8002",
        1,
    )
    assert context.arguments == {
        "trust_remote_code": True,
        "backend": "pytorch",
        "max_num_tokens": 10240,
        "max_batch_size": 16,
        "enable_chunked_prefill": False,
        "tensor_parallel_size": 1,
        "kv_cache_config": {"free_gpu_memory_fraction": 0.85},
        "pytorch_backend_config": {"enable_overlap_scheduler": False, "use_cuda_graph": False},
    }
    assert generation.arguments["backend"] == "pytorch"


def test_the_multi_node_form_is_four_servers_on_two_hosts_and_eight_ranks() -> None:
    found = read(MULTI_NODE)

    assert found.world_size == 8
    assert [server.host for server in found.servers] == ["node1", "node2", "node2", "node2"]
    assert [server.first_rank for server in found.servers] == [0, 2, 4, 6]
    assert [server.number for server in found.of("generation")] == [0, 1]


def test_two_tp2_generation_servers_are_two_workers_and_four_executors() -> None:
    found = read("generation_servers: {num_instances: 2, tensor_parallel_size: 2}")

    assert len(found.of("generation")) == 2
    assert found.world_size == 4


def test_a_tp1_context_and_two_tp2_generations_are_five_ranks_led_by_0_1_and_3() -> None:
    found = read(
        "context_servers: {num_instances: 1}\n"
        "generation_servers: {num_instances: 2, tensor_parallel_size: 2}"
    )

    assert found.world_size == 5
    assert [server.first_rank for server in found.servers] == [0, 1, 3]


@pytest.mark.parametrize(
    ("sizes", "ranks"),
    [
        ("tensor_parallel_size: 2, pipeline_parallel_size: 3", 6),
        ("tensor_parallel_size: 2, context_parallel_size: 2", 4),
        ("tensor_parallel_size: 2, moe_expert_parallel_size: 2", 2),
    ],
)
def test_ranks_are_tensor_times_pipeline_times_context_parallel(sizes: str, ranks: int) -> None:
    assert read(f"context_servers: {{{sizes}}}").world_size == ranks


def test_parallel_sizes_of_the_top_level_hold_for_both_sections() -> None:
    found = read("tensor_parallel_size: 2\ncontext_servers: {}\ngeneration_servers: {}")

    assert [server.ranks for server in found.servers] == [2, 2]


def test_conflicting_keys_are_an_error_with_their_line_and_path() -> None:
    text = "backend: pytorch\ncontext_servers:\n  backend: tensorrt\ngeneration_servers: {}\n"

    (mistake,) = mistakes(text)
    assert mistake == (
        "config.yaml:3:12: context_servers.backend: Parameter backend is specified both in the "
        "top-level and in the context_servers section, but with different values"
    )


def test_the_same_value_at_both_levels_is_no_conflict() -> None:
    found = read("backend: pytorch\ncontext_servers: {backend: pytorch}\n")

    assert found.servers[0].arguments["backend"] == "pytorch"


def test_every_mistake_is_told_at_once() -> None:
    text = (
        "port: 80800\n"
        "context_servers:\n"
        "  num_instances: 2\n"
        "  urls: ['localhost:8001']\n"
        "generation_servers:\n"
        "  tensor_parallel_size: 0\n"
    )
    port, urls, size = mistakes(text)
    assert port.startswith("config.yaml:1:7: port: ")
    assert urls.endswith("urls: expected as many urls as num_instances, 2; found 1")
    assert size.startswith("config.yaml:6:25: generation_servers.tensor_parallel_size: expected")


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("[node1]", "urls[0]: expected host:port; found 'node1'"),
        ("['node1:8001', 'node1:8001']", "urls[1]: expected a url of its own"),
        ("['node1:0']", "urls[0]: expected host:port"),
        ("['node1:8001:2']", "urls[0]: expected host:port"),
    ],
)
def test_urls_must_tell_instances_apart(urls: str, message: str) -> None:
    count = urls.count(",") + 1
    (mistake,) = mistakes(f"context_servers: {{num_instances: {count}, urls: {urls}}}")

    assert message in mistake


def test_one_url_in_both_sections_is_one_server_that_does_both() -> None:
    section = "{urls: ['localhost:8001'], tensor_parallel_size: 2}"
    found = read(f"context_servers: {section}\ngeneration_servers: {section}")

    assert [server.duty for server in found.servers] == ["aggregated"]
    assert found.world_size == 2


def test_one_url_in_both_sections_with_different_arguments_is_an_error() -> None:
    (mistake,) = mistakes(
        "context_servers: {urls: ['localhost:8001'], max_batch_size: 1}\n"
        "generation_servers: {urls: ['localhost:8001'], max_batch_size: 2}"
    )

    assert "expected equal arguments for localhost:8001" in mistake


def test_keys_of_later_versions_are_read_or_known() -> None:
    found = read(
        "conditional_disagg_config: {max_local_prefill_length: 64}\n"
        "max_retries: 3\nperf_metrics_max_requests: 100\nschedule_style: context_first\n"
        "context_servers: {router: {type: kv_cache_aware, max_batch_size: 32}}\n"
        "generation_servers: {}\n"
    )

    assert found.max_local_prefill_tokens == 64
    assert found.context_router is not None
    assert (found.context_router.type, found.context_router.arguments) == (
        "kv_cache_aware",
        {"max_batch_size": 32},
    )
    assert found.generation_router is None
    assert found.servers[0].arguments == {}


@pytest.mark.parametrize("text", ["", "hostname: localhost", "[1, 2]", "context_servers: 3"])
def test_a_file_without_servers_is_refused(text: str) -> None:
    assert mistakes(text)


def test_a_cluster_that_registers_itself_is_refused_with_the_reason() -> None:
    (mistake, *_) = mistakes("disagg_cluster: {cluster_uri: 'etcd://x'}\ncontext_servers: {}")

    assert "found disagg_cluster" in mistake
    assert "here etcd does that" in mistake


def test_scalars_are_read_as_tensorrt_llm_reads_them() -> None:
    found = read("context_servers: {trust_remote_code: yes, name: '${HOME}'}")

    assert found.servers[0].arguments == {"trust_remote_code": True, "name": "${HOME}"}


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"no\.yaml: expected a file for disaggregated serving"):
        read_disaggregation(tmp_path / "no.yaml")
