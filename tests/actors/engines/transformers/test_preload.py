"""What is done before a worker is forked need not be done after."""

from __future__ import annotations

import sys

from transformers import conversion_mapping

from actors.engines.transformers.preload import preload
from tests.service import CAPITALS


def test_a_preloaded_engine_has_little_left_to_do_as_it_starts() -> None:
    preload(str(CAPITALS))

    assert "actors.engines.transformers.steps" in sys.modules
    # Compiling these is half of the time that a small model takes to load.
    assert conversion_mapping._checkpoint_conversion_mapping_cache is not None


def test_a_model_that_cannot_be_read_is_passed_over() -> None:
    preload("no/such/model")
