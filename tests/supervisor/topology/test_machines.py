from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.topology import Here, NodeError, Overrides, Topology, choose_node, read_text
from supervisor.topology.errors import TopologyError
from supervisor.topology.model import Tls

HEAD = "namespace: x\nnodes: {a: 10.0.0.1, b: 10.0.0.2, c: }\n"
URLS = "nats: nats://n:4222\netcd: http://e:2379\n"
ENGINE = "options: {engine: {kind: transformers, model: m}}"


def read(text: str, here: Here | None = None) -> Topology:
    return read_text(text, Path("x.yaml"), environ={}, overrides=Overrides(here=here)).topology


def part(text: str, node: str) -> Topology:
    return read(text, Here(node=node, address=f"address-of-{node}"))


def ids(topology: Topology) -> list[str]:
    return [instance.name for instance in topology.node_instances()]


def problems(text: str) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        read(text)
    return str(caught.value).splitlines()


# -- which part ----------------------------------------------------------------------------------

TREE = (
    f"{HEAD}{URLS}children:\n"
    "- {actor: context, node: b, replicas: 2}\n"
    "- {actor: generation, node: [b, c], replicas: 5, standby: 1}\n"
    "- {name: inner, node: c, children: [{actor: preprocessor}, {actor: router, node: a}]}\n"
    "- {actor: ingress}\n"
)


def test_every_instance_of_the_whole_is_on_exactly_one_node() -> None:
    parts = {node: ids(part(TREE, node)) for node in ("a", "b", "c")}

    assert parts["a"] == ["router/0", "ingress/0"]
    assert parts["b"] == [
        "context/0", "context/1", "generation/0", "generation/2", "generation/4"
    ]  # fmt: skip
    assert parts["c"] == ["generation/1", "generation/3", "preprocessor/0"]
    assert sorted(name for names in parts.values() for name in names) == sorted(ids(read(TREE)))


def test_an_added_replica_moves_no_other() -> None:
    more = TREE.replace("replicas: 5", "replicas: 6")

    for node in ("b", "c"):
        assert set(ids(part(TREE, node))) <= set(ids(part(more, node)))


def test_a_node_without_a_replica_of_an_entry_has_no_understudy_of_it() -> None:
    one = TREE.replace("replicas: 5", "replicas: 1")
    standing = {
        node: [len(child.understudies()) for child in part(one, node).nodes()]
        for node in ("b", "c")
    }

    assert standing == {"b": [0, 1], "c": [0, 0]}


def test_workers_are_told_the_address_for_kv_transfers_unless_the_file_says_it() -> None:
    said = ENGINE.replace("model: m", "model: m, transfer_host: 1.2.3.4")
    text = f"{HEAD}{URLS}children:\n- {{actor: context, {ENGINE}}}\n"
    text += f"- {{actor: generation, {said}}}\n"

    hosts = [
        actor.options["engine"]["transfer_host"]
        for node in part(text, "a").nodes()
        for actor in node.actors
    ]

    assert hosts == ["address-of-a", "1.2.3.4"]


LABELLED = (
    "namespace: x\nnodes:\n  a: 10.0.0.1\n  b: {labels: [gpu]}\n"
    f"  c: {{address: 10.0.0.3, labels: [gpu, big]}}\n{URLS}children:\n"
    "- {actor: context, node: {label: gpu}, replicas: 3}\n"
    "- {actor: generation, node: {label: [gpu, big]}}\n"
    "- {name: inner, node: {label: big}, children: [{actor: router}, {actor: ingress, node: a}]}\n"
)


def test_an_entry_is_on_the_nodes_with_its_labels_in_the_order_of_the_file() -> None:
    parts = {node: ids(part(LABELLED, node)) for node in ("a", "b", "c")}

    assert parts == {
        "a": ["ingress/0"],
        "b": ["context/0", "context/2"],
        "c": ["context/1", "generation/0", "router/0"],
    }
    assert read(LABELLED).machines == {"a": "10.0.0.1", "b": None, "c": "10.0.0.3"}


EMBEDDED = (
    f"{HEAD}certificates: off\nnats: {{embedded: true, node: b, port: 4001, token: t}}\n"
    "etcd: {embedded: true, node: b, port: 4002, password: p}\n"
    "children: [{actor: router}]\n"
)


def test_a_server_of_one_node_listens_there_and_is_a_url_elsewhere() -> None:
    there, elsewhere = part(EMBEDDED, "b"), part(EMBEDDED, "a")

    assert (there.nats.embedded, there.nats.listen, there.nats.port) == (True, "10.0.0.2", 4001)
    assert (there.etcd.embedded, there.etcd.listen, there.etcd.password) == (
        True, "10.0.0.2", "p",
    )  # fmt: skip
    assert (elsewhere.nats.urls, elsewhere.nats.token) == (("nats://10.0.0.2:4001",), "t")
    assert (elsewhere.etcd.urls, elsewhere.etcd.user, elsewhere.etcd.password) == (
        ("http://10.0.0.2:4002",), "root", "p",
    )  # fmt: skip


