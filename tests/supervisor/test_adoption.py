from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.adoption import NOTHING, choose, identity_of
from supervisor.runstate import Holder, RunningChild, RunState

HOLDER = Holder(pid=1, pid_started=1, since=0.0, namespace="blue", topology="t.yaml")


def child(name: str, pid: int = 10, *, identity: str = "as ever", life: int = 5) -> RunningChild:
    return RunningChild(
        name=name, pid=pid, pid_started=pid, run=1, identity=identity, incarnations={name: life}
    )


def state(*children: RunningChild, **above: int) -> RunState:
    return RunState(supervisor=HOLDER, children=children, above=above)


def yes(_child: RunningChild) -> bool:
    return True


def test_without_a_run_state_there_is_nothing_to_do() -> None:
    assert choose({"a/0": "as ever"}, None, yes) == NOTHING


def test_what_lives_and_is_unchanged_is_taken_over() -> None:
    found = choose({"a/0": "as ever"}, state(child("a/0")), yes)

    assert found.taken == {"a/0": child("a/0")}
    assert (found.refused, found.lost) == ((), ())


def test_what_would_be_started_otherwise_today_is_ended() -> None:
    found = choose({"a/0": "changed"}, state(child("a/0")), yes)

    assert found.taken == {}
    assert found.refused == (child("a/0"),)


def test_what_is_no_longer_in_the_topology_is_ended() -> None:
    assert choose({}, state(child("a/0")), yes).refused == (child("a/0"),)


def test_what_has_no_identity_is_never_taken_over() -> None:
    """A zygote speaks to the supervisor that started it, and to no other."""
    nameless = child("a/0", identity="")

    assert choose({"a/0": ""}, state(nameless), yes).refused == (nameless,)


def test_a_process_that_has_got_the_pid_since_is_left_alone() -> None:
    """`is_alive` compares start times; whoever fails it is neither taken over nor ended."""
    found = choose({"a/0": "as ever"}, state(child("a/0")), lambda _: False)

    assert (found.taken, found.refused) == ({}, ())
    assert found.lost == (child("a/0"),)


def test_the_last_lives_of_all_actors_are_known() -> None:
    found = choose({}, state(child("a/0", life=7), **{"a/0": 3, "b/0": 4}), lambda _: False)

    assert found.above == {"a/0": 7, "b/0": 4}


@given(
    st.lists(st.builds(child, st.sampled_from("abc"), st.integers(1, 6)), max_size=8),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["as ever", "changed"])),
    st.sets(st.integers(1, 6)),
)
def test_every_living_process_is_taken_over_or_ended_and_no_name_is_doubled(
    children: list[RunningChild], identities: dict[str, str], living: set[int]
) -> None:
    found = choose(identities, state(*children), lambda one: one.pid in living)

    kept = [*found.taken.values(), *found.refused]
    assert sorted(one.pid for one in kept) == sorted(c.pid for c in children if c.pid in living)
    assert len(kept) + len(found.lost) == len(children)
    assert all(identities[name] == one.identity for name, one in found.taken.items())


def test_an_identity_does_not_depend_on_the_order_of_keys() -> None:
    assert identity_of({"a": 1, "b": 2}) == identity_of({"b": 2, "a": 1})
    assert identity_of({"a": 1}) != identity_of({"a": 2})
