"""What a disaggregated configuration says of routing, in the options of the router."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor.topology import TopologyError, read_text, render
from tests.supervisor.topology.files import NO_ENVIRON

KV = "context_servers: {router: {type: KV_cache_aware, max_batch_size: 8}}\n"
LOCAL = "conditional_disagg_config: {max_local_prefill_length: 64}\n"
ENTRY = "  - disaggregated_config: config.yaml\n"
ROUTER = "  - actor: router\n"


def options(directory: Path, config: str, children: str = ROUTER + ENTRY) -> list[dict[str, Any]]:
    """Of every router, in order."""
    (directory / "config.yaml").write_text(config)
    text = f"children:\n{children}"
    reading = read_text(text, directory / "x.yaml", environ=NO_ENVIRON)
    actors = [actor for node in reading.topology.nodes() for actor in node.actors]
    return [dict(actor.options) for actor in actors if actor.role.startswith("router")]


def mistake(directory: Path, config: str, children: str = ROUTER + ENTRY) -> str:
    with pytest.raises(TopologyError) as raised:
        options(directory, config, children)
    return render(raised.value).replace(str(directory), "")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("round_robin", "round_robin"),
        ("load_balancing", "least_loaded"),
        ("kv_cache_aware", "kv"),
        ("conversation", "kv"),
    ],
)
def test_a_section_s_router_is_our_strategy(tmp_path: Path, theirs: str, ours: str) -> None:
    config = f"context_servers: {{}}\ngeneration_servers: {{router: {{type: {theirs}}}}}\n"

    assert options(tmp_path, config) == [{"strategy": ours}]


def test_prompts_that_are_prefilled_locally_there_are_so_here(tmp_path: Path) -> None:
    assert options(tmp_path, KV + LOCAL) == [
        {"strategy": "kv", "conditional": {"uncached_tokens": 64}}
    ]


def test_a_file_that_says_nothing_of_routing_sets_nothing(tmp_path: Path) -> None:
    assert options(tmp_path, "context_servers: {}") == [{}]


def test_routers_anywhere_in_the_tree_follow_the_file(tmp_path: Path) -> None:
    children = (
        "  - name: inner\n    children:\n"
        "    - {name: both, actors: [{actor: router}, {actor: preprocessor}]}\n" + ENTRY
    )

    assert options(tmp_path, KV, children) == [{"strategy": "kv"}]


def test_the_topology_goes_before_the_file(tmp_path: Path) -> None:
    router = (
        "  - {actor: router, options: {strategy: random, conditional: {uncached_share: 0.5}}}\n"
    )

    assert options(tmp_path, KV + LOCAL, router + ENTRY) == [
        {"strategy": "random", "conditional": {"uncached_tokens": 64, "uncached_share": 0.5}}
    ]
    router = "  - {actor: router, options: {conditional: {uncached_tokens: 1}}}\n"
    assert options(tmp_path, KV + LOCAL, router + ENTRY) == [
        {"strategy": "kv", "conditional": {"uncached_tokens": 1}}
    ]


def test_sections_that_want_different_routers_clash_unless_the_topology_decides(
    tmp_path: Path,
) -> None:
    config = KV + "generation_servers: {router: {type: round_robin}}\n"

    said = mistake(tmp_path, config)

    assert "x.yaml:3:27: children[1].disaggregated_config: expected one way of routing" in said
    assert "KV_cache_aware for context_servers in config.yaml" in said
    assert "say `strategy` in the router's options" in said
    router = "  - {actor: router, options: {strategy: prefix}}\n"
    assert options(tmp_path, config, router + ENTRY) == [{"strategy": "prefix"}]


def test_a_router_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    said = mistake(tmp_path, "context_servers: {router: {type: astrology}}")

    assert "expected one of round_robin, load_balancing, kv_cache_aware, conversation" in said