def test_with_certificates_servers_and_nodes_show_each_their_own() -> None:
    secured = EMBEDDED.replace("certificates: off", "certificates: held")
    there, elsewhere = part(secured, "b"), part(secured, "a")
    held = f"{Path.cwd()}/held"

    assert there.nats.tls == there.etcd.tls
    assert there.nats.tls == Tls(ca=f"{held}/ca.pem", cert=f"{held}/b.pem", key=f"{held}/b.key")
    assert elsewhere.nats.urls == ("tls://10.0.0.2:4001",)
    assert elsewhere.etcd.urls == ("https://10.0.0.2:4002",)
    assert elsewhere.etcd.tls == Tls(ca=f"{held}/ca.pem", cert=f"{held}/a.pem", key=f"{held}/a.key")


def test_a_server_that_no_node_is_said_for_listens_on_loopback() -> None:
    topology = part("nodes: {a: 10.0.0.1}\nchildren: [{actor: router}]", "a")

    assert topology.nats.embedded
    assert topology.nats.listen is None


# -- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "children:\n- {actor: router, node: a}\n",
            "x.yaml:2:25: children[0].node: expected nodes at the top of the file",
        ),
        (
            f"{HEAD}{URLS}children:\n- {{actor: router, node: [a, bb]}}\n",
            "x.yaml:6:29: children[0].node[1]: expected one of a, b, c; found 'bb'",
        ),
        (
            f"{HEAD}{URLS}children:\n- {{actor: router, node: [a, a]}}\n",
            "x.yaml:6:29: children[0].node[1]: expected every node once; found 'a' again",
        ),
        (
            f"{HEAD}etcd: http://e:2379\nchildren: [{{actor: router}}]\n",
            "x.yaml:2:8: nodes: nats: expected servers that every node can reach",
        ),
        (
            EMBEDDED.replace("node: b, port: 4001, token: t", "node: b, port: 4001"),
            "x.yaml:4:30: nats.node: expected token beside node",
        ),
        (
            EMBEDDED.replace("port: 4002, ", ""),
            "x.yaml:5:30: etcd.node: expected port beside node",
        ),
        (
            EMBEDDED.replace("node: b, port: 4001", "node: c, port: 4001"),
            "x.yaml:4:30: nats.node: expected an address of 'c' in nodes, to listen on; found none",
        ),
        (
            EMBEDDED.replace("certificates: off\n", ""),
            "x.yaml:2:8: nodes: expected certificates at the top of the file, as nodes talk to",
        ),
        (
            LABELLED.replace("{label: gpu}", "{label: cpu}"),
            "x.yaml:9:34: children[0].node.label: expected labels that one of nodes has",
        ),
        (
            LABELLED.replace("labels: [gpu]}", "label: gpu}"),
            "x.yaml:4:7: nodes.b.label: unknown key 'label'; expected one of address, labels",
        ),
        (
            EMBEDDED.replace("10.0.0.1", "'10.0.0.1:80 x'"),
            "x.yaml:2:12: nodes.a: expected a host name or an IP address; found '10.0.0.1:80 x'",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_places(text: str, problem: str) -> None:
    assert [line for line in problems(text) if line.startswith(problem)], problems(text)


# -- which node this is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "environ", "host", "chosen"),
    [
        ("b", {"SLURMD_NODENAME": "a"}, "a", "b"),
        (None, {"SLURMD_NODENAME": "b", "SLURM_NODEID": "0"}, "c", "b"),
        (None, {"SLURMD_NODENAME": "node17", "SLURM_NODEID": "2"}, "a", "c"),
        (None, {}, "b.cluster.local", "b"),
    ],
)
def test_the_node_is_the_said_one_else_slurms_else_this_host(
    said: str | None, environ: dict[str, str], host: str, chosen: str
) -> None:
    assert choose_node(["a", "b", "c"], said, environ, host) == chosen


def test_a_topology_without_nodes_takes_no_notice_of_slurm() -> None:
    assert choose_node([], None, {"SLURM_NODEID": "3"}, "a") is None


@pytest.mark.parametrize(
    ("names", "said", "environ", "message"),
    [
        (["one", "two"], "on", {}, "--node: expected one of one, two; found 'on' (did you"),
        (["a", "b"], None, {}, "say which one this is, --node NAME, one of a, b"),
        (["a", "b"], None, {"SLURM_NODEID": "2"}, "SLURM_NODEID is 2, and the topology has 2"),
        ([], "a", {}, "this one lists none"),
    ],
)  # fmt: skip
def test_an_unclear_node_is_an_error_that_says_what_to_do(
    names: list[str], said: str | None, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(NodeError) as caught:
        choose_node(names, said, environ, "elsewhere")

    assert message in str(caught.value)
