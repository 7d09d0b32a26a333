from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from supervisor.layout import Layout
from supervisor.plan import Plan, make_plan
from supervisor.plane import GUARD, PLANE
from supervisor.recipe import Recipe, identities, leaves, part
from supervisor.runstate import RunningChild, RunState, this_process
from supervisor.topology.reader import read_text
from supervisor.tree import ChildSpec, Strategy, SupervisorSpec, check
from supervisor.watchdog import Deadlines

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


def plan_of(
    tmp_path: Path, text: str = TOPOLOGY, *, last: RunState | None = None, **environ: str
) -> Plan:
    topology = read_text(text, tmp_path / "test.yaml", environ=environ).topology
    layout = Layout(tmp_path / "state", environ)
    layout.create()
    return make_plan(topology, layout, environ, last=last)


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
    assert [child.id for child in plane.children] == [
        "supervisor/guard",
        "zygote/own",
        "nats",
        "etcd",
    ]


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


def last_state(plan: Plan, *children: RunningChild) -> RunState:
    return RunState(
        supervisor=this_process("test", Path("test.yaml")),
        ports=plan.ports,
        etcd_peer_port=plan.etcd_peer_port,
        nats_token=plan.nats.token,
        children=children,
    )


def test_the_next_plan_is_the_same_in_all_that_a_process_is_started_with(tmp_path: Path) -> None:
    """Other than the supervisor's own environment, which is another one in each terminal."""
    first = plan_of(tmp_path)

    again = plan_of(tmp_path, last=last_state(first), SHLVL="7")

    assert identities(again.tree) == identities(first.tree)
    assert set(identities(first.tree)) == {GUARD, "nats", "etcd", "worker/4", "worker/5", "pair/0"}


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("size: 3", "size: 4", {"worker/4", "worker/5"}),
        ("COLOUR: blue", "COLOUR: red", {"worker/4", "worker/5"}),
        ("shutdown: brutal_kill", "cwd: elsewhere", {"pair/0"}),
        ("intensity: 3", "intensity: 5", set()),
        ("replicas: 2", "replicas: 1", {"worker/5"}),
    ],
)
def test_a_change_concerns_those_that_are_started_otherwise(
    tmp_path: Path, old: str, new: str, changed: set[str]
) -> None:
    first = plan_of(tmp_path)
    before = identities(first.tree)

    after = identities(plan_of(tmp_path, TOPOLOGY.replace(old, new), last=last_state(first)).tree)

    assert {id_ for id_ in before if before[id_] != after.get(id_)} == changed


def test_a_port_that_somebody_else_has_got_since_is_not_waited_for(tmp_path: Path) -> None:
    first = plan_of(tmp_path)
    with socket.create_server(("127.0.0.1", first.ports["nats"])):
        again = plan_of(tmp_path, last=last_state(first))

    assert again.ports["nats"] != first.ports["nats"]
    assert again.ports["etcd"] == first.ports["etcd"]


def test_the_port_of_a_server_that_still_runs_is_its_own(tmp_path: Path) -> None:
    first = plan_of(tmp_path)
    me = this_process("test", Path("test.yaml"))
    nats = RunningChild(name="nats", pid=me.pid, pid_started=me.pid_started, run=1)
    with socket.create_server(("127.0.0.1", first.ports["nats"])):
        again = plan_of(tmp_path, last=last_state(first, nats))

    assert again.ports["nats"] == first.ports["nats"]


def test_nodes_are_watched_and_left_alone_as_the_file_says(tmp_path: Path) -> None:
    text = TOPOLOGY.replace("drain: 5s", "watchdog: {heartbeat: 9s}") + "orphan_timeout: 5s\n"
    recipe = recipe_of(plan_of(tmp_path, text).tree.children[1])
    off = recipe_of(plan_of(tmp_path, text.replace("{heartbeat: 9s}", "off")).tree.children[1])

    assert recipe.watchdog == Deadlines(heartbeat_s=9.0, progress_s=1.25)
    assert off.watchdog is None
    assert recipe.node is not None
    assert (recipe.node.orphan_timeout_s, recipe.node.heartbeat_s) == (5.0, 0.25)


def test_the_guard_waits_for_the_slowest_node(tmp_path: Path) -> None:
    plane = plan_of(tmp_path, TOPOLOGY.replace("infinity", "7s")).tree.children[0]

    assert isinstance(plane, SupervisorSpec)
    assert recipe_of(plane.children[0]).argv[-2:] == ("60", "12")


