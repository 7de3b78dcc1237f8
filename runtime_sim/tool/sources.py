"""Which part of the model an instruction comes from, as the compiler's dumps of its last pass say.

A bmodel has no room for this. The dumps (`llm_convert.py --dump-ir`) have one line per instruction with its
number, what it waits for, and its location; a function belongs to a net when all waits are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compiler.diagnostics import UserError
from compiler.target.isa import Instruction
from dialects.nets import NetAttr
from runtime_sim.launch.queues import CoreProgram

# On the line that ends a function.
_NET = re.compile(r'#bm\.net<name = "([^"]+)"(, bound = "layer")?(?:.*, stage = (\d+)[,>])?')
_INSTRUCTION = re.compile(r'^\s*"chip\.(\w+)".*\bchip\.id = \d+ : i64(?:, chip\.wait = (\d+) : i64)?')
_MESSAGES = ("send", "wait")  # of the DMA too
_LOCATION = re.compile(r" loc\((.*)\)$")


@dataclass
class Queue:
    """One engine's instructions: what each waits for and where it comes from."""

    waits: list[int] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)

    def is_of(self, instructions: Sequence[Instruction]) -> bool:
        waits = [i.wait for i in instructions]
        return self.waits == waits[: len(self.waits)] and len(waits) - len(self.waits) <= 1  # the end command


@dataclass
class DumpedFunction:
    """The instructions of a function, and which net it is."""

    net: NetAttr
    tiu: Queue = field(default_factory=Queue)
    dma: Queue = field(default_factory=Queue)


class Sources:
    """The functions of all modules of one compilation."""

    def __init__(self, functions: Sequence[DumpedFunction]) -> None:
        self.functions = functions

    @classmethod
    def read(cls, folder: Path) -> Sources:
        """From the last dump of each module; UserError when there is none."""
        functions = [f for path in _last_dumps(folder) for f in read_functions(path.read_text())]
        if not any(function.tiu.waits or function.dma.waits for function in functions):
            raise UserError(f"no dumps of numbered instructions in {folder}: compile with --dump-ir {folder}")
        return cls(functions)

    def find(self, net: str, core: CoreProgram) -> DumpedFunction | None:
        """The function that a net was made from."""
        for function in self.functions:
            if function.net.makes(net) and function.tiu.is_of(core.tiu) and function.dma.is_of(core.dma):
                return function
        return None


def _last_dumps(folder: Path) -> list[Path]:
    """Dumps are called module.number.pass.mlir."""
    last: dict[str, Path] = {}
    for path in sorted(folder.glob("*.mlir")):
        last[path.name.split(".")[0]] = path
    return list(last.values())


def read_functions(text: str) -> Iterator[DumpedFunction]:
    tiu, dma = Queue(), Queue()
    for line in text.splitlines():
        if found := _INSTRUCTION.search(line):
            queue = dma if found[1].startswith("dma") or found[1] in _MESSAGES else tiu
            queue.waits.append(int(found[2] or 0))
            queue.modules.append(_modules(line))
        elif found := _NET.search(line):
            net = NetAttr(found[1], "layer" if found[2] else "model", stage=int(found[3] or 0))
            yield DumpedFunction(net, tiu, dma)
            tiu, dma = Queue(), Queue()


def _modules(line: str) -> str:
    """`model.layers.3.self_attn.q_proj` and `...k_proj` as `model.layers.*.self_attn.{q_proj, k_proj}`."""
    found = _LOCATION.search(line)
    names = list(dict.fromkeys(re.findall(r'"([^"]+)"', found[1]))) if found else []
    names = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]
    names = [re.sub(r"\blayers\.\d+", "layers.*", name) for name in names]
    if len(names) < 2:
        return "".join(names)
    parents = {name.rpartition(".")[0] for name in names}
    if len(parents) == 1:
        return f"{parents.pop()}.{{{', '.join(name.rpartition('.')[2] for name in names)}}}"
    return ", ".join(names)
