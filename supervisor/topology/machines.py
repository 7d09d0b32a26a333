"""Which part of a topology runs on which machine. Pure.

`nodes:` names the machines, with the address by which the others reach each. Every entry may say
`node:`, a name or a list of names, over which its replicas are dealt in turn: the second is on the
second, and stays there however many replicas are added. `node: {label: gpu}` is every machine with
that label (`labels`). What an inner supervisor says holds for all below it that says nothing; what
nobody says is on the first of `nodes:`.

So instances are numbered once for the whole topology, and no two machines can have the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from actors.runtime.options import nearest
from supervisor.topology.collector import Collector
from supervisor.topology.entries import Placed
from supervisor.topology.model import (
    CERTIFICATES_OFF,
    Actor,
    Child,
    Service,
    Supervisor,
    Tls,
    Topology,
)
from supervisor.topology.places import Path
from supervisor.topology.services import ETCD, NATS, ServiceKind, is_host

SLURM_NAME = "SLURMD_NODENAME"
SLURM_INDEX = "SLURM_NODEID"


class NodeError(Exception):
    """It is not clear which part of a topology is meant for this machine."""


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """The machine that a topology is read for."""

    node: str
    address: str
    """By which the others reach it."""


def choose_node(
    names: Sequence[str], said: str | None, environ: Mapping[str, str], hostname: str
) -> str | None:
    """The machine this is: as `said`, as Slurm says, the one called like this host, or the only
    one there is. None for a topology of one machine that names none.

    Slurm's names need not be those of the file: the machine with the number `SLURM_NODEID` is then
    the one at that place in the file. Raises NodeError.
    """
    listed = ", ".join(names)
    if said is not None:
        return _said(names, said)
    if not names:
        return None
    if (slurm := environ.get(SLURM_NAME)) in names:
        return slurm
    if (index := environ.get(SLURM_INDEX)) is not None:
        if not index.isdecimal() or int(index) >= len(names):
            raise NodeError(
                f"{SLURM_INDEX} is {index}, and the topology has {len(names)} nodes: {listed}; "
                "allocate as many, or say --node NAME"
            )
        return names[int(index)]
    for name in (hostname, hostname.partition(".")[0]):
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise NodeError(
        f"the topology has several nodes, and none is called like this host ({hostname}): "
        f"say which one this is, --node NAME, one of {listed}"
    )


def _said(names: Sequence[str], said: str) -> str:
    if not names:
        raise NodeError(f"--node {said}: expected a topology with nodes; this one lists none")
    if said in names:
        return said
    meant = nearest(said, names)
    hint = "" if meant is None else f" (did you mean '{meant}'?)"
    raise NodeError(f"--node: expected one of {', '.join(names)}; found '{said}'{hint}")


def place(topology: Topology, here: Here) -> Topology:
    """The part of a topology that runs on one of its machines.

    An embedded server of another machine has become one with a URL; workers are told by which
    address others can fetch KV blocks from them, unless the file says it.
    """
    first = next(iter(topology.machines))
    return replace(
        topology,
        nats=_service(NATS, topology.nats, topology, here),
        etcd=_service(ETCD, topology.etcd, topology, here),
        children=_local(topology.children, first, here),
        here=here.node,
    )


def _local(children: tuple[Child, ...], first: str, here: Here) -> tuple[Child, ...]:
    found: list[Child] = []
    for child in children:
        if isinstance(child, Supervisor):
            below = _local(child.children, first, here)
            if below:
                found.append(replace(child, children=below))
            continue
        machines = child.machines or (first,)
        if here.node in machines:
            turn = machines.index(here.node)
            actors = tuple(_reachable(actor, here.address) for actor in child.actors)
            found.append(replace(child, turn=turn, turns=len(machines), actors=actors))
    return tuple(found)


def _reachable(actor: Actor, address: str) -> Actor:
    engine = actor.options.get("engine")
    if not isinstance(engine, dict) or engine.get("kind") != "transformers":
        return actor
    return replace(actor, options={**actor.options, "engine": {"transfer_host": address, **engine}})


def _service(kind: ServiceKind, service: Service, topology: Topology, here: Here) -> Service:
    if service.node is None:
        return service
    machines, tls = topology.machines, _tls(topology, here)
    if service.node == here.node:
        return replace(service, listen=machines[service.node], tls=tls)
    address = machines[service.node] or ""
    host = f"[{address}]" if ":" in address else address
    # The schemes of each, the plain one first.
    scheme = list(kind.ports)[0 if tls is None else 1]
    return replace(service, urls=(f"{scheme}://{host}:{service.port}",), port=None, tls=tls)


def _tls(topology: Topology, here: Here) -> Tls | None:
    directory = topology.certificates
    if directory is None or directory == CERTIFICATES_OFF:
        return None
    own = f"{directory}/{here.node}"
    return Tls(ca=f"{directory}/ca.pem", cert=f"{own}.pem", key=f"{own}.key")


# -- what must hold ------------------------------------------------------------------------------


def check_machines(
    collector: Collector,
    machines: Mapping[str, str | None],
    children: list[Placed],
    services: Mapping[str, Service],
    certificates: str | None,
) -> None:
    """Add a problem for every rule that is broken.

    - An entry is on nodes that are listed, on each once.
    - A server that the supervisor starts and several nodes use is on one of them that has an
      address, on a port that the file says, and asks for a secret. Whether it speaks TLS is said.
    """
    for name, address in machines.items():
        if address is not None and not is_host(address):
            message = f"expected a host name or an IP address; found '{address}'"
            collector.add(("nodes", name), message)
    _check_entries(collector, machines, children)
    for key, service in services.items():
        if service.embedded:
            _check_embedded(collector, machines, key, service)
    if certificates is None and any(service.node is not None for service in services.values()):
        path = ("nodes",) if ("nodes",) in collector.document.places else ()
        collector.add(
            path,
            "expected certificates at the top of the file, as nodes talk to NATS and etcd over a "
            "network: a directory, which `supervise certificates` fills, or off for no TLS; "
            "found none",
        )


def _check_entries(
    collector: Collector, machines: Mapping[str, str | None], children: list[Placed]
) -> None:
    checked: set[Path] = set()
    for path, child, below in children:
        where = (*path, "node")
        # Inherited, or of the same entry as another duty's: told where it is said, once.
        if where in collector.document.places and path not in checked:
            checked.add(path)
            _check_names(collector, machines, child.machines, where)
        _check_entries(collector, machines, below)


def _check_names(
    collector: Collector, machines: Mapping[str, str | None], names: Sequence[str], path: Path
) -> None:
    if not machines:
        collector.add(path, "expected nodes at the top of the file, which lists them; found none")
        return
    for index, name in enumerate(names):
        at = (*path, index)
        where = at if at in collector.document.places else path
        if name not in machines:
            message = f"expected one of {', '.join(machines)}; found '{name}'"
            collector.add(where, message, nearest(name, machines))
        elif name in names[:index]:
            collector.add(where, f"expected every node once; found '{name}' again")


def _check_embedded(
    collector: Collector, machines: Mapping[str, str | None], key: str, service: Service
) -> None:
    places = collector.document.places

    def add(below: str, message: str, suggestion: str | None = None) -> None:
        path = next(p for p in ((key, below), (key,), ("nodes",), ()) if p in places or not p)
        collector.add(path, f"{key}: {message}" if path[:1] != (key,) else message, suggestion)

    if service.node is None:
        if len(machines) > 1:
            variable = NATS.variable if key == NATS.name else ETCD.variable
            add(
                "embedded",
                f"expected servers that every node can reach: urls, {variable}, or embedded: true "
                "with node, port and a secret; found a server for one host alone",
            )
        return
    if service.node not in machines:
        message = f"expected one of nodes ({', '.join(machines)}); found '{service.node}'"
        add("node", message, nearest(service.node, machines))
    elif machines[service.node] is None:
        message = f"expected an address of '{service.node}' in nodes, to listen on; found none"
        add("node", message)
