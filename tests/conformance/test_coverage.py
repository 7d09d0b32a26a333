"""The list of cases and the tests agree."""

from __future__ import annotations

from tests.conformance import __doc__ as introduction
from tests.conformance.cases import ADAPTED, HELD, NOT_APPLICABLE, WITH_PROCESSES
from tests.conformance.summary import OURS, found


def test_every_case_has_a_test() -> None:
    """97 cases; each has a test of its name, says so when adapted, or is named as not
    applicable. Tests of no case are named as ours."""
    assert len({*HELD, *ADAPTED, *NOT_APPLICABLE}) == 97
    tests = found()

    assert {name for name, adapted in tests.items() if not adapted} - OURS == set(HELD)
    assert {name for name, adapted in tests.items() if adapted} == set(ADAPTED)
    assert introduction is not None
    assert all(name in introduction for name in NOT_APPLICABLE)
    assert set(found("processes")) == set(WITH_PROCESSES) <= {*HELD, *ADAPTED}
