from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.engines.journal import CacheJournal
from actors.kv.blocks import Added, Evicted
from actors.messages.cache import CacheEvent, Removed, Stored


def read(index: dict[int, int | None], events: list[CacheEvent]) -> None:
    for event in events:
        if isinstance(event, Removed):
            for block in event.blocks:
                del index[block]
        else:
            parent = event.parent
            for block in event.blocks:
                assert block not in index
                assert parent is None or parent in index
                index[block] = parent
                parent = block


def test_what_came_and_went_between_two_readings_is_not_told() -> None:
    journal = CacheJournal()
    journal.apply([Added(None, (1, 2)), Evicted((2,))])

    assert journal.take() == [Stored(None, (1,))]
    journal.apply([Evicted((1,)), Added(None, (1,))])
    assert journal.take() == []


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["add", "evict", "take", "snapshot"])))
)
def test_a_reader_always_ends_up_with_what_is_there(actions: list[tuple[int, str]]) -> None:
    """Blocks 0..12 form a binary tree; only leaves are evicted, as the pool does."""
    journal = CacheJournal()
    truth: dict[int, int | None] = {}
    index: dict[int, int | None] = {}
    for block, action in actions:
        parent = (block - 1) // 2 if block else None
        if action == "add" and block not in truth and (parent is None or parent in truth):
            truth[block] = parent
            journal.apply([Added(parent, (block,))])
        elif action == "evict" and block in truth and block not in truth.values():
            del truth[block]
            journal.apply([Evicted((block,))])
        elif action == "take":
            read(index, journal.take())
            assert index == truth
        elif action == "snapshot":
            index = {}
            read(index, journal.snapshot())
            assert index == truth
    read(index, journal.take())
    assert index == truth
