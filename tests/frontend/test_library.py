"""What of torch and transformers is left out, and that all of it is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from frontend.library import STAND_INS, StandIn, unmarked

import pytest

ROOT = Path(__file__).parents[2]

LOAD = """
import sys
from pathlib import Path
import driver.convert  # whose imports are those of the command
from compiler.ir.types import BF16
from frontend.load import load_model, open_model
model, _ = load_model(open_model(Path(sys.argv[1])), 16, 16, BF16)
heavy = ("torch._inductor", "torch.distributed.fsdp", "sympy.core")
print(len(model.nets), *(name for name in heavy if name in sys.modules))
from torch.fx.experimental.symbolic_shapes import ShapeEnv
import sympy
print(isinstance(ShapeEnv, type), issubclass(sympy.Symbol, sympy.Basic))
"""


def test_a_model_is_traced_without_the_compiler_of_torch(tiny_checkpoint):
    folder = str(tiny_checkpoint("llama", layers=1))
    run = [sys.executable, "-c", LOAD, folder]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["3", "True", "True"], done.stderr


def test_whoever_imports_transformers_leaves_parts_out_first():
    """The command alone shows only that the first to import it does."""
    for path in (ROOT / "frontend").glob("*.py"):
        names = [line.split()[1] for line in path.read_text().splitlines() if line.startswith(("import", "from"))]
        if path.name != "library.py" and (found := [name for name in names if name.startswith("transformers")]):
            assert names.index("frontend.library") < names.index(found[0]), path


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    monkeypatch.delitem(sys.modules, "xml.dom", raising=False)
    monkeypatch.setitem(sys.modules, "xml.dom", made := StandIn("xml.dom", {"given": 1}))
    return made


def test_a_stand_in_is_there_until_it_is_asked_for_more(stand_in):
    from xml.dom import given

    assert given == 1
    assert sys.modules["xml.dom"] is stand_in
    assert stand_in.INDEX_SIZE_ERR == 1  # of the real module
    assert sys.modules["xml.dom"] is not stand_in
    assert stand_in.Node is sys.modules["xml.dom"].Node
    assert not hasattr(stand_in, "nothing")


def test_parts_of_what_it_stands_for_can_be_imported(stand_in):
    from xml.dom.NodeFilter import NodeFilter

    assert NodeFilter.FILTER_ACCEPT == 1
    assert sys.modules["xml.dom"] is stand_in


@pytest.mark.parametrize("name", STAND_INS["torch._dynamo"])
def test_decorators_with_and_without_options(name):
    def function() -> int:
        return 1

    decorator = STAND_INS["torch._dynamo"][name]
    assert decorator is unmarked
    assert decorator(function) is function
    assert decorator(function, True, wrapping=False) is function
    assert decorator(recursive=False)(function) is function
