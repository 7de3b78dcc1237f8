"""A function with one attention, over whatever pieces the keys and values come in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.module import Module
from compiler.target.chips.bm1684x import BM1684X
from dialects import tensor
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.helpers import as_net, parse_ir, random_tensor

load_all()


MASKED = -9984.0  # what a client writes where a key is hidden


@dataclass(frozen=True)
class Attention:
    """A function that splits x [1, tokens, (heads + 2 kv) d] into q, k and v, perhaps appends k and v to a
    history, and gives the result of attention [1, tokens, heads d].
    """

    tokens: int
    heads: int = 4
    kv_heads: int = 2
    width: int = 64
    history: int = 0
    mask: str = "bf16"
    visible: str = 'kind = "causal"'

    @property
    def keys(self) -> int:
        return self.history + self.tokens

    def text(self) -> str:
        t, h, g, d, s = self.tokens, self.heads, self.kv_heads, self.width, self.history
        first = 0
        lines = []
        for name, n in (("q", h), ("k", g), ("v", g)):
            row, split, outside = (f"tensor<{shape}xbf16>" for shape in (f"1x{t}x{n * d}", f"1x{t}x{n}x{d}", f"1x{n}x{t}x{d}"))
            lines += [
                f'%{name}0 = "llm.slice"(%x) <{{axis = 2 : i64, start = {first} : i64, stop = {first + n * d} : i64, '
                f"step = 1 : i64}}> : (tensor<1x{t}x{(h + 2 * g) * d}xbf16>) -> {row}",
                f'%{name}1 = "llm.reshape"(%{name}0) <{{shape = array<i64: 1, {t}, {n}, {d}>}}> : ({row}) -> {split}',
                f'%{name}2 = "llm.permute"(%{name}1) <{{order = array<i64: 0, 2, 1, 3>}}> : ({split}) -> {outside}',
            ]
            first += n * d
            if s and name != "q":
                old, turned, all_ = (f"tensor<{shape}xbf16>" for shape in (f"1x{s}x{n}x{d}", f"1x{n}x{s}x{d}", f"1x{n}x{s + t}x{d}"))
                lines += [
                    f'%{name}3 = "llm.permute"(%history_{name}) <{{order = array<i64: 0, 2, 1, 3>}}> : ({old}) -> {turned}',
                    f'%{name} = "llm.kv_concat"(%{name}3, %{name}2) : ({turned}, {outside}) -> {all_}',
                ]
            else:
                lines[-1] = lines[-1].replace(f"%{name}2 =", f"%{name} =")
        q, kv = f"tensor<1x{h}x{t}x{d}xbf16>", f"tensor<1x{g}x{s + t}x{d}xbf16>"
        lines += [
            f'%a = "llm.attention"(%q, %k, %v, %mask) <{{scale = {d**-0.5} : f64, '
            f"visible = #llm.visible<{self.visible}>, "
            "operandSegmentSizes = array<i32: 1, 1, 1, 1, 0>}> "
            f": ({q}, {kv}, {kv}, tensor<1x1x{t}x{s + t}x{self.mask}>) -> tensor<1x{t}x{h}x{d}xbf16>",
            f'%y = "llm.reshape"(%a) <{{shape = array<i64: 1, {t}, {h * d}>}}> '
            f": (tensor<1x{t}x{h}x{d}xbf16>) -> tensor<1x{t}x{h * d}xbf16>",
        ]
        return "\n".join(lines)

    def module(self) -> Module:
        module = parse_ir(self.text())[0]
        as_net(module)
        return module

    def inputs(self, module: Module, mask: np.ndarray) -> list[np.ndarray]:
        """Arrays for the arguments, which are numbered by where they are first read."""
        found = []
        for arg in module.functions()[0].args:
            shape, dtype = arg.type.shape, arg.type.element.numpy
            is_mask = shape == (1, 1, self.tokens, self.keys)
            found.append((mask.reshape(shape) if is_mask else random_tensor(*shape, seed=len(found))).astype(dtype))
        return found

    def check(self, mask: np.ndarray, options: str = "", on_chip: bool = True) -> Module:
        """The lowered arrays, and the chip, agree with the llm dialect; gives the module before the chip."""
        module = self.module()
        inputs = self.inputs(module, mask)
        (wanted,) = interpret(module.functions()[0], inputs, {}.__getitem__)
        PassManager(parse_pipeline(f"llm-to-tensor{options}")).run(module)
        lowered = module.clone()
        (found,) = interpret(module.functions()[0], inputs, {}.__getitem__)
        assert np.isfinite(found.astype(np.float32)).all()
        assert compare(found, wanted).cosine > 0.9999
        if on_chip:
            PassManager(parse_pipeline("tensor-to-chip")).run(module)
            program = ChipProgram(module.functions()[0], BM1684X, Materializer({}.__getitem__, {}, 64).bytes_of)
            (found,) = program.run(inputs)
            assert compare(found, wanted).cosine > 0.9999
        return lowered


def hidden_unless(seen: np.ndarray) -> np.ndarray:
    return np.where(seen, 0.0, MASKED)


def causal(tokens: int) -> np.ndarray:
    return hidden_unless(np.tril(np.ones((tokens, tokens), bool)))


def padded(history: int, used: int) -> np.ndarray:
    """One token after `used` of a history."""
    keys = np.arange(history + 1)
    return hidden_unless((keys < used) | (keys == history))


def loads_of(module: Module) -> list[tensor.LoadOp]:
    return [op for op in module.functions()[0].block.ops if isinstance(op, tensor.LoadOp)]
