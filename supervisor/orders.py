"""Orders to the tree from outside: which children a name means, and who waits for which reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from supervisor import tree
from supervisor.calls import Accepted, Answer, Denied
from supervisor.change.executor import refusal_text
from supervisor.child import Child
from supervisor.ids import understudies_of


class Orders:
    """Numbers the commands, and hands each reply to whoever has given the order."""

    def __init__(self, feed: Callable[[tree.Event], None]) -> None:
        self._feed = feed
        self._given = 0
        self._replies: dict[int, asyncio.Future[tree.Done | tree.Refused]] = {}

    async def give(self, make: Callable[[int], tree.Command]) -> tree.Done | tree.Refused:
        """Have the tree carry out a command; return when it has. `make` is given its number."""
        self._given += 1
        reply: asyncio.Future[tree.Done | tree.Refused] = asyncio.get_running_loop().create_future()
        self._replies[self._given] = reply
        self._feed(make(self._given))
        return await reply

    def settle(self, reply: tree.Reply) -> None:
        """The tree has carried a command out, or refused to."""
        assert isinstance(reply.ref, int), "all refs are ours"
        waiting = self._replies.pop(reply.ref)
        if not waiting.done():  # the caller may have hung up
            waiting.set_result(reply.result)


def replicas(name: str, ids: Collection[str]) -> list[str]:
    """A child, or every replica of an entry and behind them its understudies; empty when there is
    neither."""
    if name in ids:
        return [name]
    numbered = [id_ for id_ in ids if _is_number(id_)]
    found = [id_ for id_ in numbered if id_.rpartition("/")[0] == name]
    return found + [id_ for id_ in numbered if id_.rpartition("/")[0] == understudies_of(name)]


def full_name(name: str, ids: Collection[str]) -> str:
    """`router/0` for `router`, when it is the only one."""
    if name in ids or f"{name}/0" not in ids or f"{name}/1" in ids:
        return name
    return f"{name}/0"


def set_log_level(children: Iterable[Child], name: str, level: str) -> Answer:
    """See `Supervisor.set_log_level`."""
    nodes = {child.id: child for child in children if child.recipe.node is not None}
    entry = [id_ for id_ in nodes if id_.startswith(f"{name}/") and _is_number(id_)]
    if name == "all" or name in nodes or entry:
        told = list(nodes) if name == "all" else [name] if name in nodes else entry
        actor = None
    else:
        told = [id_ for id_, child in nodes.items() if name in child.incarnations]
        actor = name
    if not told:
        return Denied(why=f"{name}: no running node, entry or actor is called so")
    deaf = [id_ for id_ in told if not nodes[id_].set_log_level(level, actor)]
    return Denied(why=f"{', '.join(deaf)}: not connected") if deaf else Accepted()


def answer_of(results: Iterable[tree.Done | tree.Refused]) -> Answer:
    """One answer to a call that took several orders."""
    refused = [refusal_text(result) for result in results if isinstance(result, tree.Refused)]
    return Denied(why="; ".join(refused)) if refused else Accepted()


def _is_number(id_: str) -> bool:
    return id_.rpartition("/")[2].isdecimal()
