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
heavy = ("torch._inductor", "torch.distributed.fsdp", "sympy.core", "sentencepiece", "transformers.audio_utils")
print(len(model.nets), *(name for name in heavy if name in sys.modules))
from torch.fx.experimental.symbolic_shapes import ShapeEnv
import sympy
print(isinstance(ShapeEnv, type), issubclass(sympy.Symbol, sympy.Basic))
from transformers import AutoConfig, LlamaConfig
print(AutoConfig.for_model("llama").__class__ is LlamaConfig)
from transformers.processing_utils import ProcessorMixin, Unpack
print(isinstance(ProcessorMixin, type))
import torch
meta = torch.empty(2, 3, 8, 8, device="meta")
print(torch.where(meta > 0, meta, -meta).shape == meta.shape)  # by rules in Python, as of most ops
"""

def run(*arguments: str) -> str:
    """What a new process prints, which has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_traced_without_the_compiler_of_torch(tiny_checkpoint):
    assert run(LOAD, str(tiny_checkpoint("llama", layers=1))).split() == ["3", *["True"] * 5]


def test_whoever_imports_transformers_says_first_that_torch_cannot_distribute():
    """The command alone shows only that the first to import it does."""
    for path in (ROOT / "frontend").glob("*.py"):
        names = [line.split()[1] for line in path.read_text().splitlines() if line.startswith(("import", "from"))]
        if path.name != "library.py" and (found := [name for name in names if name.startswith("transformers")]):
            assert names.index("frontend.library") < names.index(found[0]), path
