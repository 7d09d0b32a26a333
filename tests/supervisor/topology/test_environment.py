"""What a topology takes from the environment."""

from __future__ import annotations

import pytest

from supervisor.topology.environment import SubstitutionError, substitute


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
