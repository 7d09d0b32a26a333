"""What is done before a worker is forked need not be done after."""

from __future__ import annotations

import importlib
import sys

from actors.engines.transformers.preload import preload
from tests.service import CAPITALS


def test_a_preloaded_engine_has_little_left_to_do_as_it_starts() -> None:
    preload(str(CAPITALS))

    assert "actors.engines.transformers.steps" in sys.modules
    try:
        mapping = importlib.import_module("transformers.conversion_mapping")
    except ImportError:
        return  # Transformers before 5 has nothing to compile
    # Compiling these is half of the time that a small model takes to load.
    assert mapping._checkpoint_conversion_mapping_cache is not None


def test_a_model_that_cannot_be_read_is_passed_over() -> None:
    preload("no/such/model")
