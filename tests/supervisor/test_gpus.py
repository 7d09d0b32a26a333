"""Whose GPUs are whose."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gpus import Gpus, NoGpusError, host_gpus, parse_listing, parse_visible

LISTING = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
  MIG 1g.5gb      Device  0: (UUID: MIG-1)
  MIG 1g.5gb      Device  1: (UUID: MIG-2)
GPU 2: NVIDIA H200 (UUID: GPU-cccc)
"""


def test_grants_are_disjoint_and_come_back_only_when_freed() -> None:
    gpus = Gpus(("0", "1", "2"))

    assert gpus.grant("a/0", 2) == ("0", "1")
    assert gpus.grant("b/0", 1) == ("2",)
    with pytest.raises(NoGpusError, match="needs 1 GPUs; 0 of this host's 3 are free"):
        gpus.grant("c/0", 1)
    gpus.free("a/0")
    assert gpus.grant("c/0", 1) == ("0",)


def test_an_owner_gets_what_it_had_before() -> None:
    gpus = Gpus(("0", "1", "2", "3"))
    gpus.grant("a/0", 1)
    gpus.grant("b/0", 2)
    gpus.free("a/0")
    gpus.free("b/0")

    assert gpus.grant("b/0", 2) == ("1", "2")


def test_others_are_given_what_nobody_has_had_yet() -> None:
    gpus = Gpus(("0", "1"))
    gpus.grant("a/0", 1)
    gpus.free("a/0")

    assert gpus.grant("b/0", 1) == ("1",)
    assert gpus.grant("a/0", 1) == ("0",)


def test_a_refused_grant_leaves_nothing_behind() -> None:
    gpus = Gpus(("0",))
    with pytest.raises(NoGpusError):
        gpus.grant("a/0", 2)

    assert gpus.of("a/0") == ()
    assert gpus.grant("b/0", 1) == ("0",)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.booleans()), max_size=40),
    st.integers(0, 6),
)
def test_no_device_ever_has_two_owners(wishes: list[tuple[str, int, bool]], devices: int) -> None:
    gpus = Gpus(tuple(map(str, range(devices))))
    books: dict[str, tuple[str, ...]] = {}
    for owner, count, leaves in wishes:
        if owner in books or leaves:
            gpus.free(owner)
            books.pop(owner, None)
            continue
        taken = sum(map(len, books.values()))
        if count > devices - taken:
            with pytest.raises(NoGpusError):
                gpus.grant(owner, count)
            continue
        books[owner] = gpus.grant(owner, count)
        assert len(books[owner]) == count
        owned = Counter(device for granted in books.values() for device in granted)
        assert set(owned.values()) <= {1}
        assert all(gpus.of(name) == granted for name, granted in books.items())


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("0,1", ("0", "1")),
        ("", ()),
        ("GPU-aaaa, MIG-1", ("GPU-aaaa", "MIG-1")),
        ("2,-1,0", ("2",)),
        ("1,1", ("1",)),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(text: str, devices: tuple[str, ...]) -> None:
    assert parse_visible(text) == devices
    assert host_gpus({"CUDA_VISIBLE_DEVICES": text}) == devices


def test_a_divided_gpu_stands_for_its_parts() -> None:
    assert parse_listing(LISTING) == ("GPU-aaaa", "MIG-1", "MIG-2", "GPU-cccc")


def test_whoever_was_taken_over_keeps_its_devices_and_no_other_gets_them() -> None:
    books = Gpus(("a", "b", "c"))

    books.keep("old/0", ["b", "from another host"])

    assert books.of("old/0") == ("b",)
    assert books.grant("new/0", 2) == ("a", "c")
    books.free("old/0")
    assert books.grant("old/0", 1) == ("b",)


def test_what_an_understudy_holds_goes_with_its_process_to_whom_it_stands_in_for() -> None:
    gpus = Gpus(("0", "1", "2"))
    gpus.grant("g/0", 1)
    gpus.grant("g/standby/0", 1)
    gpus.free("g/0")

    gpus.hand_over("g/standby/0", "g/0")

    assert gpus.of("g/0") == ("1",)
    assert gpus.of("g/standby/0") == ()
    # One that nobody has ever had, so that the one that fell may still get its own again.
    assert gpus.grant("g/standby/0", 1) == ("2",)
