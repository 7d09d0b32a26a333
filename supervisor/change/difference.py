"""What two trees have not in common, in the words of the file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from supervisor.change.items import Field, Item
from supervisor.change.stage import find, places, recipe, same_process
from supervisor.tree import ChildSpec, Spec, SupervisorSpec

NOTHING = "nothing"
"""Shown for what is only on one side."""
HIDDEN = "(hidden)"
"""Shown for values that may be secrets."""
_SECRET = ("env.", "tracing.headers.")
"""Below these paths."""
_OF_THE_RECIPE = frozenset({"argv", "env", "own_env", "node", "limits", "ready_mark"})
"""Told in the words of the file, or following from what is told."""
_SHOWN_CHARACTERS = 60


def difference(before: SupervisorSpec, after: SupervisorSpec) -> tuple[Item, ...]:
    """What differs, in the order of `after`; what is removed comes last."""
    old, new = places(before), places(after)
    items: list[Item] = []
    for id_, place in new.items():
        if id_ not in old:
            items.append(Item(id=id_, what="added"))
        elif old[id_] != place:
            items.append(Item(id=id_, what="moved", restarts=True))
        else:
            items += _changed(find(before, id_), find(after, id_))
    items += [Item(id=id_, what="removed") for id_ in old if id_ not in new]
    return tuple(items)


def _changed(before: Spec, after: Spec) -> Iterator[Item]:
    old, new = dict(_facts(before)), dict(_facts(after))
    old["children"], new["children"] = _order(before, after)
    differing = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    restarts = (
        isinstance(before, ChildSpec)
        and isinstance(after, ChildSpec)
        and not same_process(before, after)
    )
    if differing or restarts:
        fields = tuple(
            Field(path=path, before=_shown(path, old), after=_shown(path, new))
            for path in differing
        )
        told = fields or (Field(path="process", before="another", after="this"),)
        yield Item(id=after.id, what="changed", fields=told, restarts=restarts)


def _order(before: Spec, after: Spec) -> tuple[list[str], list[str]]:
    """The children that both have, in the order in which each starts them."""
    if isinstance(before, ChildSpec) or isinstance(after, ChildSpec):
        return [], []
    old, new = ([child.id for child in spec.initial()] for spec in (before, after))
    return [id_ for id_ in old if id_ in new], [id_ for id_ in new if id_ in old]


def _facts(spec: Spec) -> Iterator[tuple[str, Any]]:
    """Everything a person may have changed, flat, by its path in the file."""
    bare = (
        replace(spec, data=None)
        if isinstance(spec, ChildSpec)
        else replace(spec, children=(), template=None)
    )
    plain: dict[str, Any] = msgspec.to_builtins(bare)
    for key in ("id", "type", "children", "template", "count", "data"):
        plain.pop(key, None)
    yield from _flat({key.removesuffix("_s"): value for key, value in plain.items()})
    if not isinstance(spec, ChildSpec):
        return
    made = recipe(spec)
    yield from _flat(
        {
            key: getattr(made, key)
            for key in made.__struct_fields__
            if key not in _OF_THE_RECIPE and not isinstance(getattr(made, key), msgspec.Struct)
        }
    )
    limits = msgspec.structs.asdict(made.limits)
    yield from _flat({key.removesuffix("_bytes"): value for key, value in limits.items()})
    yield from _flat(made.own_env, "env.")
    if made.node is None:
        return
    single = len(made.node.actors) == 1
    for actor in made.node.actors:
        prefix = "" if single else f"actors.{actor.role}."
        yield f"{prefix}actor", actor.actor
        yield f"{prefix}role", actor.role
        yield from _flat(msgspec.json.decode(actor.options), f"{prefix}options.")
    rest = ("name", "actors", "run", "nats", "etcd", "link")
    settings = msgspec.structs.asdict(made.node)
    if made.node.tracing is not None:
        settings["tracing"] = msgspec.structs.asdict(made.node.tracing)
    yield from _flat({key: value for key, value in settings.items() if key not in rest})


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _shown(path: str, facts: Mapping[str, Any]) -> str:
    if path not in facts:
        return NOTHING
    if path.startswith(_SECRET):
        return HIDDEN
    value = facts[path]
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
