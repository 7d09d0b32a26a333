"""What must hold between the entries of a topology, beyond the type of each."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from supervisor.topology.collector import Collector
from supervisor.topology.entries import Placed
from supervisor.topology.model import AutoShutdown, Node, Restart, Supervision, Supervisor
from supervisor.topology.places import Path, show_path
from supervisor.topology.roles import BUILT_IN

RESERVED_NAMES = frozenset({"nats", "etcd", "supervisor"})
"""Taken by the processes that the supervisor brings itself."""


def check_rules(collector: Collector, root: Supervision, children: list[Placed]) -> None:
    """Add a problem for every rule that the tree breaks.

    - Names of nodes and supervisors are unique in the file and none is reserved.
    - No two actors have the same address.
    - An understudy is only for what is restarted, and for what does nothing before it has its name.
    - A node that is split over ranks, or shares a world, is one that mpirun starts.
    - A significant child, as in OTP, is not permanent and has a supervisor that shuts down with it.
    """
    _check_names(collector, children)
    _check_addresses(collector, children)
    _check_understudies(collector, children)
    _check_launchers(collector, children)
    _check_significance(collector, root, children)


def check_tracing(collector: Collector, *, wanted: bool) -> None:
    """Add a problem when the file asks for traces and OpenTelemetry is not installed."""
    if wanted and find_spec("opentelemetry") is None:
        message = "expected OpenTelemetry to be installed; found none: "
        collector.add(("tracing",), message + "pip install 'understudy[tracing]'")


def _everything(children: list[Placed]) -> Iterator[Placed]:
    for placed in children:
        yield placed
        yield from _everything(placed.below)


def _check_names(collector: Collector, children: list[Placed]) -> None:
    first: dict[str, Path] = {}
    for path, child, _ in _everything(children):
        where = (*path, "name")
        if child.name in RESERVED_NAMES:
            message = f"expected a name that the supervisor does not use; found '{child.name}'"
            collector.add(where, message)
        elif child.name in first:
            other = _where(collector, first[child.name])
            collector.add(where, f"expected a unique name; found '{child.name}', also {other}")
        else:
            first[child.name] = path


def _check_addresses(collector: Collector, children: list[Placed]) -> None:
    taken: dict[str, list[tuple[range, Path]]] = {}
    for _, child, _ in _everything(children):
        if not isinstance(child, Node):
            continue
        numbers = range(child.first_instance, child.first_instance + child.replicas)
        for actor in child.actors:
            for others, path in taken.get(actor.role, ()):
                both = range(max(numbers.start, others.start), min(numbers.stop, others.stop))
                if both:
                    address = f"{actor.role}/{both.start}"
                    message = f"expected an address of its own; found {address}, which is also in"
                    hint = "give first_instance or a role to tell them apart"
                    collector.add(
                        (*actor.path, "actor"), f"{message} {_where(collector, path)}: {hint}"
                    )
                    break
            taken.setdefault(actor.role, []).append((numbers, actor.path))


def _check_understudies(collector: Collector, children: list[Placed]) -> None:
    for path, child, _ in _everything(children):
        if not isinstance(child, Node) or not child.standby:
            continue
        where = (*path, "standby")
        if child.restart is Restart.TEMPORARY:
            message = "expected restart permanent or transient for an entry with understudies"
            collector.add(where, f"{message}; found temporary")
        if any(actor.class_path == BUILT_IN["ingress"] for actor in child.actors):
            message = "expected no understudies for an ingress, which takes its port when it loads"
            hint = "give it replicas and reuse_port"
            collector.add(where, f"{message}; found {child.standby}: {hint}")


def _check_launchers(collector: Collector, children: list[Placed]) -> None:
    for path, child, _ in _everything(children):
        if not isinstance(child, Node) or child.launcher in {None, "mpi"}:
            continue
        if child.world is not None:
            message = f"expected launcher mpi for nodes that share a world; found {child.launcher}"
            collector.add((*path, "launcher"), message)
        if child.launcher != "local":
            _check_script(collector, path, child)
            continue
        for actor in child.actors:
            engine = actor.options.get("engine")
            size = engine.get("tensor_parallel_size", 1) if isinstance(engine, dict) else 1
            if isinstance(engine, dict) and engine.get("kind") == "transformers" and size != 1:
                message = f"expected launcher mpi for tensor_parallel_size {size}; found local"
                collector.add((*path, "launcher"), message)


def _check_script(collector: Collector, path: Path, child: Node) -> None:
    engines = [actor.options.get("engine") for actor in child.actors]
    kinds = [engine.get("kind") for engine in engines if isinstance(engine, dict)]
    if kinds != ["tensorrt_llm"]:
        found = ", ".join(map(str, kinds)) or "none"
        message = f"expected one engine of kind tensorrt_llm for {child.launcher}; found {found}"
        collector.add((*path, "launcher"), message)


def _check_significance(
    collector: Collector, supervision: Supervision, children: list[Placed]
) -> None:
    for path, child, below in children:
        where = (*path, "significant")
        if child.significant and child.restart is Restart.PERMANENT:
            message = "expected restart transient or temporary for a significant child"
            collector.add(where, f"{message}; found permanent")
        if child.significant and supervision.auto_shutdown is AutoShutdown.NEVER:
            message = "expected auto_shutdown any_significant or all_significant above"
            collector.add(where, f"{message} a significant child; found never")
        if isinstance(child, Supervisor):
            _check_significance(collector, child.supervision, below)


def _where(collector: Collector, path: Path) -> str:
    line = collector.document.places[path].value.line
    return f"{show_path(path)} (line {line})" if line else show_path(path)
