from __future__ import annotations

import sys

import pytest

from actors.runtime.absent import absent


def test_a_package_is_absent_within_and_there_again_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)

    with absent("this"), pytest.raises(ImportError):
        import this  # noqa: F401

    assert "this" not in sys.modules


def test_one_that_somebody_has_imported_already_stays() -> None:
    with absent("json"):
        import json

    assert sys.modules["json"] is json
