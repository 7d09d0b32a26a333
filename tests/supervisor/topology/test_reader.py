"""From a file to a topology."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor.topology import (
    AutoShutdown,
    Backoff,
    Node,
    Restart,
    Strategy,
    Supervision,
    Supervisor,
    TopologyError,
    Watchdog,
    read,
)
from supervisor.topology.loading import MAX_FILE_BYTES
from tests.supervisor.topology.files import FULL, HERE, NO_ENVIRON, mistakes, topology

ENGINE = {"kind": "transformers", "model": "models/capitals"}


def test_the_whole_file_is_read() -> None:
    read_one = topology(FULL)
    context, front, workers = read_one.children

    assert (read_one.namespace, read_one.path, read_one.base_dir) == ("capitals", HERE, HERE.parent)
    assert read_one.supervision == Supervision()
    assert isinstance(context, Node)
    assert context.backoff == Backoff(reset_after_s=30.0)
    assert (context.restart, context.shutdown_s, context.max_failures) == (
        Restart.PERMANENT,
        5.0,
        None,
    )
    assert (context.env, context.cwd) == ({"OMP_NUM_THREADS": "1"}, "/srv")
    assert context.actors[0].options == {"engine": ENGINE}
    assert isinstance(front, Node)
    assert isinstance(workers, Supervisor)
    assert workers.supervision == Supervision(
        strategy=Strategy.ONE_FOR_ALL, intensity=3, period_s=10.0, auto_shutdown=AutoShutdown.NEVER
    )
    sums = workers.children[1]
    assert isinstance(sums, Node)
    assert math.isinf(sums.shutdown_s)


def test_every_replica_is_a_process_whose_number_its_actors_share() -> None:
    instances = {
        instance.name: [f"{actor.role}/{actor.instance}" for actor in instance.actors]
        for instance in topology(FULL).node_instances()
    }
    assert instances == {
        "context/0": ["context/0"],
        "context/1": ["context/1"],
        "front/0": ["ingress/0", "preprocessor/0"],
        "front/1": ["ingress/1", "preprocessor/1"],
        "generation/0": ["generation/0"],
        "sums/0": ["sums/0"],
    }


def test_an_instance_knows_the_class_and_options_of_its_actors() -> None:
    last_but_one = list(topology(FULL).node_instances())[-2].actors[0]
    assert last_but_one.class_path == "actors.worker.actor:GenerationWorker"
    assert last_but_one.options == {"engine": ENGINE | {"model": "other"}}


def test_one_line_is_a_topology() -> None:
    smallest = topology("children: [{actor: router}]")
    (node,) = smallest.nodes()
    assert (smallest.namespace, node.name, node.actors[0].role) == ("x", "router", "router")
    assert smallest.nats.embedded
    assert smallest.etcd.embedded


def test_a_built_in_actor_keeps_its_role_under_another_name() -> None:
    two = topology(
        "children:\n"
        "- {name: left, actor: context, env: {CUDA_VISIBLE_DEVICES: 0}}\n"
        "- {name: right, actor: context, first_instance: 1, env: {CUDA_VISIBLE_DEVICES: 1}}\n"
    )
    found = [(i.name, i.actors[0].role, i.actors[0].instance) for i in two.node_instances()]
    assert found == [("left/0", "context", 0), ("right/1", "context", 1)]


def test_the_namespace_is_made_of_the_file_name(tmp_path: Path) -> None:
    path = tmp_path / "My_Service 2.yaml"
    path.write_text("children: [{actor: router}]")
    reading = read(path, environ=NO_ENVIRON)
    assert reading.topology.namespace == "my-service-2"
    assert reading.topology.base_dir == tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a topology file; No such file or directory"),
        (b"a: 1\nb: \xff", ":2:4: expected UTF-8 text; found the byte 0xff"),
        (b"#" * (MAX_FILE_BYTES + 1), f"expected at most {MAX_FILE_BYTES} bytes; found more"),
        (b"", ":1:1: expected a mapping; found null"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_topology_error(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "t.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TopologyError) as caught:
        read(path, environ=NO_ENVIRON)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(message)


_YAML_WORDS = (
    *("children", "actor", "actors", "name", "options", "context", "nats", "embedded", "restart"),
    *(
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<",
        "!!int ",
        "|",
        ">",
        "'",
        '"',
        "\\",
        "${A}",
        "- ",
        ": ",
    ),
    *("\n", "  ", "\t", "\0", "\ud800", "1", "-", "5s", "#", "?", "@", "%", "x-", "null", ".", "~"),
)
_SOUP = st.lists(st.sampled_from(_YAML_WORDS), max_size=30).map("".join)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=5,
)


@given(st.one_of(st.text(), _SOUP))
@example("children: [{actor: context, options: {a: !!float }}]")
@example("children: [{actor: context}]\nnats: ['nats://[::1']")
@example("a: !!timestamp 2001-99-99")
@example("!<tag:yaml.org,2002:bool> maybe")
@example("%YAML 9.9\n---\na: 1")
@example("children: [{actor: context, replicas: 18446744073709551615}]")
def test_no_text_makes_the_reader_raise_anything_but_a_topology_error(text: str) -> None:
    mistakes(text)


def _slots(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = list(enumerate(value)) if isinstance(value, list) else []
    if isinstance(value, dict):
        items = list(value.items())
    return [path, *(slot for key, item in items for slot in _slots(item, (*path, key)))]


@given(st.data())
def test_no_value_in_any_slot_makes_the_reader_raise_anything_but_a_topology_error(
    data: st.DataObject,
) -> None:
    import json

    import yaml

    document = yaml.safe_load(FULL)
    slot = data.draw(st.sampled_from(_slots(document)[1:]))
    value = data.draw(_VALUES)
    holder = document
    for part in slot[:-1]:
        holder = holder[part]
    holder[slot[-1]] = value
    for line in mistakes(json.dumps(document)):
        # Every mistake that one value makes is told at that value, or at what holds it.
        assert line.startswith("x.yaml:1:")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("off", "off"),
        ("{}", Watchdog(heartbeat_s=1.5, progress_s=1.25)),
        ("{heartbeat: 3s}", Watchdog(heartbeat_s=3.0, progress_s=1.25)),
        ("{progress: 1m}", Watchdog(heartbeat_s=1.5, progress_s=60.0)),
    ],
)
def test_the_watchdog_has_limits_or_is_off(said: str, meant: object) -> None:
    [node] = topology(f"children: [{{actor: router, watchdog: {said}}}]").nodes()

    assert node.watchdog == meant


@pytest.mark.parametrize("limits", ["{heartbeat: 0.4s}", "{progress: 100ms}"])
def test_a_limit_that_one_late_heartbeat_would_exceed_is_refused(limits: str) -> None:
    [mistake] = mistakes(f"children: [{{actor: router, watchdog: {limits}}}]")

    assert "expected at least 0.5 s, two heartbeats" in mistake


def test_the_time_an_orphan_stays_is_the_file_s_or_a_minute() -> None:
    children = "children: [{actor: router}]"

    assert topology(f"orphan_timeout: 5m\n{children}").orphan_timeout_s == 300.0
    assert topology(children).orphan_timeout_s == 60.0
