"""A function with one attention, over whatever pieces the keys and values come in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.module import Module
from compiler.ir.types import I32
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.spec import ChipSpec
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

SINKS = 3 * random_tensor(256, seed=9).astype("bfloat16").astype(np.float32)


@dataclass(frozen=True)
class Attention:
    """A function that splits x [1, tokens, (heads + 2 kv) d] into q, k and v, perhaps appends k and v to a
    history, and gives the result of attention [1, tokens, heads d]. With `first`, a table by position, keys
    before the first one of a query are hidden.
    """

    tokens: int
    heads: int = 4
    kv_heads: int = 2
    width: int = 64
    history: int = 0
    mask: str = "bf16"  # its element type; "" for none
    visible: str = 'kind = "causal"'
    first: tuple[int, ...] = ()

    softcap: float = 0.0
    sinks: bool = False
    value_width: int = 0  # that of the keys where it is 0
    groups: tuple[int, ...] = ()  # query heads of each KV head; none for as many each
    before: int = 0  # heads of the history that others read, ahead of these; as many behind
    element: str = "bf16"

    @property
    def keys(self) -> int:
        return self.history + self.tokens

    @property
    def widths(self) -> dict[str, int]:
        return {"q": self.width, "k": self.width, "v": self.value_width or self.width}

    @property
    def all_columns(self) -> int:
        return self.heads * self.width + self.kv_heads * sum(self.widths[name] for name in "kv")

    def text(self) -> str:
        lines: list[str] = []
        first = 0
        for name, n in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
            lines += self._heads(name, n, first)
            first += n * self.widths[name]
        return "\n".join([*lines, *self._mask(), *self._attention()])

    def _heads(self, name: str, n: int, first: int) -> list[str]:
        t, d, s = self.tokens, self.widths[name], self.history
        row, split, outside = (f"tensor<{shape}xbf16>" for shape in (f"1x{t}x{n * d}", f"1x{t}x{n}x{d}", f"1x{n}x{t}x{d}"))
        turned, all_ = (f"tensor<{shape}xbf16>" for shape in (f"1x{n}x{s}x{d}", f"1x{n}x{s + t}x{d}"))
        old = f"tensor<1x{s}x{n}x{d}xbf16>"
        with_history = s and name != "q"
        source = f"%history_{name}"
        lines = [
            f'%{name}0 = "llm.slice"(%x) <{{axis = 2 : i64, start = {first} : i64, stop = {first + n * d} : i64, '
            f"step = 1 : i64}}> : (tensor<1x{t}x{self.all_columns}xbf16>) -> {row}",
            f'%{name}1 = "llm.reshape"(%{name}0) <{{shape = array<i64: 1, {t}, {n}, {d}>}}> : ({row}) -> {split}',
            f'%{name}{2 if with_history else ""} = "llm.permute"(%{name}1) <{{order = array<i64: 0, 2, 1, 3>}}> : ({split}) -> {outside}',
        ]
        if with_history and self.before:
            lines.append(
                f'%{name}4 = "llm.slice"({source}) <{{axis = 2 : i64, start = {self.before} : i64, '
                f"stop = {self.before + n} : i64}}> : (tensor<1x{s}x{n + 2 * self.before}x{d}xbf16>) -> {old}"
            )
            source = f"%{name}4"
        if with_history:
            lines += [
                f'%{name}3 = "llm.permute"({source}) <{{order = array<i64: 0, 2, 1, 3>}}> : ({old}) -> {turned}',
                f'%{name} = "llm.kv_concat"(%{name}3, %{name}2) : ({turned}, {outside}) -> {all_}',
            ]
        return lines

    def _mask(self) -> list[str]:
        """%given, with what lies before the first keys hidden."""
        if not self.first:
            return []
        t, n = self.tokens, len(self.first)
        mask = f"tensor<1x1x{t}x{self.keys}x"
        return [
            f'%table = "llm.table"() <{{name = "first"}}> : () -> tensor<{n}x1xf32>',
            f'%first = "llm.gather_rows"(%table, %ids) : (tensor<{n}x1xf32>, tensor<1x{t}xi32>) -> tensor<1x{t}x1xf32>',
            f'%hidden = "llm.hide_before"(%mask, %first) : ({mask}{self.mask}>, tensor<1x{t}x1xf32>) -> {mask}f32>',
        ]

    def _attention(self) -> list[str]:
        t, h, keys, d, v = self.tokens, self.heads, self.keys, self.width, self.widths["v"]
        mask, element = ("%hidden", "f32") if self.first else ("%mask", self.mask)
        q, k, values = f"tensor<1x{h}x{t}x{d}xbf16>", f"tensor<1x{self.kv_heads}x{keys}x{d}xbf16>", f"tensor<1x{self.kv_heads}x{keys}x{v}xbf16>"
        operands = {"%q": q, "%k": k, "%v": values}
        if self.mask:
            operands[mask] = f"tensor<1x1x{t}x{keys}x{element}>"
        if self.sinks:
            operands["%sinks"] = f"tensor<{h}xbf16>"
        return [
            *([f'%sinks = "llm.weight"() <{{name = "sinks"}}> : () -> tensor<{h}xbf16>'] if self.sinks else []),
            f'%a = "llm.attention"({", ".join(operands)}) <{{scale = {d**-0.5} : f64, '
            f"softcap = {self.softcap} : f64, {self._groups()}visible = #llm.visible<{self.visible}>, "
            f"operandSegmentSizes = array<i32: 1, 1, 1, {int(bool(self.mask))}, {int(self.sinks)}>}}> "
            f": ({', '.join(operands.values())}) -> tensor<1x{t}x{h}x{v}xbf16>",
            f'%y = "llm.reshape"(%a) <{{shape = array<i64: 1, {t}, {h * v}>}}> '
            f": (tensor<1x{t}x{h}x{v}xbf16>) -> tensor<1x{t}x{h * v}xbf16>",
        ]

    def _groups(self) -> str:
        return f"groups = array<i64: {', '.join(map(str, self.groups))}>, " if self.groups else ""

    def module(self, spec: ChipSpec = BM1684X) -> Module:
        module = parse_ir(self.text().replace("bf16", self.element), target=spec)[0]
        as_net(module, {2: 1, 3: 1})
        return module

    def inputs(self, module: Module, mask: np.ndarray, position: int = 0) -> list[np.ndarray]:
        """Arrays for the arguments, which are numbered by where they are first read; tokens from a position on."""
        found = []
        for arg in module.functions()[0].args:
            shape, dtype = arg.type.shape, arg.type.element.numpy
            if arg.type.element == I32:
                found.append(position + np.arange(self.tokens, dtype=np.int32)[None])
                continue
            is_mask = shape == (1, 1, self.tokens, self.keys)
            found.append((mask.reshape(shape) if is_mask else random_tensor(*shape, seed=len(found))).astype(dtype))
        return found

    def check(
        self,
        mask: np.ndarray,
        options: str = "",
        on_chip: bool = True,
        position: int = 0,
        rows: slice | np.ndarray = slice(None),
    ) -> Module:
        """The lowered arrays, and the chip, agree with the llm dialect in these rows, and all are finite; gives
        the module before the chip.
        """
        module = self.module()
        inputs = self.inputs(module, mask, position)
        tables = {"first": np.array(self.first, np.float32)[:, None]}
        weights = {"sinks": SINKS[: self.heads]}.__getitem__
        (wanted,) = interpret(module.functions()[0], inputs, weights, tables)
        PassManager(parse_pipeline(f"llm-to-tensor{options}")).run(module)
        lowered = module.clone()
        (found,) = interpret(module.functions()[0], inputs, weights, tables)
        assert np.isfinite(found.astype(np.float32)).all()
        assert compare(found[:, rows], wanted[:, rows]).cosine > 0.9999
        if on_chip:
            PassManager(parse_pipeline("tensor-to-chip")).run(module)
            program = ChipProgram(module.functions()[0], BM1684X, Materializer(weights, tables).bytes_of)
            (found,) = program.run(inputs)
            assert np.isfinite(found.astype(np.float32)).all()
            assert compare(found[:, rows], wanted[:, rows]).cosine > 0.9999
        return lowered

    def llm_result(self, mask: np.ndarray, position: int = 0) -> np.ndarray:
        """What the llm level computes."""
        module = self.module()
        tables, weights = {"first": np.array(self.first, np.float32)[:, None]}, {"sinks": SINKS[: self.heads]}
        inputs = self.inputs(module, mask, position)
        return interpret(module.functions()[0], inputs, weights.__getitem__, tables)[0]


@dataclass(frozen=True)
class BetweenLinears(Attention):
    """One whose x is what a linear gives of activations [1, tokens, hidden], with a linear behind it."""

    hidden: int = 64

    @property
    def weights(self) -> dict[str, np.ndarray]:
        shapes = {"in": (self.all_columns, self.hidden), "out": (self.hidden, self.heads * self.widths["v"])}
        return {name: random_tensor(*shape, seed=7, scale=shape[1] ** -0.5) for name, shape in shapes.items()}

    def text(self) -> str:
        def linear(name: str, x: str, y: str) -> list[str]:
            rows, columns = self.weights[name].shape
            w, source, target = (f"tensor<{shape}xbf16>" for shape in (f"{rows}x{columns}", f"1x{self.tokens}x{columns}", f"1x{self.tokens}x{rows}"))
            return [
                f'%w_{name} = "llm.weight"() <{{name = "{name}"}}> : () -> {w}',
                f'%{y} = "llm.linear"(%{x}, %w_{name}) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({source}, {w}) -> {target}',
            ]

        return "\n".join([*linear("in", "hidden", "x"), super().text(), *linear("out", "y", "z")])


def hidden_unless(seen: np.ndarray) -> np.ndarray:
    return np.where(seen, 0.0, MASKED)


def causal(tokens: int) -> np.ndarray:
    return hidden_unless(np.tril(np.ones((tokens, tokens), bool)))


def segments(tokens: int, sizes: Sequence[int]) -> np.ndarray:
    """Tokens see those of their own segment, as of a window or a picture; those behind the last see nothing."""
    number = np.full(tokens, -1)
    for index, (start, stop) in enumerate(itertools.pairwise(np.cumsum([0, *sizes]))):
        number[start:stop] = index
    return hidden_unless((number[:, None] == number) & (number >= 0))


def padded(history: int, used: int) -> np.ndarray:
    """One token after `used` of a history."""
    keys = np.arange(history + 1)
    return hidden_unless((keys < used) | (keys == history))


def loads_of(module: Module) -> list[tensor.LoadOp]:
    return [op for op in module.functions()[0].block.ops if isinstance(op, tensor.LoadOp)]
