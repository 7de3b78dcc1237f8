"""No file, however it was changed, does more than make a command say so."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.bmodel import write_bmodel
from runtime_sim.tool import chat
from tests.runtime_sim.check.mutants import commands, mutants, outcome
from tests.runtime_sim.check.programs import HIDDEN, ROWS, Letters, toy_model

SEEDS, EACH = range(3), 20


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_files_end_in_a_clean_error_or_in_a_result(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(chat, "Text", Letters)  # the files that change hold no tokenizer
    shapes = {"x": (1, ROWS, HIDDEN), "position_ids": (1, ROWS), "mask": (1, 1, ROWS, ROWS)}
    inputs, good, file = (tmp_path / name for name in ("in.npz", "good.bmodel", "m.bmodel"))
    np.savez(inputs, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    write_bmodel(good, toy_model())
    for command in commands(good, good, inputs, tmp_path):
        assert outcome(command) == "right", command
    found = {}
    for mutant in mutants(good.read_bytes(), seed, EACH):
        file.write_bytes(mutant.data)
        for command in commands(file, good, inputs, tmp_path):
            if (ended := outcome(command)) not in ("right", "clean error"):
                found[mutant.what, command[0]] = ended
    assert not found
