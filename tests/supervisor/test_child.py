"""A child and what forks it, as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from supervisor.child import Child
from supervisor.launchers.zygote import Image
from supervisor.layout import Layout
from supervisor.plane import zygote_specs
from supervisor.recipe import Recipe
from supervisor.tree import KILLED, Reason

PATIENCE_S = 60.0


async def test_a_zygote_that_does_not_fork_in_time_is_killed_with_what_it_should_fork(
    tmp_path: Path,
) -> None:
    """What the tree does when a start has taken too long is `kill`."""
    layout = Layout(tmp_path, os.environ)
    layout.create()
    ended: asyncio.Queue[tuple[str, Reason]] = asyncio.Queue()
    image = Image(name="zygote/own", actors=(), base_dir=str(tmp_path))
    (spec,) = zygote_specs([image], layout, os.environ)
    forked = Recipe(argv=(), env={}, cwd=str(tmp_path), zygote=image.name)

    def child(name: str, recipe: Recipe) -> Child:
        return Child(
            name,
            1,
            recipe,
            layout,
            on_process=lambda _: None,
            on_link=lambda _: None,
            on_ready=lambda _: None,
            on_alive=lambda _: None,
            on_exit=lambda child, reason: ended.put_nowait((child.id, reason)),
        )

    zygote = child(image.name, spec.data)
    zygote.start({})
    assert zygote.process is not None
    frozen = zygote.process.pid
    try:
        os.kill(frozen, signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, frozen, os.WSTOPPED | os.WNOWAIT)
        hello = child("hello/0", forked)
        hello.start({}, zygote.zygote)

        hello.kill()

        async with asyncio.timeout(PATIENCE_S):
            told = dict([await ended.get(), await ended.get()])
    finally:
        zygote.kill()
    assert told["hello/0"] == KILLED
    assert "SIGKILL" in str(told["zygote/own"])
