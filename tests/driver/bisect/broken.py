"""A tiny model with its dumps, and mistakes made in one of them or in the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from compiler.ir.core import Op
from compiler.ir.module import Function
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from driver import bisect
from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import Effort, default_pipeline
from passes.options import ByFunction
from runtime_sim.launch.runtime import RuntimeNet
from runtime_sim.tool.agreement import LIMITS
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.launches import Verifier
from runtime_sim.tool.reference import Reference
from runtime_sim.tool.verify import Suspect

LAYER = "model.layers.0"
SIZES = {"hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 256}


class Compiled:
    """A tiny model with its dumps, and a suspect for each of its nets."""

    def __init__(
        self, checkpoint: Path, out: Path, mode: str = "bf16", tokens: int = 0, chip: str = "bm1684x"
    ) -> None:
        self.checkpoint, self.dumps = checkpoint, out / "ir"
        length = 2 * tokens or 64
        options = ConvertOptions(
            checkpoint, length, mode, chunk_length=length // 2, out_dir=out / "out", dump_ir=self.dumps, jobs=1,
            chip=chip,
        )  # fmt: skip
        passes = default_pipeline(options, ByFunction(Effort(tokens=tokens)))
        self.file = convert(replace(options, passes=passes))
        session = open_session(self.file, checkpoint, False)
        reference = Reference(checkpoint)
        prompt = [int(token) for token in np.random.default_rng(1).integers(0, 1024, 12)]
        verifier = Verifier(session, reference, prompt)
        self.suspects = {
            name: Suspect(next(runs), session, reference, verifier.tokens, LIMITS[16])
            for name, runs in verifier.nets()
        }

    def report(self, net: str, dumps: Path | None = None) -> list[str]:
        return list(bisect.bisect_net(self.suspects[net], dumps or self.dumps))

    def broken_file(self, net: str, change: Callable[[RuntimeNet], RuntimeNet]) -> list[str]:
        """The report on a net whose place in the file another one takes."""
        suspect = self.suspects[net]
        run = replace(suspect.run, net=change(suspect.run.net))
        return list(bisect.bisect_net(replace(suspect, run=run), self.dumps))


def change_dump(
    dumps: Path, name: str, change: Callable[[Function], Op], function: str = "block"
) -> tuple[str, int]:
    """Change a function of a dump; the name of its file, and the line of the op that `change` gives."""
    (path,) = dumps.glob(f"block_0.*.{name}.mlir")
    header, _, text = path.read_text().partition("\n")
    module = parse_module(text)
    op = change(module.function(function))
    positions: dict[Op, tuple[int, int]] = {}
    path.write_text(f"{header}\n{print_module(module, positions=positions)}")
    return path.name, positions[op][0] + 1


def ops(function: Function, kind: type[Op], place: str = "") -> list[Op]:
    return [op for op in function.block.ops if isinstance(op, kind) and str(op.loc).endswith(place)]


def check(report: list[str], pass_name: str, place: str, line: tuple[str, int]) -> None:
    assert f"in pass {pass_name}, " in report[-2]
    assert report[-2].endswith(line[0])
    assert report[-1].startswith(f"first op: {place}, ")
    assert f"{line[0]}:{line[1]}:" in report[-1]
