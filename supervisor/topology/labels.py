"""What `nodes:` says of each machine, and which of them an entry means. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.topology.forms import LabelForm, MachineForm, Where


def address_of(said: str | MachineForm | None) -> str | None:
    """By which the others reach a machine."""
    return said.address if isinstance(said, MachineForm) else said


def labels_of(nodes: Mapping[str, str | MachineForm | None]) -> dict[str, frozenset[str]]:
    """Of each machine, in the order of the file."""
    return {
        name: frozenset(said.labels if isinstance(said, MachineForm) else ())
        for name, said in nodes.items()
    }


def chosen(where: Where, labels: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """The machines that an entry asks for, by name or by label; none where it says nothing, or a
    label that none has."""
    if where is None:
        return ()
    if not isinstance(where, LabelForm):
        return (where,) if isinstance(where, str) else tuple(where)
    wanted = {where.label} if isinstance(where.label, str) else set(where.label)
    return tuple(name for name, own in labels.items() if wanted <= own)
