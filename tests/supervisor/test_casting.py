"""Who steps in for whom."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from supervisor.casting import Casting

PART, OTHER = "decode with model A", "decode with model B"
UNDERSTUDIES, PRINCIPALS = ("s/0", "s/1", "s/2"), ("g/0", "g/1")


@pytest.fixture
def casting() -> Casting:
    """With a principal that has fallen."""
    return Casting(fallen=["g/0"])


def loaded(casting: Casting, *names: str, part: str = PART) -> None:
    for name in names:
        casting.comes(name, part)
        casting.rehearsed(name)


def test_a_loaded_understudy_steps_in_for_a_principal_that_fell(casting: Casting) -> None:
    loaded(casting, "s/0")

    assert casting.step_in("g/0", PART) == "s/0"


def test_it_steps_in_once(casting: Casting) -> None:
    loaded(casting, "s/0")
    casting.step_in("g/0", PART)
    casting.ended("g/0", fell=True)

    assert casting.step_in("g/0", PART) is None


def test_nobody_steps_in_at_a_first_start_or_for_one_that_was_told_to_leave(
    casting: Casting,
) -> None:
    loaded(casting, "s/0")
    casting.ended("g/1", fell=True)
    casting.ended("g/1", fell=False)

    assert casting.step_in("g/1", PART) is None
    assert casting.step_in("g/2", PART) is None


def test_a_fall_counts_for_one_start(casting: Casting) -> None:
    assert casting.step_in("g/0", PART) is None  # nobody was there
    loaded(casting, "s/0")

    assert casting.step_in("g/0", PART) is None


def test_one_that_was_started_as_another_part_stays_where_it_is(casting: Casting) -> None:
    loaded(casting, "s/0", part=OTHER)

    assert casting.step_in("g/0", PART) is None


def test_who_has_waited_longest_goes_first(casting: Casting) -> None:
    casting.comes("s/0", PART)
    loaded(casting, "s/1", "s/2")
    casting.rehearsed("s/0")

    assert casting.step_in("g/0", PART) == "s/1"


def test_one_that_still_loads_is_better_than_none_and_worse_than_a_loaded_one(
    casting: Casting,
) -> None:
    casting.comes("s/0", PART)
    loaded(casting, "s/1")
    assert casting.step_in("g/0", PART) == "s/1"

    casting.ended("g/0", fell=True)
    assert casting.step_in("g/0", PART) == "s/0"


def test_one_that_has_failed_is_not_trusted_until_it_is_loaded(casting: Casting) -> None:
    casting.comes("s/0", PART)
    casting.ended("s/0", fell=True)
    casting.comes("s/0", PART)
    assert casting.step_in("g/0", PART) is None

    casting.ended("g/0", fell=True)
    casting.rehearsed("s/0")
    assert casting.step_in("g/0", PART) == "s/0"


def test_one_that_is_told_to_leave_steps_in_for_nobody(casting: Casting) -> None:
    loaded(casting, "s/0")
    casting.leaves("s/0")
    casting.rehearsed("s/0")

    assert casting.step_in("g/0", PART) is None


class Anything(RuleBasedStateMachine):
    """Whatever is told in whatever order: whoever steps in is here, fits, and does so once; and
    nobody steps in for a principal that did not fall since its last start."""

    def __init__(self) -> None:
        super().__init__()
        self.casting = Casting()
        self.here: dict[str, str] = {}
        self.loaded: set[str] = set()
        self.fallen: set[str] = set()

    @rule(name=st.sampled_from(UNDERSTUDIES), part=st.sampled_from([PART, OTHER]))
    def comes(self, name: str, part: str) -> None:
        self.casting.comes(name, part)
        self.here[name] = part
        self.loaded.discard(name)

    @rule(name=st.sampled_from(UNDERSTUDIES))
    def is_loaded(self, name: str) -> None:
        self.casting.rehearsed(name)
        if name in self.here:
            self.loaded.add(name)

    @rule(name=st.sampled_from(UNDERSTUDIES), leaves=st.booleans(), fell=st.booleans())
    def goes(self, name: str, leaves: bool, fell: bool) -> None:
        self.casting.leaves(name) if leaves else self.casting.ended(name, fell=fell)
        self.here.pop(name, None)
        self.loaded.discard(name)

    @rule(name=st.sampled_from(PRINCIPALS), fell=st.booleans())
    def ends(self, name: str, fell: bool) -> None:
        self.casting.ended(name, fell=fell)
        (self.fallen.add if fell else self.fallen.discard)(name)

    @rule(name=st.sampled_from(PRINCIPALS), part=st.sampled_from([PART, OTHER]))
    def is_started(self, name: str, part: str) -> None:
        chosen = self.casting.step_in(name, part)
        fitting = {one for one, is_for in self.here.items() if is_for == part}
        if name not in self.fallen:
            assert chosen is None
        elif fitting & self.loaded:
            assert chosen in fitting & self.loaded
        else:
            assert chosen is None or chosen in fitting
        self.fallen.discard(name)
        if chosen is not None:
            del self.here[chosen]
            self.loaded.discard(chosen)


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
