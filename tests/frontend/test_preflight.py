"""All that is wrong with a checkpoint, told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.diagnostics import UserError
from frontend.preflight import SHOWN, Problems


def test_nothing_is_wrong():
    Problems(Path("model")).check()


def test_one_problem_is_one_line():
    problems = Problems(Path("model"))
    problems.add("norm.weight", "shape [4]", "[3]")
    with pytest.raises(UserError, match=r"^model: norm.weight: expected shape \[4\], found \[3\]$"):
        problems.check()


@pytest.mark.parametrize("count", [2, SHOWN, SHOWN + 7])
def test_many_problems_are_counted_and_the_first_are_listed(count):
    problems = Problems(Path("model"), [f"p{index}: odd" for index in range(count)])
    with pytest.raises(UserError) as error:
        problems.check()
    head, *lines = str(error.value).splitlines()
    assert head == f"model: {count} tensors do not fit the model of its config.json"
    assert lines[:SHOWN] == [f"  p{index}: odd" for index in range(min(count, SHOWN))]
    assert lines[SHOWN:] == (["  and 7 more"] if count > SHOWN else [])
