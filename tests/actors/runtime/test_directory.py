"""The directory against arbitrary news: lives only move on, and each ends once."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.address import Address
from actors.runtime.directory import Change, Directory, Left, Up
from actors.runtime.message import WIRE_VERSION
from actors.runtime.registry.base import Deleted, Entry, Listed, Put, State

GRACE_S = 10.0


class Silent(NamedTuple):
    host: str


class Heard(NamedTuple):
    host: str


def entry(
    instance: int,
    incarnation: int,
    state: State = State.READY,
    host: str = "h",
    wire: int = WIRE_VERSION,
) -> Entry:
    return Entry(
        role="echo",
        instance=instance,
        incarnation=incarnation,
        state=state,
        node="n",
        host=host,
        wire=wire,
        pid=1,
    )


HOSTS = st.sampled_from(["h", "g"])


def some_entry(instance: int, incarnation: int, state: State) -> Entry:
    """A life is on one host, and speaks one version."""
    host, wire = "hg"[incarnation % 2], WIRE_VERSION + (incarnation == 4)
    return entry(instance, incarnation, state, host, wire)


ENTRIES = st.builds(some_entry, st.integers(0, 1), st.integers(0, 5), st.sampled_from(State))
LISTS = st.lists(ENTRIES, max_size=3, unique_by=lambda item: item.name)
NEWS = st.one_of(
    st.builds(Put, ENTRIES),
    st.builds(Deleted, st.sampled_from(["echo/0", "echo/1"])),
    st.builds(lambda entries: Listed(tuple(entries)), LISTS),
    st.builds(lambda i, n: Address("echo", i, n), st.integers(0, 1), st.integers(1, 5)),
    st.floats(0.0, 2 * GRACE_S),
    st.builds(Silent, HOSTS),
    st.builds(Heard, HOSTS),
)


def play(directory: Directory, news: object, now: float) -> list[Change]:
    """Apply one piece of news: an observation, the end of a life, or a step of time."""
    match news:
        case Silent(host):
            return directory.silent(host)
        case Heard(host):
            return directory.heard(host)
        case Address():
            return directory.ended(news, "seen")
        case float():
            return directory.expire(now)
        case Put() | Deleted() | Listed():
            return directory.observe(news, now)
    raise AssertionError(news)


@given(st.lists(NEWS, max_size=40))
def test_lives_only_move_on_and_each_end_is_told_once(story: list[object]) -> None:
    directory, now = Directory(GRACE_S), 0.0
    alive: dict[str, int] = {}
    highest: dict[str, int] = {}
    certain: dict[str, int] = {}
    silent: set[str] = set()
    for news in story:
        now += news if isinstance(news, float) else 0.0
        if isinstance(news, Address):
            certain[news.name] = max(news.incarnation, certain.get(news.name, 0))
        if isinstance(news, Silent | Heard):
            (silent.add if isinstance(news, Silent) else silent.discard)(news.host)
        for change in play(directory, news, now):
            if isinstance(change, Up):
                address = change.entry.address
                assert address.incarnation >= highest.get(address.name, 1)
                assert address.incarnation > certain.get(address.name, 0)
                assert alive.get(address.name, address.incarnation) == address.incarnation
                alive[address.name] = highest[address.name] = address.incarnation
                assert not directory.has_ended(address)
                assert change.entry.host not in silent
                assert change.entry.wire == WIRE_VERSION
            else:
                address = change.address
                if alive.get(address.name) == address.incarnation:
                    del alive[address.name]
                else:  # never seen here; only a witness can tell of it
                    assert address == news
                # Of a silent host nothing has ended: it is not there for the time being.
                assert directory.has_ended(address) != isinstance(news, Silent)
        known = {item.name: item.incarnation for item in directory.all()}
        assert known == alive
        ready = [item for item in directory.all() if item.state is State.READY]
        assert directory.ready("echo") == ready
        picked = {item.name for _ in ready if (item := directory.pick("echo"))}
        assert picked == {item.name for item in ready}


def test_a_newer_life_ends_the_older_one_first() -> None:
    directory = Directory()
    directory.observe(Put(entry(0, 3)), 0)

    changes = directory.observe(Put(entry(0, 5)), 0)

    assert changes == [Left(Address("echo", 0, 3), "was replaced"), Up(entry(0, 5))]


def test_an_older_life_never_comes_back_even_after_the_newer_one_left() -> None:
    directory = Directory()
    directory.observe(Put(entry(0, 5)), 0)
    directory.observe(Deleted("echo/0"), 0)

    assert directory.observe(Put(entry(0, 3)), 0) == []
    assert directory.has_ended(Address("echo", 0, 3))


def test_a_life_that_only_its_lease_gave_up_may_come_back() -> None:
    directory = Directory()
    directory.observe(Put(entry(0, 5)), 0)
    directory.observe(Deleted("echo/0"), 0)
    assert directory.has_ended(Address("echo", 0, 5))

    assert directory.observe(Put(entry(0, 5)), 0) == [Up(entry(0, 5))]
    assert not directory.has_ended(Address("echo", 0, 5))


def test_late_news_of_a_life_seen_to_end_is_ignored() -> None:
    directory = Directory()
    directory.observe(Put(entry(0, 5)), 0)
    assert directory.ended(Address("echo", 0, 5), "exit") == [Left(Address("echo", 0, 5), "exit")]

    assert directory.observe(Put(entry(0, 5, State.DRAINING)), 0) == []
    assert directory.observe(Deleted("echo/0"), 0) == []
    assert directory.ended(Address("echo", 0, 5), "again") == []
    assert directory.observe(Put(entry(0, 6)), 0) == [Up(entry(0, 6))]


def test_the_end_of_a_life_never_heard_of_is_told() -> None:
    assert Directory().ended(Address("echo", 0, 5), "exit") == [Left(Address("echo", 0, 5), "exit")]


def test_a_life_not_heard_of_yet_has_not_ended() -> None:
    directory = Directory()
    directory.observe(Put(entry(0, 5)), 0)

    assert not directory.has_ended(Address("echo", 0, 6))
    assert not directory.has_ended(Address("echo", 0))
    assert not directory.has_ended(Address("echo", 1, 1))


def test_what_a_later_list_lacks_is_kept_for_the_grace_period() -> None:
    directory = Directory(GRACE_S)
    directory.observe(Listed((entry(0, 1), entry(1, 2))), 0)

    assert directory.observe(Listed(()), 100) == []
    due = directory.next_expiry
    assert due == 100 + GRACE_S
    assert directory.observe(Listed((entry(1, 2),)), 105) == []
    assert directory.expire(100 + GRACE_S - 0.01) == []

    assert directory.expire(100 + GRACE_S) == [Left(Address("echo", 0, 1), "its lease ran out")]
    assert directory.next_expiry is None
    assert directory.find("echo/1") == entry(1, 2)


def test_the_actors_of_a_silent_host_are_missed_and_come_back_in_the_same_lives() -> None:
    directory = Directory(GRACE_S)
    here, there = entry(0, 7, host="h"), entry(1, 9, host="g")
    directory.observe(Listed((here, there)), 0.0)

    assert directory.silent("g") == [Left(there.address, "its host g is silent")]
    assert (directory.ready("echo"), directory.find("echo/1")) == ([here], None)
    assert not directory.has_ended(there.address)
    assert [directory.is_away(one.address) for one in (here, there)] == [False, True]
    # What the registry says of it meanwhile is remembered.
    draining = entry(1, 9, State.DRAINING, host="g")
    assert directory.observe(Put(draining), 1.0) == []

    assert directory.heard("g") == [Up(draining)]
    assert not directory.is_away(there.address)


def test_a_life_that_is_over_is_away_and_one_not_heard_of_yet_is_not() -> None:
    directory = Directory(GRACE_S)
    directory.observe(Listed((entry(0, 7),)), 0.0)

    lives = [Address("echo", 0, 6), Address("echo", 0, 7), Address("echo", 0, 8)]

    assert [directory.is_away(life) for life in lives] == [True, False, False]


def test_who_speaks_another_wire_format_is_left_alone() -> None:
    directory = Directory(GRACE_S)
    foreign = entry(0, 7, wire=WIRE_VERSION + 1)

    assert directory.observe(Put(foreign), 0.0) == []
    assert (directory.ready("echo"), directory.unspoken()) == ([], [foreign])

    ours = entry(0, 8)
    assert directory.observe(Put(ours), 0.0) == [Up(ours)]
    assert directory.unspoken() == []
