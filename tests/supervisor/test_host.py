"""What a topology may ask of a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.host import Host, check_host, this_host, wants_gpus
from supervisor.topology import Reading, TopologyError, read_text

SMALL = Host(gpus=("0", "1"), cpus=frozenset({0, 1}), nice=0, may_renice=False, open_files=1000)


def reading(child: str) -> Reading:
    return read_text(f"children:\n  - {{actor: router, {child}}}\n", Path("x.yaml"), environ={})


@pytest.mark.parametrize(
    "child", ["gpus: 2", "replicas: 2, gpus: 1", "cpus: 0-1", "nice: 5", "open_files: 1000"]
)
def test_what_the_host_has_may_be_asked_for(child: str) -> None:
    check_host(reading(child), SMALL)


@pytest.mark.parametrize(
    ("child", "complaint"),
    [
        (
            "gpus: 3",
            "gpus: expected at most 2 GPUs in all, as many as this host has for us; found 3",
        ),
        ("replicas: 3, gpus: 1", "expected at most 2 GPUs in all"),
        ("cpus: 1-2", "cpus: expected processors that we may use; found 2"),
        ("nice: -1", "nice: expected 0 or more, as we are not root; found -1"),
        ("open_files: 1001", "open_files: expected at most 1000, the hard limit here; found 1001"),
        ("gpus: 1, env: {CUDA_VISIBLE_DEVICES: 0}", "not both; found both"),
    ],
)
def test_more_is_told_at_its_place_in_the_file(child: str, complaint: str) -> None:
    with pytest.raises(TopologyError) as raised:
        check_host(reading(child), SMALL)

    [problem] = raised.value.problems
    assert complaint in str(problem)
    assert problem.place.line == 2


def test_a_group_is_blamed_at_its_own_place() -> None:
    text = "children:\n  - name: front\n    gpus: 5\n    actors: [{actor: router}]\n"
    with pytest.raises(TopologyError) as raised:
        check_host(read_text(text, Path("x.yaml"), environ={}), SMALL)

    assert raised.value.problems[0].place.line == 3


def test_the_driver_is_asked_only_by_those_who_want_gpus() -> None:
    assert wants_gpus(reading("gpus: 1"))
    assert not wants_gpus(reading("gpus: 0"))
    assert this_host({"CUDA_VISIBLE_DEVICES": "4"}, with_gpus=False).gpus == ()
    assert this_host({"CUDA_VISIBLE_DEVICES": "4"}, with_gpus=True).gpus == ("4",)
