"""What a topology takes from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.topology.environment import SubstitutionError, state_dir, substitute


@pytest.mark.parametrize(
    ("text", "result", "whole"),
    [
        ("${A}", "1", True),
        ("a${A}b${A}", "a1b1", False),
        ("${NO:-x y}", "x y", True),
        ("${EMPTY:-x}", "x", True),
        ("${EMPTY}", "", True),
        ("$${A}", "${A}", False),
        ("$$${A}", "$${A}", False),
        ("$A {A}", "$A {A}", False),
        ("${NESTED}", "${A}", True),
    ],
)
def test_references_are_replaced_once(text: str, result: str, whole: bool) -> None:
    environ = {"A": "1", "EMPTY": "", "NESTED": "${A}"}
    assert substitute(text, environ) == (result, whole)


def test_an_unset_variable_without_default_names_the_nearest() -> None:
    with pytest.raises(SubstitutionError, match="MODLE, or a default") as caught:
        substitute("${MODLE}", {"MODEL": "x"})
    assert caught.value.suggestion == "MODEL"


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A-x}", "${A"])
def test_a_reference_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SubstitutionError, match=r"expected \$\{NAME\}"):
        substitute(text, {"A": "1"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"UNDERSTUDY_STATE_DIR": "/s", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/s/n"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/understudy/n"),
        ({"XDG_STATE_HOME": "x", "HOME": "/h"}, "/h/.local/state/understudy/n"),
        ({"UNDERSTUDY_STATE_DIR": "", "HOME": "/h"}, "/h/.local/state/understudy/n"),
    ],
)
def test_the_state_directory_is_the_first_that_the_environment_names(
    environ: dict[str, str], expected: str
) -> None:
    assert state_dir("n", environ) == Path(expected)


def test_each_node_of_a_namespace_has_a_state_directory_of_its_own() -> None:
    assert state_dir("n", {"UNDERSTUDY_STATE_DIR": "/s"}, "gpu1") == Path("/s/n@gpu1")


def test_without_a_home_the_password_database_has_one() -> None:
    assert state_dir("n", {}) == Path.home() / ".local/state/understudy/n"
