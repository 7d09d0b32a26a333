from __future__ import annotations

from pathlib import Path

import msgspec

from supervisor.layout import Layout
from supervisor.plan import PLANE, Plan, Recipe, make_plan
from supervisor.topology.reader import read_text
from supervisor.tree import ChildSpec, Strategy, SupervisorSpec, check

TOPOLOGY = """
namespace: test
supervision: {strategy: rest_for_one, intensity: 3, period: 9s}
children:
  - name: worker
    actor: pkg.mod:Worker
    role: context
    replicas: 2
    first_instance: 4
    env: {COLOUR: blue}
    options: {size: 3}
    drain: 5s
    shutdown: infinity
    backoff: {initial: 1s, max: 2s}
  - name: team
    strategy: one_for_all
    restart: transient
    children:
      - name: pair
        shutdown: brutal_kill
        start_deadline: 0
        actors:
          - {actor: "pkg.mod:A", role: a}
          - {actor: "pkg.mod:B", role: b}
"""


def plan_of(tmp_path: Path, text: str = TOPOLOGY, **environ: str) -> Plan:
    topology = read_text(text, tmp_path / "test.yaml", environ=environ).topology
    layout = Layout(tmp_path / "state", environ)
    layout.create()
    return make_plan(topology, layout, environ)


def node_of(spec: object) -> ChildSpec:
    assert isinstance(spec, ChildSpec)
    return spec


def recipe_of(spec: object) -> Recipe:
    recipe = node_of(spec).data
    assert isinstance(recipe, Recipe)
    return recipe


def test_the_tree_has_the_servers_first_and_can_be_run(tmp_path: Path) -> None:
    root = plan_of(tmp_path).tree

    check(root)
    assert (root.strategy, root.intensity, root.period_s) == (Strategy.REST_FOR_ONE, 3, 9.0)
    assert [child.id for child in root.children] == [PLANE, "worker/4", "worker/5", "team"]
    plane = root.children[0]
    assert isinstance(plane, SupervisorSpec)
    assert [child.id for child in plane.children] == ["zygote/own", "nats", "etcd"]


def test_a_replica_is_a_child_with_its_own_instance_number(tmp_path: Path) -> None:
    recipe = recipe_of(plan_of(tmp_path).tree.children[2])

    assert recipe.node is not None
    [actor] = recipe.node.actors
    assert (recipe.node.name, actor.role, actor.instance) == ("worker/5", "context", 5)
    assert msgspec.json.decode(actor.options) == {"size": 3}


def test_a_node_gets_its_environment_on_top_of_ours(tmp_path: Path) -> None:
    recipe = recipe_of(plan_of(tmp_path, COLOUR="red", SHAPE="round").tree.children[1])

    assert recipe.env["COLOUR"] == "blue"
    assert recipe.env["SHAPE"] == "round"
    assert recipe.env["PYTHONUNBUFFERED"] == "1"


def test_ways_to_stop_are_those_of_the_file(tmp_path: Path) -> None:
    children = plan_of(tmp_path).tree.children
    patient = node_of(children[1])
    team = children[3]
    assert isinstance(team, SupervisorSpec)
    brutal = node_of(team.children[0])

    assert (patient.drain_s, patient.shutdown_s, patient.brutal_kill) == (5.0, None, False)
    assert (brutal.drain_s, brutal.brutal_kill) == (None, True)
    assert (patient.start_deadline_s, brutal.start_deadline_s) == (120.0, None)


def test_the_first_restart_is_immediate_and_later_ones_follow_the_file(tmp_path: Path) -> None:
    backoff = node_of(plan_of(tmp_path).tree.children[1]).backoff

    assert backoff.delay(1, 0.0) == 0.0
    assert [backoff.delay(n, 0.0) for n in (2, 3, 4)] == [1.0, 2.0, 2.0]


def test_an_inner_supervisor_keeps_its_settings(tmp_path: Path) -> None:
    team = plan_of(tmp_path).tree.children[3]

    assert isinstance(team, SupervisorSpec)
    assert (team.strategy, team.restart) == (Strategy.ONE_FOR_ALL, "transient")
    recipe = recipe_of(team.children[0])
    assert recipe.node is not None
    assert [actor.role for actor in recipe.node.actors] == ["a", "b"]


def test_nodes_are_told_where_the_embedded_servers_are(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    recipe = recipe_of(plan.tree.children[1])

    assert recipe.node is not None
    assert recipe.node.nats.urls == (f"nats://127.0.0.1:{plan.ports['nats']}",)
    assert recipe.node.etcd.urls == (f"http://127.0.0.1:{plan.ports['etcd']}",)
    assert recipe.node.nats.token
    assert len(set(plan.ports.values())) == 2


def test_servers_of_one_s_own_are_not_started(tmp_path: Path) -> None:
    text = TOPOLOGY + (
        "nats: {urls: ['tls://n:4222'], user: u, password: p, tls: {ca: ca.pem}}\n"
        "etcd: ['http://e:2379', 'http://f:2379']\n"
    )
    plan = plan_of(tmp_path, text)
    recipe = recipe_of(plan.tree.children[1])

    assert [child.id for child in plan.tree.children] == [PLANE, "worker/4", "worker/5", "team"]
    assert plan.ports == {}
    assert recipe.node is not None
    nats = recipe.node.nats
    assert (nats.urls, nats.user, nats.password) == (("tls://n:4222",), "u", "p")
    assert nats.tls is not None
    assert nats.tls.ca == str(tmp_path / "ca.pem")
    assert recipe.node.etcd.urls == ("http://e:2379", "http://f:2379")


def test_a_port_given_for_an_embedded_server_is_kept(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TOPOLOGY + "nats: {embedded: true, port: 4555}\n")

    assert plan.ports["nats"] == 4555


def test_the_token_is_in_a_private_file_and_in_no_command_line(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    token = plan.nats.token
    assert token is not None

    config = tmp_path / "state" / "nats" / "nats.conf"
    assert token in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o600
    plane = plan.tree.children[0]
    assert isinstance(plane, SupervisorSpec)
    assert not any(token in part for server in plane.children for part in recipe_of(server).argv)
