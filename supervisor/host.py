"""What this host has, and whether a topology asks for more."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping

import msgspec

from supervisor.gpus import GPU_VARIABLE, host_gpus
from supervisor.topology import Node, Reading, TopologyError
from supervisor.topology.places import Path


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to give to children."""

    gpus: tuple[str, ...] = ()
    """As CUDA_VISIBLE_DEVICES names them."""
    cpus: frozenset[int]
    """Those that this process may run on itself."""
    nice: int
    """Our own; to go below it needs a privilege."""
    may_renice: bool
    open_files: int
    """The hard limit."""


def this_host(environ: Mapping[str, str], *, with_gpus: bool) -> Host:
    """Look at the host. `with_gpus`: also ask the driver, which takes a second."""
    root = os.geteuid() == 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = root or hard == resource.RLIM_INFINITY
    return Host(
        gpus=host_gpus(environ) if with_gpus else (),
        cpus=frozenset(os.sched_getaffinity(0)),
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        may_renice=root,
        open_files=1 << 30 if unlimited else hard,
    )


def wants_gpus(reading: Reading) -> bool:
    """Whether any node of the topology asks for GPUs of its own."""
    return any(node.gpus for node in reading.topology.nodes())


def check_host(reading: Reading, host: Host) -> None:
    """Raises TopologyError with everything the topology asks for that the host has not."""
    problems = [
        reading.document.problem((*entry_path(node), key), message)
        for node in reading.topology.nodes()
        for key, message in _objections(node, host)
    ]
    nodes = [node for node in reading.topology.nodes() if node.gpus]
    wanted = sum((node.gpus or 0) * _processes(node) for node in nodes)
    if nodes and wanted > len(host.gpus):
        message = f"expected at most {len(host.gpus)} GPUs in all, as many as this host has for us"
        where = (*entry_path(nodes[-1]), "gpus")
        problems.append(reading.document.problem(where, f"{message}; found {wanted}"))
    if problems:
        raise TopologyError(problems, reading.document.text)


def _processes(node: Node) -> int:
    return len(list(node.instances())) + len(node.understudies())


def _objections(node: Node, host: Host) -> Iterator[tuple[str, str]]:
    missing = sorted(set(node.cpus or ()) - host.cpus)
    if missing:
        yield "cpus", f"expected processors that we may use; found {', '.join(map(str, missing))}"
    if node.nice is not None and node.nice < host.nice and not host.may_renice:
        yield "nice", f"expected {host.nice} or more, as we are not root; found {node.nice}"
    if node.open_files is not None and node.open_files > host.open_files:
        limit = f"expected at most {host.open_files}, the hard limit here"
        yield "open_files", f"{limit}; found {node.open_files}"
    if node.gpus is not None and GPU_VARIABLE in node.env:
        yield "gpus", f"expected gpus or {GPU_VARIABLE} in env, not both; found both"


def entry_path(node: Node) -> Path:
    """Where the file says a node."""
    path = node.actors[0].path
    return path[:-2] if len(path) > 1 and path[-2] == "actors" else path
