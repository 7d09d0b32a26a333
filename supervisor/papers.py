"""What a node is given to know who it is: its spec when it is started, a note when it is promoted.

Both hold, for each of its actors, the last incarnation that is known to be over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from actors.runtime.link import Promote
from actors.runtime.process import NodeSpec
from supervisor.private import write_private


def write_spec(path: Path, node: NodeSpec, run: int, above: Mapping[str, int]) -> None:
    """Write the file that a node is started with. Raises OSError."""
    actors = tuple(
        msgspec.structs.replace(actor, above=above.get(f"{actor.role}/{actor.instance}", 0))
        for actor in node.actors
    )
    spec = msgspec.structs.replace(node, run=run, actors=actors)
    # It holds the secrets of NATS and etcd.
    write_private(path, msgspec.json.encode(spec))


def promotion(name: str, run: int, node: NodeSpec, above: Mapping[str, int], log: Path) -> Promote:
    """The note by which an understudy goes on as the child of that name, which `node` describes."""
    names = [f"{actor.role}/{actor.instance}" for actor in node.actors]
    return Promote(
        run=run,
        above={actor: above.get(actor, 0) for actor in names},
        node=name,
        instance=node.actors[0].instance,
        log=str(log),
    )
