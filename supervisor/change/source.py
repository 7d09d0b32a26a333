"""Where a plan comes from: a text, its name, and what the command line changed in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from supervisor.host import Host, check_host
from supervisor.layout import Layout
from supervisor.plan import Plan, replan
from supervisor.topology import (
    Overrides,
    Problem,
    Reading,
    Service,
    TopologyError,
    check_options,
    read_text,
)
from supervisor.topology.loading import load


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a topology is read from, but for the environment."""

    path: Path
    """Absolute."""
    text: str
    overrides: Overrides

    def scaled(self, name: str, replicas: int) -> Source:
        """The same with another number of replicas of one entry."""
        sets = (*self.overrides.sets, f"children.{name}.replicas={replicas}")
        return replace(self, overrides=replace(self.overrides, sets=sets))


class Planner:
    """Makes new plans for a supervisor that runs."""

    def __init__(
        self,
        source: Source,
        layout: Layout,
        environ: Mapping[str, str],
        host: Host,
        *,
        log_level: str = "info",
    ) -> None:
        """`source`: what the running plan was made from."""
        self.source = source
        """What the last plan in force was made from."""
        self.host = host
        self._started_with = source
        self._layout = layout
        self._environ = environ
        self._log_level = log_level

    def again(self) -> Source:
        """The file as it is now. Raises TopologyError when it cannot be read."""
        return replace(self._started_with, path=self.source.path, text=load(self.source.path))

    def of(self, path: Path, text: str, overrides: Overrides) -> Source:
        """A text from elsewhere. What the supervisor's own command line changes holds for it too,
        unless `overrides` changes it again."""
        own = self._started_with.overrides
        both = Overrides(
            sets=(*own.sets, *overrides.sets),
            port=own.port if overrides.port is None else overrides.port,
            namespace=own.namespace if overrides.namespace is None else overrides.namespace,
            here=own.here,
            without_workers=own.without_workers,
        )
        return Source(path=path, text=text, overrides=both)

    async def plan(self, current: Plan, source: Source, *, check_actors: bool) -> Plan:
        """A plan for the source on the servers of the current one.

        `check_actors`: whether the actors' options may have changed. Raises TopologyError with
        all that is wrong.
        """
        reading = self._read(source)
        before = self._read(self.source)
        _require_same_service(before, reading)
        check_host(reading, self.host)
        if check_actors:
            await check_options(reading)
        return replan(
            current, reading.topology, self._layout, self._environ, log_level=self._log_level
        )

    def _read(self, source: Source) -> Reading:
        return read_text(
            source.text, source.path, environ=self._environ, overrides=source.overrides
        )


def _require_same_service(before: Reading, after: Reading) -> None:
    """What every process is connected to cannot change under it."""
    old, new, document = before.topology, after.topology, after.document
    problems: list[Problem] = []
    if old.namespace != new.namespace:
        message = f"expected the namespace that runs, '{old.namespace}'; found '{new.namespace}'"
        problems.append(document.problem(("namespace",), message))
    for key, one, other in (("nats", old.nats, new.nats), ("etcd", old.etcd, new.etcd)):
        if not _same_server(one, other):
            message = "expected the server in use, as every process is connected to it"
            hint = "to change it, stop the service and start it again"
            problems.append(document.problem((key,), f"{message}; found another: {hint}"))
    if problems:
        raise TopologyError(problems, document.text)


def _same_server(one: Service, other: Service) -> bool:
    if one.embedded and other.embedded and other.port is None:
        return True  # any free port: the one it has
    return replace(one, origin="") == replace(other, origin="")
