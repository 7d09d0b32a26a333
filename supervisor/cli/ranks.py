"""`supervise ranks FILE`: be one rank of the workers of a topology, under an mpirun or srun of
somebody else's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import NoReturn
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from actors.runtime.process import NodeSpec
from supervisor import tree
from supervisor.cli.arguments import Options
from supervisor.cli.files import read_topology
from supervisor.cli.main import EXIT_USAGE
from supervisor.connections import etcd_settings, nats_settings
from supervisor.launchers.mpirun import ENVIRONMENT
from supervisor.layout import Layout, state_dir
from supervisor.nodes import Nodes
from supervisor.ranks import Server, rank_of, server_at, server_of
from supervisor.recipe import Recipe
from supervisor.services import address_towards
from supervisor.topology import NodeInstance, Topology
from supervisor.topology.roles import BUILT_IN
from supervisor.topology.workers import is_worker

EXIT_FAILED = 1


def ranks(options: Options, environ: Mapping[str, str]) -> int:
    """Become the rank that MPI says this process is; returns only when that is not possible."""
    reading = read_topology(options, environ)
    if reading is None:
        return EXIT_USAGE
    topology = reading.topology
    wrong = _wrong(topology)
    if wrong is not None:
        print(f"supervise: {options.file}: {wrong}", file=sys.stderr)
        return EXIT_USAGE
    try:
        workers = list(_workers(topology, environ, options.log_level or "info"))
    except OSError as error:
        print(f"supervise: {error}", file=sys.stderr)
        return EXIT_FAILED
    sizes = [server.ranks for _, server, _ in workers]
    rank = rank_of(environ)
    if rank is None:
        total = sum(sizes)
        print(
            f"supervise: {len(workers)} workers, WORLD_SIZE {total}: "
            f"mpirun --bind-to none --oversubscribe -n {total} supervise ranks {options.file}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    # With a rank beyond the last server's, the ranks find out together that they are too many.
    own_env = workers[min(server_at(rank, sizes), len(workers) - 1)][2]
    files = [_in_memory(spec) for spec, _, _ in workers]
    return _become(files, {**ENVIRONMENT, **environ, "PYTHONUNBUFFERED": "1", **own_env})


def _become(files: list[str], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    argv = [sys.executable, "-P", "-m", "actors.worker", *files]
    os.execve(sys.executable, argv, environ)  # noqa: S606 - a rank is the process MPI has started


def _wrong(topology: Topology) -> str | None:
    """Why its workers cannot be ranks of one program."""
    for service, variable in ((topology.nats, "NATS_SERVER"), (topology.etcd, "ETCD_ENDPOINTS")):
        if service.embedded:
            return f"expected servers that run already: set {variable}; found an embedded one"
    if not any(is_worker(instance.node) for instance in topology.node_instances()):
        return "expected workers; found none"
    return None


def _workers(
    topology: Topology, environ: Mapping[str, str], log_level: str
) -> Iterator[tuple[NodeSpec, Server, dict[str, str]]]:
    """Each worker in the order of its ranks: contexts first."""
    nats, etcd = nats_settings(topology.nats), etcd_settings(topology.etcd)
    layout = Layout(state_dir(topology.namespace, environ, None), environ)
    nodes = Nodes(topology, layout, environ, nats, etcd, log_level)
    recipes = {spec.id: spec.data for spec in _leaves(nodes.specs(topology.children))}
    address = _own_address(nats.urls[0])
    instances = [instance for instance in topology.node_instances() if is_worker(instance.node)]
    for instance in sorted(instances, key=_generates):
        recipe = recipes[instance.name]
        assert isinstance(recipe, Recipe), "the file's leaves are nodes"
        assert recipe.node is not None, "the file's leaves are nodes"
        server = server_of(replace(instance.node, launcher="mpi"), topology.base_dir)
        assert server is not None, "it was asked for"
        yield _unsupervised(recipe.node, address), server, dict(recipe.own_env)


def _leaves(specs: tuple[tree.Spec, ...]) -> Iterator[tree.ChildSpec]:
    for spec in specs:
        if isinstance(spec, tree.SupervisorSpec):
            yield from _leaves(spec.children)
        else:
            yield spec


def _generates(instance: NodeInstance) -> bool:
    return any(actor.class_path != BUILT_IN["context"] for actor in instance.actors)


def _own_address(nats: str) -> str:
    """By which this host reaches NATS, and the others this host."""
    found = urlsplit(nats)
    return address_towards(found.hostname or "127.0.0.1", found.port or 4222)


def _unsupervised(spec: NodeSpec, address: str) -> NodeSpec:
    """Without a supervisor to report to, and with an address that KV can be fetched from."""
    actors = []
    for actor in spec.actors:
        options = msgspec.json.decode(actor.options)
        engine = options.get("engine")
        if isinstance(engine, dict) and engine.get("kind") == "transformers":
            options["engine"] = {"transfer_host": address, **engine}
        actors.append(replace(actor, options=msgspec.Raw(msgspec.json.encode(options))))
    return replace(spec, link=None, actors=tuple(actors))


def _in_memory(spec: NodeSpec) -> str:
    """A file with the specification, which goes away with this process."""
    descriptor = os.memfd_create(spec.name, 0)
    os.write(descriptor, msgspec.json.encode(spec))
    return f"/proc/self/fd/{descriptor}"
