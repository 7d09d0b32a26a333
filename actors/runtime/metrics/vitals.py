"""What every node tells of itself, whoever it hosts: its mailboxes, its loop, its process, and how
it stands with NATS and etcd."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from actors.runtime.metrics.registry import FRACTIONS_OF_A_SECOND, Metrics

if TYPE_CHECKING:
    from actors.runtime.node import Node

DISTRIBUTION = "understudy"


class Vitals:
    """Brought up to date when somebody reads; costs nothing between."""

    def __init__(self, node: Node) -> None:
        self._node = node
        metrics = node.metrics
        tell_build(metrics)
        self._process = ProcessVitals(metrics)
        self._depth = metrics.gauge(
            "understudy_mailbox_depth", "Messages waiting for an actor.", ("actor",)
        )
        self._peak = metrics.gauge(
            "understudy_mailbox_peak_depth",
            "The most messages that have waited for an actor at once.",
            ("actor",),
        )
        self._limit = metrics.gauge(
            "understudy_mailbox_limit", "Messages that may wait for an actor.", ("actor",)
        )
        self._accepted = metrics.counter(
            "understudy_mailbox_messages_total", "Messages taken into a mailbox.", ("actor",)
        )
        self._refused = metrics.counter(
            "understudy_mailbox_refusals_total",
            "Messages an actor did not take, by reason: full, closed, stale (for an earlier life), "
            "outlived (for a later one), unhandled, malformed, version (of another wire format).",
            ("actor", "reason"),
        )
        self._info = metrics.gauge(
            "understudy_actor_info",
            "1 for each actor that lives here, with the number of its life.",
            ("actor", "role", "incarnation", "state"),
        )
        self._gauges = metrics.gauge(
            "understudy_actor_value",
            "What actors say of themselves (`Actor.gauges`), by name.",
            ("actor", "name"),
        )
        self._plane = metrics.gauge(
            "understudy_plane_connected",
            "1 when this node is connected to NATS, to etcd.",
            ("server",),
        )
        self._hosts = metrics.gauge(
            "understudy_hosts_silent",
            "Hosts of the topology that this node does not hear, and sends nothing new.",
        ).labels()
        self._unspoken = metrics.gauge(
            "understudy_wire_version_mismatches",
            "Actors that this node leaves alone, as they speak another wire format.",
        ).labels()
        self._frames = metrics.counter(
            "understudy_nats_frames_total",
            "Frames between nodes: sent, received, dropped because too many waited to be sent.",
            ("outcome",),
        )
        self._lag = metrics.histogram(
            "understudy_event_loop_lag_seconds",
            "How late the event loop was with the heartbeat, twice a second.",
            bounds=FRACTIONS_OF_A_SECOND,
        ).labels()
        metrics.before_collect(self._look)

    def loop_was_late(self, lag_s: float) -> None:
        """By so much, at a heartbeat."""
        self._lag.observe(lag_s)

    def _look(self) -> None:
        self._info.forget()
        for cell in self._node.cells:
            entry, mailbox = cell.entry, cell.mailbox.statistics()
            name = entry.name
            self._info.labels(name, entry.role, str(entry.incarnation), entry.state.value).set(1)
            self._depth.labels(name).set(mailbox.depth)
            self._peak.labels(name).set(mailbox.peak)
            self._limit.labels(name).set(mailbox.limit)
            self._accepted.labels(name).mirror(mailbox.accepted)
            self._refused.labels(name, "full").mirror(cell.refusals["full"])
            for reason, count in cell.refusals.items():
                self._refused.labels(name, reason).mirror(count)
            for what, value in cell.actor.gauges().items():
                self._gauges.labels(name, what).set(value)
        transport, registry = self._node.transport, self._node.registry
        self._plane.labels("nats").set(transport.health == "connected")
        self._plane.labels("etcd").set(registry.health == "connected")
        self._hosts.set(len(self._node.silent_hosts))
        self._unspoken.set(len(self._node.directory.unspoken()))
        frames = transport.statistics()
        self._frames.labels("sent").mirror(frames.published)
        self._frames.labels("received").mirror(frames.received)
        self._frames.labels("dropped").mirror(frames.dropped)


class ProcessVitals:
    """The names every Prometheus client uses for its own process. Linux; elsewhere only CPU."""

    def __init__(self, metrics: Metrics) -> None:
        self._cpu = metrics.counter(
            "process_cpu_seconds_total", "CPU time of this process, user and system."
        ).labels()
        self._memory = metrics.gauge(
            "process_resident_memory_bytes", "Resident memory of this process."
        ).labels()
        self._open = metrics.gauge("process_open_fds", "File descriptors in use.").labels()
        self._began = metrics.gauge(
            "process_start_time_seconds", "When this process started, since 1970."
        ).labels()
        metrics.before_collect(self._look)

    def _look(self) -> None:
        times = os.times()
        self._cpu.mirror(times.user + times.system)
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self._open.set(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - only counted
            # In clock ticks after boot; the second field may contain blanks and parentheses.
            stat = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            boot = next(
                int(line.split()[1])
                for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()
                if line.startswith("btime")
            )
        except (OSError, StopIteration):
            return  # no /proc
        self._memory.set(pages * os.sysconf("SC_PAGE_SIZE"))
        self._began.set(boot + int(stat[19]) / os.sysconf("SC_CLK_TCK"))


@cache
def build_version() -> str:
    """The release that runs here. Looked up once, as that reads the files of an installation."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def tell_build(metrics: Metrics) -> None:
    """`understudy_build_info`."""
    metrics.gauge(
        "understudy_build_info",
        "1, with the release and the Python it runs on.",
        ("version", "python"),
    ).labels(build_version(), platform.python_version()).set(1)
