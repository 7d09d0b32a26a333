"""What a node knows of others until it has left; how actors hear of it is in test_watching.py."""

from __future__ import annotations

from actors.runtime.node import Hosted, Node
from actors.runtime.registry.base import Listed, Observer
from actors.runtime.registry.local import LocalRegistry, LocalStore
from actors.runtime.transport.local import LocalBus, LocalTransport
from tests.actors.runtime.stage import Watcher


class LastWord(LocalRegistry):
    """One that is cut off as it is left: it lists nobody any more."""

    async def start(self, observer: Observer) -> None:
        self.observer = observer
        await super().start(observer)

    async def close(self) -> None:
        self.observer(Listed(()))
        await super().close()


async def test_a_node_that_has_left_waits_for_nobody_s_return() -> None:
    bus, store = LocalBus(), LocalStore()
    other = Node("other", "test", LocalTransport(bus), LocalRegistry(store))
    await other.start([Hosted(actor=Watcher, role="w")])
    node = Node("node", "test", LocalTransport(bus), LastWord(store))
    await node.start()
    assert node.directory.find("w/0") is not None

    await node.stop()

    expiry = node._presence._expiry
    assert expiry is not None, "the last word was heard"
    assert expiry.cancelled()
    await other.stop()
