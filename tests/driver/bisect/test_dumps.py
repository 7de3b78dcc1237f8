"""Which dumps belong to a net, and on what they are run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from compiler.diagnostics import UserError
from driver.bisect.dumps import dumps_after, without_padding
from passes import load_all
from passes.manager import HEADER

load_all()


def test_dumps_of_another_model_are_refused(compiled, dumps):
    for path in dumps.glob("*.mlir"):
        path.write_text(path.read_text().replace("x128x", "x512x"))
    with pytest.raises(UserError, match="was not made with this file: its inputs are"):
        compiled.report("block_0", dumps)


def test_a_folder_without_dumps_is_refused(compiled, dumps):
    next(dumps.glob("block_0.*.fuse-qkv.mlir")).unlink()
    with pytest.raises(UserError, match=r"fuse-qkv\.mlir is missing: compile again with --dump-ir"):
        compiled.report("block_0", dumps)
    with pytest.raises(UserError, match="has no dump of block: compile again with --dump-ir"):
        compiled.report("block_0", dumps / "elsewhere")


def test_padding_is_replaced_by_tokens_which_those_before_do_not_see():
    """Two tokens of a prompt and three rows of padding, in as many positions as there are streams."""
    states = np.arange(10, dtype=np.float32).reshape(1, 5, 2)
    mask = np.zeros((1, 1, 5, 5), np.float32)
    mask[0, 0, 0, 3] = -9984.0
    given = [states, np.array([[0, 1, 0, 0, 0]] * 3, np.int32), mask]
    before = [array.copy() for array in given]
    found = without_padding(run_of("block_3", given, 2))
    assert found[0].tolist() == [[[0, 1], [2, 3], [0, 1], [2, 3], [0, 1]]]
    assert found[1].tolist() == [[0, 1, 2, 3, 4]] * 3
    assert ((found[2][0, 0] == 0) == np.tri(5, dtype=bool)).all()
    assert all((one == other).all() for one, other in zip(given, before, strict=True))


def run_of(name, inputs, count):
    return SimpleNamespace(net=SimpleNamespace(name=name), inputs=inputs, wanted=[np.zeros((count, 2))])


@pytest.mark.parametrize(("name", "count"), [("block_cache_0", 1), ("vit", 2), ("block_0", 5)])
def test_what_is_no_prompt_or_fills_the_net_keeps_its_inputs(name, count):
    run = run_of(name, [np.zeros((1, 5, 2)), np.zeros((1, 5)), np.zeros((1, 1, 5, 5))], count)
    assert without_padding(run) is run.inputs


def test_dumps_are_those_that_the_first_one_names(tmp_path):
    names = ["block_0.00.input.mlir", "block_0.01.canonicalize.mlir", "block_0.02.fuse-qkv.mlir"]
    for name in [*names, "block_0.03.left-over.mlir", "block_2.00.input.mlir"]:
        (tmp_path / name).write_text(f"{HEADER}canonicalize,fuse-qkv\n")
    assert [path.name for path in dumps_after(tmp_path / names[0])] == names
    (tmp_path / names[0]).write_text("module")
    with pytest.raises(UserError, match="does not begin with the passes that follow"):
        dumps_after(tmp_path / names[0])
