"""Attention in one token and in many, over whatever pieces the keys and values come in, down to the chip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.module import Module
from compiler.target.chips.bm1684x import BM1684X
from dialects import tensor
from driver.blob import Materializer
from passes import load_all
from passes.llm_to_tensor.pieces import Part, parts_within
from passes.manager import PassManager, parse_pipeline
from passes.ranges import Range
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.helpers import as_net, parse_ir, random_tensor

load_all()

MASKED = -9984.0  # what a client writes where a key is hidden
LOCATE = "hoist-stores,hoist-loads{fill=0.0},allocate-local"


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


@pytest.mark.parametrize("history", [5, 64, 100, 200, 512])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 2, 64), (6, 3, 128), (2, 1, 64)])
def test_one_token_sees_its_history_and_itself(history, heads, kv_heads, width):
    Attention(1, heads, kv_heads, width, history).check(padded(history, history * 3 // 4))


@pytest.mark.parametrize("width", [32, 96])
def test_heads_that_are_no_whole_rows_of_lanes_are_split_and_joined_in_ddr(width):
    attention = Attention(1, heads=8, kv_heads=4, width=width, history=100)
    lowered = attention.check(padded(100, 60))
    stores = [op for op in lowered.functions()[0].block.ops if isinstance(op, tensor.StoreOp)]
    assert len(stores) == 5  # q, k and v that are split, what is joined, and the result
    Attention(70, heads=8, kv_heads=4, width=width).check(causal(70))


def test_one_token_without_a_history_sees_itself():
    Attention(1).check(np.zeros(1))


@pytest.mark.parametrize(("tokens", "options"), [(5, ""), (64, ""), (150, "{tokens=64}"), (130, "{tail=1}")])
def test_many_tokens_see_those_before(tokens, options):
    Attention(tokens).check(causal(tokens), options)


@pytest.mark.parametrize("history", [3072, 3000])
def test_a_long_history_comes_in_pieces_that_fit(history):
    attention = Attention(1, heads=8, kv_heads=8, width=128, history=history)
    lowered = attention.check(padded(history, history - 10))
    pieces = [op.value.type.shape[0] for op in loads_of(lowered) if op.value.type.shape[1:] == (8, 128)]
    assert sum(pieces) == 2 * history
    assert max(pieces) * 8 * 128 * 2 // BM1684X.lanes <= BM1684X.lane_bytes // 8
    PassManager(parse_pipeline(f"tensor-to-chip,{LOCATE}")).run(lowered)  # DoesNotFit if it were too large


# ---- what is visible ----


@pytest.mark.parametrize("kind", ["masked", "all"])
@pytest.mark.parametrize(("tokens", "options"), [(64, ""), (150, ""), (150, "{tokens=64}"), (128, "{tail=1}")])
def test_later_keys_are_seen_where_the_mask_shows_them(kind, tokens, options):
    """Each query sees a third of the keys, before it and after it, also those of later runs of tokens."""
    mask = hidden_unless(random_tensor(tokens, tokens, seed=5) > 0.4)
    Attention(tokens, visible=f'kind = "{kind}"').check(mask, options)


def test_keys_are_hidden_where_a_mask_has_holes():
    mask = np.minimum(causal(150), hidden_unless(random_tensor(150, 150, seed=5) > 0))
    np.fill_diagonal(mask, 0)
    Attention(150).check(mask, "{tokens=64}")
    Attention(1, history=150).check(hidden_unless(random_tensor(151, seed=6) > 0))


@pytest.mark.parametrize(("size", "options"), [(1, ""), (70, ""), (100, "{tokens=128}"), (500, "{tail=1}")])
def test_a_window_sees_no_further_back(size, options):
    behind = np.arange(300)[:, None] - np.arange(300)
    lowered = Attention(300, visible=f'kind = "window", size = {size}').check(
        hidden_unless((behind >= 0) & (behind < size)), options
    )
    columns = {op.source.type.shape[-1] for op in loads_of(lowered)} - {512}  # the width of x
    assert max(columns) <= size + 2 * 64


def loads_of(module: Module) -> list[tensor.LoadOp]:
    return [op for op in module.functions()[0].block.ops if isinstance(op, tensor.LoadOp)]


# ---- numbers ----


@pytest.mark.parametrize("mask", ["bf16", "f32"])
def test_a_mask_of_moderate_numbers_adds_to_the_scores(mask):
    """As a bias by distance would: what is wrong by a factor shows."""
    slopes = -0.05 * np.arange(100)[::-1]
    Attention(1, history=99, mask=mask).check(slopes)
    distance = np.arange(100)[:, None] - np.arange(100)
    Attention(100, mask=mask).check(np.where(distance >= 0, -0.05 * distance, MASKED), "{tokens=64}")


@pytest.mark.parametrize("lowest", [np.finfo(np.float32).min, -np.inf, -3.0e38, -1.0e30])
def test_an_f32_mask_may_hide_by_the_lowest_numbers_there_are(lowest):
    Attention(1, history=99, mask="f32").check(np.where(np.arange(100) % 3, lowest, 0))
    Attention(100, mask="f32").check(np.where(np.tril(np.ones((100, 100), bool)), 0, lowest), "{tokens=64}")


@pytest.mark.parametrize("lowest", [MASKED, np.finfo(np.float32).min])
def test_a_query_that_sees_nothing_takes_the_mean(lowest):
    Attention(1, history=99, mask="f32").check(np.full(100, lowest))


def test_parts_are_those_rows_of_each_piece_that_are_wanted():
    whole = [Part(0, Range(0, 64)), Part(1, Range(0, 100)), Part(2, Range(0, 1))]
    assert parts_within([64, 100, 1], Range(0, 165)) == whole
    assert parts_within([64, 100, 1], Range(70, 164)) == [Part(1, Range(6, 100))]
    assert parts_within([64, 64], Range(0, 64)) == whole[:1]
