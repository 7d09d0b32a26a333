"""Who is taken to be away, by pure rules: never everybody, and never for a delay of our own."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.actor import Down, Joined
from actors.runtime.hosts import BEAT_S, LOOK_S, HostBeat, Hosts
from actors.runtime.message import encode
from actors.runtime.node import Hosted, host_beats
from tests.actors.runtime.stage import NAMESPACE, Echo, Note, Watcher, settle, stage

SILENCE_S = 1.5
ALL = ("own", "other", "third")


def play(hosts: Hosts, now: float, for_s: float, heard: tuple[str, ...]) -> tuple[float, list[str]]:
    """Look on time, these hosts being heard before each look."""
    fallen: list[str] = []
    until = now + for_s
    while now < until:
        for host in heard:
            hosts.heard(host, now)
        now += LOOK_S
        fallen += hosts.look(ALL, now).silent
    return now, fallen


def test_a_host_that_is_heard_no_more_is_missed_in_time() -> None:
    hosts = Hosts("own", SILENCE_S)
    now, fallen = play(hosts, 0.0, 5.0, ALL)
    assert fallen == []

    now, fallen = play(hosts, now, SILENCE_S - 2 * LOOK_S, ("own", "third"))
    assert fallen == []
    now, fallen = play(hosts, now, LOOK_S, ("own", "third"))
    assert fallen == ["other"]
    assert hosts.silent == {"other"}

    assert play(hosts, now, 10.0, ("own", "third"))[1] == [], "it is said once"
    assert hosts.heard("other", now)
    assert not hosts.heard("other", now)
    assert hosts.silent == set()


def test_who_hears_nothing_blames_nobody_and_then_gives_everybody_the_whole_time() -> None:
    hosts = Hosts("own", SILENCE_S)
    now, _ = play(hosts, 0.0, 5.0, ALL)

    now, fallen = play(hosts, now, 60.0, ())
    assert fallen == []

    # The connection is back, and the others' are not yet.
    now, fallen = play(hosts, now, SILENCE_S - LOOK_S, ("own",))
    assert fallen == []
    assert set(play(hosts, now, 2 * LOOK_S, ("own",))[1]) == {"other", "third"}


def test_a_delay_of_our_own_counts_against_nobody() -> None:
    hosts = Hosts("own", SILENCE_S)
    now, _ = play(hosts, 0.0, 5.0, ALL)

    assert hosts.look(ALL, now + 60.0).silent == ()
    assert hosts.look(ALL, now + 60.0 + LOOK_S).silent == ()


def test_a_host_that_never_let_itself_be_heard_is_not_missed() -> None:
    hosts = Hosts("own", SILENCE_S)
    assert play(hosts, 0.0, 60.0, ("own", "third"))[1] == []


def test_a_host_without_actors_is_forgotten() -> None:
    hosts = Hosts("own", SILENCE_S)
    now, _ = play(hosts, 0.0, 5.0, ALL)
    assert hosts.look(("own",), now).silent == ()
    assert play(hosts, now, 60.0, ("own", "third"))[1] == []


def test_a_silent_host_whose_actors_have_left_the_registry_is_back_when_it_is_heard() -> None:
    hosts = Hosts("own", SILENCE_S)
    now, _ = play(hosts, 0.0, 5.0, ALL)
    now, fallen = play(hosts, now, 5.0, ("own", "third"))
    assert fallen == ["other"]

    hosts.look(("own", "third"), now + LOOK_S)
    assert hosts.heard("other", now + LOOK_S)


def test_one_beat_of_a_host_speaks_for_all_its_nodes() -> None:
    nodes = [Hosts("own", SILENCE_S) for _ in range(5)]
    beats = 0
    for look in range(400):
        for number, node in enumerate(nodes):
            now = look * LOOK_S + number * LOOK_S / 5
            if node.look(ALL, now).beat:
                beats += 1
                for each in nodes:
                    each.heard("own", now)
    assert 400 * LOOK_S / (BEAT_S + LOOK_S) <= beats <= 400 * LOOK_S / BEAT_S


STEPS = st.lists(
    st.tuples(st.floats(0.0, 3.0), st.sets(st.sampled_from(ALL))), min_size=1, max_size=60
)


@given(STEPS)
def test_nobody_is_missed_before_the_time_and_never_oneself(
    steps: list[tuple[float, set[str]]],
) -> None:
    hosts, now = Hosts("own", SILENCE_S), 0.0
    last = dict.fromkeys(ALL, 0.0)
    for passed_s, heard in steps:
        # Half of it before the beats and half of it after.
        now += passed_s / 2
        for host in heard:
            last[host] = now
            hosts.heard(host, now)
        now += passed_s / 2
        fallen = hosts.look(ALL, now).silent
        for host in fallen:
            assert now - last[host] >= SILENCE_S - 1e-9
        assert "own" not in hosts.silent


async def test_actors_of_a_host_that_is_not_heard_are_down_until_it_is() -> None:
    async with stage() as opened:
        there = await opened.node(Hosted(actor=Echo, role="echo"), host="there", host_silence_s=1.0)
        here = await opened.node(Hosted(actor=Watcher, role="w"), host="here", host_silence_s=1.0)
        watcher = here.cells[0].actor
        assert isinstance(watcher, Watcher)
        echo = there.cells[0].actor.address
        watcher.watch("echo")
        assert [type(note) for note in await watcher.until(1)] == [Joined]
        beats = asyncio.Event()
        unheard = encode(HostBeat("there"))

        def lose(subject: str, frame: bytes) -> list[float]:
            if subject != host_beats(NAMESPACE):
                return [0.0]
            beats.set()
            return [] if frame == unheard else [0.0]

        # Heard once, or its silence would mean nothing.
        there.transport.publish(host_beats(NAMESPACE), unheard)
        await settle()
        opened.bus.fate = lose
        seen = await watcher.until(2)
        assert seen[1] == Down(echo, "its host there is silent")
        assert here.silent_hosts == {"there"}
        # It was only not heard: who knows its address can still talk to it, and it blames nobody.
        assert await watcher.ask(echo, Note("hi"), reply=str, timeout_s=5.0) == "hi!"
        assert beats.is_set()

        opened.bus.fate = lambda _subject, _frame: [0.0]
        back = (await watcher.until(3))[2]
        assert isinstance(back, Joined)
        assert back.entry.address == echo
        assert here.silent_hosts == there.silent_hosts == set()
