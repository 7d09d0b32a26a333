"""Which entries of a topology are workers, as against all that stands before them. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from supervisor.topology.model import Child, Node, Supervisor

_WORKERS = "actors.worker."


def is_worker(node: Node) -> bool:
    """Whether it hosts a worker of ours, of whatever duty."""
    return any(actor.class_path.startswith(_WORKERS) for actor in node.actors)


def without_workers(children: tuple[Child, ...]) -> tuple[Child, ...]:
    """The others, and the inner supervisors that have any."""
    found: list[Child] = []
    for child in children:
        if isinstance(child, Supervisor):
            below = without_workers(child.children)
            if below:
                found.append(replace(child, children=below))
        elif not is_worker(child):
            found.append(child)
    return tuple(found)
