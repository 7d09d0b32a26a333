from __future__ import annotations

import asyncio

from actors.runtime.link import Beat
from supervisor.vigil import Vigil
from supervisor.watchdog import Deadlines

SHORT = Deadlines(heartbeat_s=0.01, progress_s=None)


async def test_whoever_is_silent_is_named_with_the_reason() -> None:
    verdict: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    vigil = Vigil(lambda name, reason: verdict.set_result((name, reason)))

    vigil.watch("a/0", SHORT)
    name, reason = await verdict

    assert name == "a/0"
    assert reason.startswith("hung: no heartbeat for ")
    assert not vigil.watches("a/0")
    vigil.close()


async def test_work_is_judged_by_what_beats_say() -> None:
    verdict: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    vigil = Vigil(lambda name, reason: verdict.set_result((name, reason)))
    vigil.watch("a/0", Deadlines(heartbeat_s=3600.0, progress_s=0.01))

    vigil.hear("a/0", Beat(progress=3, busy=True, lag_s=0.0))
    _, reason = await verdict

    assert reason.startswith("stuck: no progress for ")
    vigil.close()


async def test_a_verdict_may_bring_about_the_next_watch() -> None:
    """The replacement is watched from within the call."""
    names: asyncio.Queue[str] = asyncio.Queue(2)

    def replace(name: str, _reason: str) -> None:
        names.put_nowait(name)
        if name == "a/0":
            vigil.watch("b/0", SHORT)

    vigil = Vigil(replace)
    vigil.watch("a/0", SHORT)

    assert [await names.get(), await names.get()] == ["a/0", "b/0"]
    vigil.close()


async def test_without_deadlines_and_after_the_end_nothing_is_expected() -> None:
    vigil = Vigil(lambda *_: None)

    vigil.watch("a/0", None)
    vigil.watch("b/0", SHORT)
    vigil.forget("b/0")
    vigil.hear("b/0")

    assert not vigil.watches("a/0")
    assert not vigil.watches("b/0")
    vigil.close()
