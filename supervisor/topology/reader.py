"""Reads a topology file: `read` is the way in.

text -> document (plain data with places) -> overrides -> forms (typed) -> model (complete) -> rules

Each step reports every mistake it can see. The first two stop the reading when they find any; the
later ones go on with what could be read, so that one run shows all of a file's mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from supervisor.topology.collector import Collector
from supervisor.topology.document import Document, read_yaml
from supervisor.topology.entries import EntryReader, Placed
from supervisor.topology.errors import Problem
from supervisor.topology.forms import EtcdForm, RootForm
from supervisor.topology.labels import address_of, labels_of
from supervisor.topology.loading import load
from supervisor.topology.machines import check_machines, place
from supervisor.topology.model import CERTIFICATES_OFF, Service, Topology
from supervisor.topology.overrides import NO_OVERRIDES, Overrides, override
from supervisor.topology.places import Place
from supervisor.topology.routing import follow
from supervisor.topology.rules import check_rules, check_tracing
from supervisor.topology.services import (
    ETCD,
    NATS,
    ServiceError,
    ServiceKind,
    read_service,
    service_from_environment,
)
from supervisor.topology.workers import without_workers


class Reading(msgspec.Struct, frozen=True):
    """A topology, and the document that still knows where everything in it stands."""

    topology: Topology
    document: Document


def read(path: Path, *, environ: Mapping[str, str], overrides: Overrides = NO_OVERRIDES) -> Reading:
    """Read a topology file.

    Raises TopologyError with every problem found, and nothing else: also for a file that `load`
    cannot read. The options of the actors are not checked here; see `options_check`.
    """
    return read_text(load(path), path, environ=environ, overrides=overrides)


def read_text(
    text: str,
    path: Path,
    *,
    environ: Mapping[str, str],
    overrides: Overrides = NO_OVERRIDES,
) -> Reading:
    """Like `read`, for a text at hand; `path` names it in messages and gives the base directory."""
    document = override(read_yaml(text, str(path), environ), overrides, environ)
    collector = Collector(document)
    topology = _topology(collector, path, environ)
    if collector.problems or topology is None:
        raise document.error(collector.problems)
    if overrides.here is not None:
        topology = place(topology, overrides.here)
    if overrides.without_workers:
        topology = replace(topology, children=without_workers(topology.children))
    return Reading(topology, document)


def _topology(collector: Collector, path: Path, environ: Mapping[str, str]) -> Topology | None:
    """None, or something incomplete, when the collector has problems."""
    base_dir = path.absolute().parent
    data = collector.document.data
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if not key.startswith("x-")}
    root = collector.decode(data, RootForm, ())
    # Children are read even when the head of the file is wrong, so that all mistakes show.
    entries = data.get("children") if isinstance(data, dict) else None
    reader = EntryReader(collector, base_dir, {} if root is None else labels_of(root.nodes))
    placed: list[Placed] = reader.read(entries, ("children",))
    children, clashes = follow([one.child for one in placed], reader.wishes)
    for clash in clashes:
        collector.add(clash.path, clash.message)
    if root is None:
        return None
    check_rules(collector, root.supervision, placed)
    check_tracing(collector, wanted=root.tracing is not None)
    namespace = root.namespace or _default_namespace(collector, path)
    nats = _service(collector, NATS, root.nats, base_dir, environ)
    etcd = _service(collector, ETCD, root.etcd, base_dir, environ)
    if nats is None or etcd is None:
        return None
    machines = {name: address_of(said) for name, said in root.nodes.items()}
    services = {NATS.name: nats, ETCD.name: etcd}
    check_machines(collector, machines, placed, services, root.certificates)
    return Topology(
        path=path,
        base_dir=base_dir,
        namespace=namespace,
        nats=nats,
        etcd=etcd,
        supervision=root.supervision,
        orphan_timeout_s=root.orphan_timeout_s,
        node_timeout_s=root.node_timeout_s,
        tracing=root.tracing,
        certificates=_directory(root.certificates, base_dir),
        children=children,
        machines=machines,
    )


def _directory(named: str | None, base_dir: Path) -> str | None:
    return named if named in {None, CERTIFICATES_OFF} else str(base_dir / str(named))


def _default_namespace(collector: Collector, path: Path) -> str:
    """The file's stem, its other characters as `-`."""
    namespace = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:63]
    if not namespace:
        message = f"expected a namespace, as the file name {path.name!r} gives none"
        collector.add((), f"{message}; found none")
    return namespace


def _service(
    collector: Collector,
    kind: ServiceKind,
    form: str | list[str] | EtcdForm,
    base_dir: Path,
    environ: Mapping[str, str],
) -> Service | None:
    path = (kind.name,)
    places = collector.document.places.get(path)
    origin = "default"
    if places is not None:
        by_file = places.value.source == collector.document.source
        origin = "file" if by_file else "--set"
    try:
        service = read_service(kind, form, origin=origin, base_dir=base_dir)
    except ServiceError as error:
        below = path if error.key is None else (*path, error.key)
        collector.add(below, str(error), error.suggestion)
        return None
    if not service.embedded:
        return service
    try:
        return service_from_environment(kind, environ) or service
    except ServiceError as error:
        problem = Problem(Place(kind.variable), path, str(error), error.suggestion)
        collector.problems.append(problem)
        return None
