"""The names of models, as `supervise models` changes them, on a registry in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.runtime.registry.local import LocalRegistry, LocalStore
from actors.worker.actor import AggregatedWorker
from supervisor.calls import Accepted, AddModel, Denied, ListModels, ModelNames, RemoveModel
from supervisor.naming import Naming
from tests.service import MODEL, empty


@asynccontextmanager
async def named() -> AsyncIterator[tuple[Naming, LocalStore]]:
    """With one worker."""
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        yield Naming(lambda: LocalRegistry(service.store)), service.store


async def denial(naming: Naming, call: AddModel | RemoveModel) -> str:
    answer = await naming.answer(call)
    assert isinstance(answer, Denied)
    return answer.why


async def test_a_name_is_added_listed_and_removed() -> None:
    async with named() as (naming, _):
        assert await naming.answer(AddModel(kind="chat", name="a/b", target=MODEL)) == Accepted()

        listed = await naming.answer(ListModels())
        assert isinstance(listed, ModelNames)
        alias, own = listed.names
        assert (alias.name, alias.kinds, alias.target, alias.served) == (
            *("a/b", ("chat",), MODEL),
            True,
        )
        assert (own.name, own.kinds, own.target) == (MODEL, ("chat", "completion"), None)
        assert own.workers == ("aggregated/0",)

        assert await naming.answer(RemoveModel(kind="chat", name="a/b")) == Accepted()
        listed = await naming.answer(ListModels())
        assert isinstance(listed, ModelNames)
        assert [row.name for row in listed.names] == [MODEL]


async def test_a_name_that_there_is_moves_only_when_told() -> None:
    async with named() as (naming, store):
        store.record("models/chat/a", b'{"target": "gone", "added_at": 1}')
        call = AddModel(kind="chat", name="a", target=MODEL)

        assert "stands for 'gone'; --replace" in await denial(naming, call)
        moved = AddModel(kind="chat", name="a", target=MODEL, replace=True)
        assert await naming.answer(moved) == Accepted()
        assert MODEL.encode() in store.records["models/chat/a"]


async def test_what_cannot_be_added_is_denied_with_the_reason() -> None:
    async with named() as (naming, _):
        await naming.answer(AddModel(kind="chat", name="a", target=MODEL))

        for name, target, why in (
            ("b", "unheard", f"no worker has a model 'unheard'; there are: {MODEL}"),
            ("b", "a", f"that is an alias itself; name what it stands for, '{MODEL}'"),
            (MODEL, MODEL, "is the name that aggregated/0 gave their model"),
            ("b c", MODEL, "a name has no spaces"),
        ):
            assert why in await denial(naming, AddModel(kind="chat", name=name, target=target))


async def test_what_cannot_be_removed_is_denied_with_the_reason() -> None:
    async with named() as (naming, _):
        await naming.answer(AddModel(kind="chat", name="a", target=MODEL))

        for name, why in (
            ("a", "there is one for chat: supervise models remove chat a"),
            ("b", "there is no completion model 'b' that was added"),
            (MODEL, "it is the name that aggregated/0 gave their model, and goes with them"),
        ):
            assert why in await denial(naming, RemoveModel(kind="completion", name=name))


async def test_without_workers_the_operator_is_asked_whether_the_service_is_up() -> None:
    naming = Naming(lambda: LocalRegistry(LocalStore()))

    assert "is the service up?" in await denial(naming, AddModel(kind="chat", name="a", target="b"))
