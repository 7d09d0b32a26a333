"""Public names of models: those that workers declare, and aliases in the registry.

The supervisor holds no connection to the registry. One is made for each call: an operator's change
is rare, and what a change is judged by is read from the registry itself, so that the models of
every host count.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.messages.cards import read_card
from actors.messages.names import KINDS, Names, encode_alias, fault_of, key_of
from actors.runtime.errors import PlaneUnavailable
from actors.runtime.registry.base import Entry, Listed, Observation, Records, Registry
from supervisor.calls import (
    Accepted,
    AddModel,
    Answer,
    Denied,
    ListModels,
    ModelName,
    ModelNames,
    ModelsCall,
    RemoveModel,
)

CONNECT_TIMEOUT_S = 4.0
"""Shorter than the command line waits for an answer."""


class _Denial(Exception):
    """Why it is not done."""


class _View:
    """What the registry holds."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.names = Names({})
        self.workers: dict[str, list[str]] = {}
        """By model, the names of those that declare it."""
        registry.on_records = self._read

    def observe(self, observation: Observation) -> None:
        if isinstance(observation, Listed):
            for entry in sorted(observation.entries, key=_order):
                card = read_card(entry)
                if card is not None:
                    self.workers.setdefault(card.model, []).append(entry.name)

    def _read(self, records: Records) -> None:
        self.names = Names(records)


class Naming:
    """Lists, adds and removes. `connect` makes a registry that is not started yet."""

    def __init__(self, connect: Callable[[], Registry]) -> None:
        self._connect = connect

    async def answer(self, call: ModelsCall) -> Answer:
        """Do it: a `ModelNames` for a list, else an `Accepted`; a `Denied` says why not."""
        try:
            async with self._look() as view:
                match call:
                    case ListModels():
                        return ModelNames(names=tuple(_rows(view)))
                    case AddModel():
                        await _add(view, call)
                    case RemoveModel():
                        await _remove(view, call)
        except _Denial as error:
            return Denied(why=str(error))
        return Accepted()

    @asynccontextmanager
    async def _look(self) -> AsyncIterator[_View]:
        registry = self._connect()
        view = _View(registry)
        try:
            await registry.start(view.observe)
            try:
                yield view
            finally:
                await registry.close()
        except PlaneUnavailable as error:
            raise _Denial(f"names of models are kept in etcd: {error}") from error


def _order(entry: Entry) -> tuple[str, int]:
    return entry.role, entry.instance


async def _add(view: _View, call: AddModel) -> None:
    _check(view, call)
    key, value = key_of(call.kind, call.name), encode_alias(call.target)
    if not await view.registry.record(key, value, replace=call.replace):
        raise _Denial(_taken(view, call))


async def _remove(view: _View, call: RemoveModel) -> None:
    if not await view.registry.erase(key_of(call.kind, call.name)):
        raise _Denial(_missing(view, call))


def _check(view: _View, call: AddModel) -> None:
    for text in (call.name, call.target):
        if (fault := fault_of(text)) is not None:
            raise _Denial(fault)
    if call.name in view.workers:
        raise _Denial(
            f"'{call.name}' is the name that {', '.join(view.workers[call.name])} "
            "gave their model; it serves both kinds of request already"
        )
    if call.target not in view.workers:
        raise _Denial(f"no worker has a model '{call.target}'{_instead(view, call)}")


def _instead(view: _View, call: AddModel) -> str:
    alias = next(
        (found for kind in KINDS if (found := view.names.find(kind, call.target)) is not None), None
    )
    if alias is not None:
        return f": that is an alias itself; name what it stands for, '{alias.target}'"
    if not view.workers:
        return ", nor any other; is the service up?"
    return f"; there are: {', '.join(sorted(view.workers))}"


def _taken(view: _View, call: AddModel) -> str:
    alias = view.names.find(call.kind, call.name)
    target = "something else" if alias is None else f"'{alias.target}'"
    return (
        f"'{call.name}' is a {call.kind} model already, and stands for {target}; "
        "--replace makes it stand for another one"
    )


def _missing(view: _View, call: RemoveModel) -> str:
    text = f"there is no {call.kind} model '{call.name}' that was added"
    if call.name in view.workers:
        workers = ", ".join(view.workers[call.name])
        return f"{text}: it is the name that {workers} gave their model, and goes with them"
    for kind in KINDS:
        if view.names.find(kind, call.name) is not None:
            return f"{text}; there is one for {kind}: supervise models remove {kind} {call.name}"
    return text


def _rows(view: _View) -> list[ModelName]:
    rows = [
        ModelName(name=model, kinds=KINDS, workers=tuple(workers), served=True)
        for model, workers in view.workers.items()
    ]
    for name, kind, alias in view.names.all():
        if name not in view.workers:
            served = alias.target in view.workers
            rows.append(ModelName(name=name, kinds=(kind,), target=alias.target, served=served))
    return sorted(rows, key=lambda row: (row.name, row.kinds))
