"""What torch and transformers leave out for us, and that all of it is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

LOAD = """
import sys
from pathlib import Path
import driver.convert  # whose imports are those of the command
from compiler.ir.types import BF16
from frontend.load import load_model, open_model
model, _ = load_model(open_model(Path(sys.argv[1])), 16, 16, BF16)
heavy = ("torch._inductor", "torch.distributed.fsdp", "torch._decomp", "sympy.core", "sentencepiece")
print(len(model.nets), *(name for name in heavy if name in sys.modules))
from torch.fx.experimental.symbolic_shapes import ShapeEnv
import sympy
print(isinstance(ShapeEnv, type), issubclass(sympy.Symbol, sympy.Basic))
from transformers import AutoConfig, LlamaConfig
print(AutoConfig.for_model("llama").__class__ is LlamaConfig)
"""

SHAPES = """
import sys
import frontend.library
from frontend.trace import RULES, outcome_of
import torch
meta = torch.empty(2, 3, 8, 8, device="meta")
F = torch.nn.functional
quick = [RULES[torch.ops.aten.embedding.default](meta[0, 0], meta[0, 0, 0].long())]
quick.append(RULES[F.layer_norm](meta.mT, (8,), weight=None))
print(torch.rand(1, generator=torch.Generator().manual_seed(0)).shape)
print("torch._decomp" in sys.modules, outcome_of(F.conv2d, (meta, torch.empty(5, 3, 2, 2, device="meta")), {}).shape)
print("torch._decomp" in sys.modules)
theirs = [torch.ops.aten.embedding.default(meta[0, 0], meta[0, 0, 0].long()), F.layer_norm(meta.mT, (8,))]
print(*(a.shape == b.shape and a.dtype == b.dtype and a.device == b.device for a, b in zip(quick, theirs)))
try:
    outcome_of(torch.ops.aten._local_scalar_dense.default, (meta[0, 0, 0, 0],), {})
except (NotImplementedError, RuntimeError):
    print("refused")
"""


def run(*arguments: str) -> str:
    """What a new process prints, which has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_traced_without_the_compiler_of_torch(tiny_checkpoint):
    assert run(LOAD, str(tiny_checkpoint("llama", layers=1))).split() == ["3", *["True"] * 3]


def test_rules_of_shapes_are_imported_when_an_op_needs_them():
    generator, conv, rules, quick, last = run(SHAPES).splitlines()
    assert generator == "torch.Size([1])"
    assert conv == "False torch.Size([2, 5, 7, 7])"
    assert rules == "True"
    assert quick == "True True"
    assert last == "refused"


def test_whoever_imports_transformers_says_first_that_torch_cannot_distribute():
    """The command alone shows only that the first to import it does."""
    for path in (ROOT / "frontend").glob("*.py"):
        names = [line.split()[1] for line in path.read_text().splitlines() if line.startswith(("import", "from"))]
        if path.name != "library.py" and (found := [name for name in names if name.startswith("transformers")]):
            assert names.index("frontend.library") < names.index(found[0]), path
