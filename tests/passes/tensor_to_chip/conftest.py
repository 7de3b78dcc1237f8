"""Fixtures of these tests."""

from __future__ import annotations

import pytest

from tests.passes.tensor_to_chip.lowered import RNG, START


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """What a test draws does not depend on which tests this process ran before."""
    RNG.bit_generator.state = START
