"""One function of the llm dialect at each level that it is lowered to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.module import Module
from compiler.target.chips.bm1684x import BM1684X
from driver.blob import Materializer
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.helpers import as_net, parse_ir

Array = np.ndarray


@dataclass
class Levels:
    """A net of one function; `weights` and `tables` are what it names."""

    module: Module
    weights: Mapping[str, Array] = field(default_factory=dict)
    tables: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, weights: Mapping[str, Array] = {}, tables: Mapping[str, Array] = {}) -> Levels:
        module, _ = parse_ir(text)
        as_net(module, {2: 1, 3: 1})
        return cls(module, weights, tables)

    def run(self, inputs: Sequence[Array], options: str = "") -> list[Array]:
        """The first result of the llm level, of the tensor level, and of the chip; lowers the module."""
        (function,) = self.module.functions()
        read = self.weights.__getitem__
        found = [interpret(function, inputs, read, self.tables)[0]]
        PassManager(parse_pipeline(f"llm-to-tensor{options},tile-weights")).run(self.module)
        found.append(interpret(function, inputs, read, self.tables)[0])
        PassManager(parse_pipeline("tensor-to-chip")).run(self.module)
        source = Materializer(read, self.tables)
        found.append(ChipProgram(function, BM1684X, source.bytes_of).run(inputs)[0])
        return found
