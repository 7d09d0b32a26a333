"""The mailbox: bounded, in order, and honest about what it refused."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.mailbox import Mailbox


@given(st.integers(1, 5), st.lists(st.sampled_from(["offer", "urgent", "take"]), max_size=30))
def test_it_is_a_bounded_queue_that_counts(limit: int, steps: list[str]) -> None:
    async def main() -> None:
        mailbox: Mailbox[int] = Mailbox(limit)
        model: list[int] = []
        accepted = refused = peak = 0
        for number, step in enumerate(steps):
            if step == "take" and model:
                assert await mailbox.get() == model.pop(0)
            elif step == "offer" and len(model) >= limit:
                assert not mailbox.offer(number)
                refused += 1
            elif step != "take":
                if step == "offer":
                    assert mailbox.offer(number)
                else:
                    mailbox.put_urgent(number)
                model.append(number)
                accepted += 1
                peak = max(peak, len(model))
            assert mailbox.statistics() == (len(model), limit, accepted, refused, peak)
        assert mailbox.clear() == model
        assert len(mailbox) == 0

    asyncio.run(main())


async def test_get_waits_for_the_next_offer() -> None:
    mailbox: Mailbox[str] = Mailbox(1)
    waiting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)
    assert not waiting.done()

    mailbox.offer("late")

    assert await waiting == "late"


async def test_a_cancelled_get_takes_nothing() -> None:
    mailbox: Mailbox[str] = Mailbox(1)
    waiting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)
    mailbox.offer("kept")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert await mailbox.get() == "kept"


def test_a_limit_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Mailbox(0)
