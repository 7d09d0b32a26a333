"""What a command line changes."""

# ruff: noqa: E501 - a message is compared whole and reads best on one line

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.topology import Node, Supervisor
from tests.supervisor.topology.files import FULL, mistakes, topology

_SMALL = "children: [{actor: router}]"


def node(name: str, *sets: str, text: str = FULL) -> Node:
    return next(node for node in topology(text, *sets).nodes() if node.name == name)


@pytest.mark.parametrize("path", ["children.context.replicas", "children[0].replicas"])
def test_a_path_goes_by_name_or_by_index(path: str) -> None:
    assert node("context", f"{path}=3").replicas == 3


def test_a_name_is_found_at_any_depth_of_the_tree() -> None:
    assert node("generation", "children.generation.drain=5s").drain_s == 5
    assert node("generation", "children.workers.children.generation.drain=5s").drain_s == 5


def test_an_inner_supervisor_is_an_entry_too() -> None:
    workers = topology(FULL, "children.workers.intensity=9").children[2]
    assert isinstance(workers, Supervisor)
    assert workers.supervision.intensity == 9


def test_an_actor_of_a_node_goes_by_its_role() -> None:
    front = node("front", "children.front.actors.ingress.options.port=9000")
    assert front.actors[0].options == {"port": 9000}


def test_a_change_behind_an_anchor_changes_one_place() -> None:
    sets = ("children.context.options.engine.model=m",)
    assert node("context", *sets).actors[0].options["engine"]["model"] == "m"
    assert node("generation", *sets).actors[0].options["engine"]["model"] == "other"


def test_keys_the_file_does_not_have_can_be_set() -> None:
    changed = topology(
        _SMALL, "supervision.intensity=3", "children.router.backoff.max=1m", "nats=a"
    )
    (router,) = changed.nodes()
    assert (changed.supervision.intensity, router.backoff.max_s) == (3, 60.0)
    assert changed.nats.urls == ("nats://a:4222",)


def test_a_value_is_yaml_and_the_last_one_wins() -> None:
    sets = ("children.context.env={A: x, B: '2'}", "children.context.env.A=y=z")
    assert node("context", *sets).env == {"A": "y=z", "B": "2"}


def test_the_port_reaches_every_ingress() -> None:
    text = (
        "children:\n"
        "- {actor: ingress}\n"
        "- {name: s, children: [{name: g, first_instance: 1, actors: [{actor: ingress, options: {port: 1, a: 2}}]}]}\n"
    )  # fmt: skip
    options = [node.actors[0].options for node in topology(text, port=8081).nodes()]
    assert options == [{"port": 8081}, {"port": 8081, "a": 2}]


def test_the_namespace_is_replaced() -> None:
    assert topology(FULL, namespace="other").namespace == "other"


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("children.contex.replicas=2", "--set children.contex.replicas: children.contex: expected one of context, front, workers, generation, sums; found 'contex' (did you mean 'context'?)"),
        ("children[7].replicas=2", "--set children[7].replicas: children[7]: expected an index below 3; found 7"),
        ("children.context.replica=2", "--set children.context.replica: children[0].replica: unknown key 'replica'; expected one of replicas, first_instance, standby, restart, significant, start_deadline, drain, shutdown, backoff, launcher, world, fork, watchdog, max_failures, surge, nice, cpus, memory, gpus, open_files, env, cwd, node, actor, name, role, options (did you mean 'replicas'?)"),
        ("children.context.replicas=two", "--set children.context.replicas: children[0].replicas: expected an integer; found 'two'"),
        ("childen.context.replicas=2", "--set childen.context.replicas: childen: unknown key 'childen'; expected one of namespace, nodes, certificates, nats, etcd, supervision, orphan_timeout, node_timeout, tracing, children (did you mean 'children'?)"),
        ("nats.port=1", "--set nats.port: nats.port: expected a mapping at nats; found 'embedded'"),
        ("supervision[0]=1", "--set supervision[0]: supervision[0]: expected a list at supervision; found a mapping"),
        ("x-engine.model=m", "--set x-engine.model: x-engine.model: expected a path that still matters; x- keys have done their work by now"),
        ("children.context.env=[", "--set children.context.env: expected valid YAML; while parsing a flow node expected the node content, but found '<stream end>'"),
        ("children.context.cwd=${NO}", "--set children.context.cwd: expected environment variable NO, or a default; found it unset"),
        ("namespace", "--set namespace: expected path=value, such as children.context.replicas=2; found no such"),
        ("=3", "--set : expected path=value, such as children.context.replicas=2; found no such"),
        ("a..b=3", "--set a..b: expected path=value, such as children.context.replicas=2; found no such"),
        (".".join("a" * 51) + "=3", f"--set {'.'.join('a' * 51)}: expected path=value, such as children.context.replicas=2; found no such"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_made_is_told(setting: str, line: str) -> None:
    assert mistakes(FULL, setting) == [line]


def test_a_port_needs_an_ingress() -> None:
    assert mistakes(_SMALL, port=1) == [
        "--port: expected an ingress in the topology to give the port to; found none"
    ]


def test_a_value_is_not_shown_before_its_setting_is_understood() -> None:
    (line,) = mistakes(_SMALL, "nats..password=hidden")
    assert "hidden" not in line


@given(st.integers(0, 1024), st.integers(0, 2**53))
def test_what_is_set_is_what_is_read(replicas: int, first: int) -> None:
    context = node(
        "context", f"children.context.replicas={replicas}", f"children[0].first_instance={first}"
    )
    assert (context.replicas, context.first_instance) == (replicas, first)


@given(
    st.lists(st.sampled_from(["children", "context", "front", "actors", "options", "a", "nats", "[0]", "[9]", ".", "x-"]), max_size=6),
    st.text(max_size=6),
)  # fmt: skip
def test_no_setting_makes_the_reader_raise_anything_but_a_topology_error(
    parts: list[str], value: str
) -> None:
    mistakes(FULL, ".".join(parts).replace(".[", "[") + "=" + value)
