"""Plans without a file, a port or a process; and all the pairs of them that Hypothesis can think
of."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st
from msgspec.structs import replace

from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.transport.nats import NatsSettings
from supervisor.layout import Layout
from supervisor.plan import Plan, replan
from supervisor.topology import Actor, Child, Node, Supervision, Supervisor, Topology, read_text
from supervisor.tree import SupervisorSpec

HERE = Path("/srv/x.yaml")
LAYOUT = Layout(Path("/var/lib/understudy/x"), {})
EMPTY = read_text("children: [{actor: router}]", HERE, environ={}).topology
NOTHING_YET = Plan(
    namespace="x",
    topology=HERE,
    tree=SupervisorSpec(id="supervisor"),
    nats=NatsSettings(urls=("nats://n:1",)),
    etcd=EtcdSettings(urls=("http://e:1",)),
    ports={},
)


def tree_of(text: str, before: SupervisorSpec | None = None) -> SupervisorSpec:
    """What a file's text is run as; the zygotes are those of `before`, if it is given."""
    return tree_of_topology(read_text(text, HERE, environ={}).topology, before)


def tree_of_topology(topology: Topology, before: SupervisorSpec | None = None) -> SupervisorSpec:
    plan = NOTHING_YET if before is None else replace(NOTHING_YET, tree=before)
    return replan(plan, topology, LAYOUT, {}).tree


@st.composite
def nodes(draw: st.DrawFn, name: str, number: int, *, surging: bool) -> Node:
    """A node of one or two roles; the second may be played by other nodes too."""
    roles = [f"role-{name}", *draw(st.sampled_from([(), ("common",)]))]
    return Node(
        name=name,
        actors=tuple(
            Actor(
                role=role,
                class_path="pkg.mod:Part",
                options={"size": draw(st.integers(0, 1))},
            )
            for role in roles
        ),
        cwd="/srv",
        replicas=draw(st.integers(0, 3)),
        # Two entries may play one role, under numbers of their own.
        first_instance=10 * number,
        drain_s=draw(st.sampled_from([0.0, 5.0])),
        surge=None if surging else draw(st.sampled_from([None, True, False])),
        gpus=None if surging else draw(st.sampled_from([None, 0, 1])),
    )


@st.composite
def topologies(draw: st.DrawFn, *, surging: bool = False) -> Topology:
    """A topology of up to four nodes, some below an inner supervisor.

    `surging`: every node may have a stand-in, and none is below a supervisor that another topology
    might not have: then nothing ever has to go before it is replaced.
    """
    below: dict[str, list[Child]] = {"": [], "team": [], "crew": []}
    places = [""] if surging else ["", "", "team", "crew"]
    for number, name in enumerate("abcd"):
        if draw(st.booleans()):
            node = draw(nodes(name, number, surging=surging))
            below[draw(st.sampled_from(places))].append(node)
    inner = [
        Supervisor(name=name, children=tuple(below[name]))
        for name in ("team", "crew")
        if below[name]
    ]
    return replace(
        EMPTY,
        supervision=Supervision(intensity=draw(st.integers(1, 2))),
        children=(*below[""], *inner),
    )


@st.composite
def changes(draw: st.DrawFn, *, surging: bool = False) -> tuple[SupervisorSpec, SupervisorSpec]:
    """What is run before and after."""
    before = tree_of_topology(draw(topologies(surging=surging)))
    return before, tree_of_topology(draw(topologies(surging=surging)), before)
