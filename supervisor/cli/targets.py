"""Which supervisor a command means, and how to reach it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from supervisor.cli.arguments import Options
from supervisor.layout import Layout, state_dir
from supervisor.runstate import is_held, read_holder


class NoTargetError(Exception):
    """No supervisor runs, or it is not clear which one is meant."""


def choose(options: Options, environ: Mapping[str, str]) -> Layout:
    """The layout of the running supervisor that is meant: named, or the only one.

    Raises NoTargetError with what to do about it.
    """
    namespace = options.namespace or _namespace_of(options, environ)
    found = [layout for layout in running(environ) if _is_meant(layout, namespace, options.node)]
    if not found:
        of = "" if namespace is None else f" for namespace '{namespace}'"
        of += "" if options.node is None else f" on node '{options.node}'"
        raise NoTargetError(_nothing(f"no supervisor runs{of}", environ))
    if len(found) > 1:
        how = "--namespace NAME" if namespace is None else "--node NAME"
        raise NoTargetError(
            f"several supervisors run; say which one with {how}:\n"
            + "\n".join(_line(layout) for layout in found)
        )
    return found[0]


def _is_meant(layout: Layout, namespace: str | None, node: str | None) -> bool:
    return namespace in (None, layout.namespace) and node in (None, layout.node)


def running(environ: Mapping[str, str]) -> list[Layout]:
    """Every supervisor of this user that runs now, by namespace."""
    base = state_dir("any", environ).parent
    try:
        states = sorted(path for path in base.iterdir() if path.is_dir())
    except OSError:
        return []
    layouts = [Layout(state, environ) for state in states]
    return [layout for layout in layouts if is_held(layout.lock)]


def _namespace_of(options: Options, environ: Mapping[str, str]) -> str | None:
    """What the file named on the command line says."""
    if options.file is None:
        return None
    from supervisor.cli.files import read_topology  # noqa: PLC0415 - most calls name no file

    reading = read_topology(options, environ)
    if reading is None:
        raise NoTargetError(f"{options.file} does not say which namespace is meant")
    return reading.topology.namespace


def _nothing(what: str, environ: Mapping[str, str]) -> str:
    base = state_dir("any", environ).parent
    others = running(environ)
    if others:
        return f"{what}; these do:\n" + "\n".join(_line(layout) for layout in others)
    return f"{what} (looked in {base})\n  start one:  supervise FILE"


def _line(layout: Layout) -> str:
    holder = read_holder(layout.lock)
    name = Path(layout.state).name
    return f"  {name}" if holder is None else f"  {name:<20} pid {holder.pid}  {holder.topology}"