def test_an_entry_with_standby_has_understudies_beside_its_replicas(tmp_path: Path) -> None:
    text = TOPOLOGY.replace("    replicas: 2\n", "    replicas: 2\n    standby: 2\n")
    root = plan_of(tmp_path, text).tree

    check(root)
    ids = [child.id for child in root.children]
    assert ids == [
        *(PLANE, "worker/4", "worker/5", "worker/standby/0", "worker/standby/1", "team"),
    ]
    principal, understudy = node_of(root.children[1]), node_of(root.children[4])
    assert (principal.aside, understudy.aside) == (False, True)
    assert (understudy.drain_s, understudy.max_failures) == (None, None)
    assert recipe_of(understudy).node is not None
    assert recipe_of(understudy).argv[-1].endswith("worker.standby.1.json")


def test_an_understudy_is_the_part_of_its_entrys_replicas_and_of_nobody_else(
    tmp_path: Path,
) -> None:
    text = TOPOLOGY.replace("    replicas: 2\n", "    replicas: 2\n    standby: 1\n")
    before = leaves_by_id(plan_of(tmp_path, text))
    after = leaves_by_id(plan_of(tmp_path, text.replace("size: 3", "size: 4")))

    assert {part(before[name]) for name in ("worker/4", "worker/5", "worker/standby/0")} == {
        part(before["worker/4"])
    }
    assert part(before["worker/4"]) not in {part(before["pair/0"]), part(after["worker/4"]), ""}
    assert part(before["supervisor/guard"]) == ""


def leaves_by_id(plan: Plan) -> dict[str, Recipe]:
    return dict(leaves(plan.tree))


RANKS = """
children:
  - name: generation
    actor: generation
    replicas: 2
    WORLD
    options: {engine: {kind: transformers, model: m, tensor_parallel_size: 2}}
  - name: context
    actor: context
    launcher: mpi
    WORLD
    options: {engine: {kind: transformers, model: m}}
"""


def test_a_node_split_over_ranks_is_started_by_an_mpirun_of_its_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RANKS.replace("WORLD", ""))
    recipes = dict(leaves(plan.tree))

    for name, ranks in (("generation/0", 2), ("generation/1", 2), ("context/0", 1)):
        argv = recipes[name].argv
        assert Path(argv[0]).name == "mpirun"
        assert argv[argv.index("-n") + 1] == str(ranks)
        assert argv[-2] == "actors.worker"
        assert Path(argv[-1]).name == f"{name.replace('/', '.')}.json"
        assert (recipes[name].ranks, recipes[name].zygote) == (ranks, None)
    assert not any(name.startswith("world/") for name in recipes)


def test_ranks_of_a_world_have_what_all_its_nodes_have_in_their_environment(tmp_path: Path) -> None:
    both = "world: servers\n    env: {ALIKE: '1', OTHER: '%s'}"
    text = RANKS.replace("WORLD", both % "a", 1).replace("WORLD", both % "b", 1)

    world = dict(leaves(plan_of(tmp_path, text).tree))["world/servers"]

    assert world.env["ALIKE"] == "1"
    assert "OTHER" not in world.env


def test_nodes_of_one_world_share_an_mpirun_contexts_first(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RANKS.replace("WORLD", "world: servers"))
    recipes = dict(leaves(plan.tree))

    argv = recipes["world/servers"].argv
    assert argv[argv.index("-n") + 1] == "5"
    assert argv[-3:] == ("transformers:1", "transformers:2", "transformers:2")
    world = recipes["world/servers"].world
    assert world is not None
    names = ["context.0.json", "generation.0.json", "generation.1.json"]
    assert [Path(member.file).name for member in world.nodes] == names
    assert {recipes[name].zygote for name in ("context/0", "generation/1")} == {"world/servers"}


TENSORRT_LLM = """
children:
  - name: generation
    actor: generation
    MPI
    options: {engine: {kind: tensorrt_llm, engine_args: args.yaml, arguments: {MORE}}}
"""


@pytest.mark.parametrize(
    ("launcher", "more", "ranks"),
    [
        ("", "", None),
        ("launcher: mpi", "", 2),
        ("world: servers", "pipeline_parallel_size: 3", 6),
        ("launcher: mpi", "tensor_parallel_size: 1", 1),
    ],
)
def test_tensorrt_llm_starts_its_own_ranks_unless_mpi_is_asked_for(
    tmp_path: Path, launcher: str, more: str, ranks: int | None
) -> None:
    (tmp_path / "args.yaml").write_text("model_name: m\ntensor_parallel_size: 2\n")
    text = TENSORRT_LLM.replace("MPI", launcher).replace("MORE", more)

    recipes = dict(leaves(plan_of(tmp_path, text).tree))

    assert recipes["generation/0"].ranks == ranks
    if ranks is not None:
        argv = recipes["generation/0"].argv
        assert argv[argv.index("-n") + 1] == str(ranks)
