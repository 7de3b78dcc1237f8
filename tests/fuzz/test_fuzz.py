"""A short run of each group; `make fuzz` makes longer ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.fuzz.groups import GROUPS
from tests.fuzz.run import Fuzzer, Result, causes

fuzzer = cache(Fuzzer)  # one for all groups in the process that forks


def run_group(folder: Path, seed: int, group: str, count: int) -> list[Result]:
    return fuzzer(folder, seed).run(group, range(count))


@pytest.mark.fuzz
@pytest.mark.parametrize("group", GROUPS)
def test_every_case_ends_in_a_clean_error_or_a_right_result(forking, tmp_path_factory, request, group):
    seed, count = (request.config.getoption(f"--fuzz-{name}", default) for name, default in (("seed", 0), ("cases", 40)))
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    results = forking.submit(run_group, folder, seed, group, count).result()
    bad = [result for result in results if result.outcome.bad]
    assert not bad, f"seed {seed}; the cases are in {folder}\n{causes(bad)}"
