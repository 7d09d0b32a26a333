"""Takes over what an earlier supervisor left running; `adoption` has chosen what."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from supervisor.adoption import Adoption
from supervisor.child import Child
from supervisor.gpus import GPU_VARIABLE, Gpus
from supervisor.leftovers import end_leftovers
from supervisor.recipe import Recipe
from supervisor.record import running
from supervisor.vigil import Vigil

ADOPTION_GRACE_S = 1.0
"""For a node to find the new socket, beyond what it has for a heartbeat."""


class Unclaimed:
    """Those taken over that the tree has not asked to be started yet."""

    def __init__(self, adopted: Adoption, gpus: Gpus, vigil: Vigil) -> None:
        self._adopted = adopted
        self._gpus = gpus
        self._vigil = vigil
        self._children: dict[str, Child] = {}
        """By id."""

    def take_over(
        self, recipes: Mapping[str, Recipe], make: Callable[[str, int, Recipe], Child]
    ) -> None:
        """Watch what is adopted from now on; the tree's orders to start it follow."""
        for name, left in self._adopted.taken.items():
            child = make(name, left.run, recipes[name])
            try:
                child.adopt(left, self._adopted.above)
            except OSError:
                continue  # it has ended meanwhile, and is started like anything that has
            self._children[name] = child
            self._gpus.keep(name, left.granted.get(GPU_VARIABLE, "").split(","))
            recipe = child.recipe
            if left.incarnations or left.rehearsed or recipe.probe is not None or recipe.pulse:
                # It was ready. Otherwise it may still be loading, with its start's deadline.
                self._vigil.watch(name, child.recipe.watchdog, grace_s=ADOPTION_GRACE_S)

    def claim(self, name: str) -> Child | None:
        """Give a child to the tree, which asks for its start; None when it has to be started."""
        return self._children.pop(name, None)

    def drop(self, child: Child) -> bool:
        """Forget a child that has ended; False when it is none of these."""
        if self._children.get(child.id) is not child:
            return False
        del self._children[child.id]
        return True

    def get(self, name: str) -> Child | None:
        return self._children.get(name)

    def all(self) -> list[Child]:
        return list(self._children.values())

    def stop(self, *, force: bool) -> None:
        """Tell all of them to end: the tree does not know of them."""
        for name, child in self._children.items():
            self._vigil.forget(name)
            (child.kill if force else child.stop)()

    async def end(self) -> None:
        """Return when none of them is left."""
        await end_leftovers(running(child) for child in self._children.values())
