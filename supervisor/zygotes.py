"""The children that fork others: a zygote, or the ranks under one mpirun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from supervisor.launchers.local import Exit
from supervisor.launchers.world import World
from supervisor.launchers.zygote import Zygote
from supervisor.recipe import Recipe


def start_zygote(
    recipe: Recipe, log: Path, on_exit: Callable[[Exit], None]
) -> Zygote | World | None:
    """Start it, if the recipe is for one; None otherwise. Raises OSError."""
    env, cwd = recipe.env, Path(recipe.cwd)
    if recipe.image is not None:
        return Zygote(recipe.image, env=env, cwd=cwd, log_file=log, on_exit=on_exit)
    if recipe.world is not None:
        image, argv = recipe.world, recipe.argv
        return World(image, argv, env=env, cwd=cwd, log_file=log, on_exit=on_exit)
    return None
