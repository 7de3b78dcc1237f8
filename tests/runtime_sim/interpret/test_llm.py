"""The numpy rules of the llm dialect against formulas written another way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import ml_dtypes
import numpy as np
import pytest

import runtime_sim.interpret.llm  # noqa: F401  (registers the rules)
from compiler.ir.types import BF16, F16
from compiler.weights.scheme import Scheme
from dialects import llm
from runtime_sim.interpret.codes import decoded
from runtime_sim.interpret.rules import interpret
from tests.helpers import parse_ir, random_tensor
from tests.runtime_sim.interpret.single import f64, run, types


def test_linear_adds_bias_and_residual_and_rounds_once():
    bf16 = ml_dtypes.bfloat16
    x, w, b, r = (
        random_tensor(*s, dtype=bf16, seed=i) for i, s in enumerate([(3, 64), (5, 64), (5,), (3, 5)])
    )
    y = run(
        f'%y = "llm.linear"(%x, %w, %b, %r) <{{operandSegmentSizes = array<i32: 1, 1, 1, 1>}}>'
        f" : ({types(x, w, b, r)}) -> {types(r)}",
        x,
        w,
        b,
        r,
    )
    exact = f64(x) @ f64(w).T + f64(b) + f64(r)
    np.testing.assert_array_equal(y, exact.astype(np.float32).astype(bf16))


STREAMS = "numbers = [2, 0, 1], widths = [1, 3, 2]"


@pytest.mark.parametrize("axis", [0, 1])
def test_each_column_is_of_the_row_that_its_stream_picks(axis):
    table = random_tensor(9, 6, seed=1)
    ids = np.array([[0, 1, 2, 3], [5, 4, 3, 2], [8, 8, 0, 7]], np.int32)
    given = ids.T if axis else ids
    y = run(
        f'%y = "llm.gather_rows"(%t, %i) <{{streams = #llm.streams<{STREAMS}, axis = {axis}>}}>'
        f" : ({types(table, given)}) -> tensor<1x4x6xf32>",
        table,
        given,
    )
    for column, stream in enumerate([2, 0, 0, 0, 1, 1]):
        assert y[0, :, column].tolist() == [table[row, column] for row in ids[stream]]


@dataclass
class Stored:
    """Codes by hand, as the author of a checkpoint may have chosen them."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None = None
    minimums: np.ndarray | None = None


STORED = [
    ("bits = 4, group = 2, zeros = true", Stored(np.uint8([[3, 15, 0, 7]]), np.float16([[0.5, -2]]), np.uint8([[3, 16]]))),
    ("bits = 4, group = 4, zeros = false", Stored(np.uint8([[3, 15, 0, 7]]), np.float16([[0.25]]))),
    ("bits = 8, group = 2, zeros = false", Stored(np.int8([[-128, 127, 0, 7]]), np.float16([[0.5, 3]]))),
    ("bits = 8, group = 2, zeros = true", Stored(np.uint8([[0, 255, 128, 7]]), np.float16([[0.5, 3]]), np.uint8([[255, 0]]))),
    (
        "bits = 4, group = 2, zeros = false, minimum = true",
        Stored(np.uint8([[0, 15, 8, 7]]), np.float16([[0.5, -3]]), minimums=np.float16([[-4, 0.25]])),
    ),
]
DECODED = [[0.0, 6.0, 32.0, 18.0], [-1.25, 1.75, -2.0, -0.25], [-64.0, 63.5, 0.0, 21.0], [-127.5, 0.0, 384.0, 21.0], [-4.0, 3.5, -23.75, -20.75]]


@pytest.mark.parametrize(("scheme", "stored", "wanted"), [(*case, w) for case, w in zip(STORED, DECODED, strict=True)])
def test_a_stored_weight_is_what_its_codes_stand_for(scheme, stored, wanted):
    module, _ = parse_ir(
        f"""
        %w = "llm.weight"() <{{name = "w"}}> : () -> tensor<1x4xbf16, #weights.scheme<{scheme}, scale = f16>>
        %y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
           : (tensor<4x4xbf16>, tensor<1x4xbf16, #weights.scheme<{scheme}, scale = f16>>) -> tensor<4x1xbf16>
        """
    )
    x = np.eye(4, dtype=ml_dtypes.bfloat16)
    (y,) = interpret(module.functions()[0], [x], {}.__getitem__, codes=lambda name, scheme: stored)
    assert y[:, 0].tolist() == wanted


def test_decoding_rounds_once_to_the_weights_own_type():
    """3 * 1.0029296875 is 3.0078125 in f16, which is as near to 3 as to 3.015625; the product itself is not."""
    stored = Stored(np.uint8([[11, 8]]), np.float16([[1.0029296875]]))
    scheme = Scheme(4, 2, False, F16)
    assert decoded(stored, scheme, F16).tolist() == [[3.0078125, 0]]
    assert decoded(stored, scheme, BF16).tolist() == [[3.015625, 0]]


def test_a_minimum_is_added_before_the_sum_is_rounded():
    """15 * 1.0009765625 is 15.0146484375, which f16 rounds to 15.015625; less 15 the difference is seen."""
    stored = Stored(np.uint8([[15, 0]]), np.float16([[1.0009765625]]), minimums=np.float16([[-15]]))
    scheme = Scheme(4, 2, False, F16, minimum=True)
    assert decoded(stored, scheme, F16).tolist() == [[0.0146484375, -15]]


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
        ("gelu_tanh", lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        ("quick_gelu", lambda x: x / (1 + math.exp(-1.702 * x))),
        ("relu", lambda x: max(x, 0.0)),
        ("relu2", lambda x: max(x, 0.0) ** 2),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("tanh", math.tanh),
    ],
)
def test_activation(kind, formula):
    x = np.linspace(-6, 6, 97, dtype=np.float32)
    y = run(f'%y = "llm.act"(%x) <{{kind = "{kind}"}}> : ({types(x)}) -> {types(x)}', x)
    np.testing.assert_allclose(y, [formula(float(value)) for value in x], rtol=2e-6, atol=2e-6)


def test_sigmoid_of_large_numbers_does_not_overflow():
    x = np.array([-1e4, 1e4], np.float32)
    with np.errstate(all="raise"):
        y = run(f'%y = "llm.act"(%x) <{{kind = "silu"}}> : ({types(x)}) -> {types(x)}', x)
    np.testing.assert_allclose(y, [0, 1e4], atol=1e-30)


def test_norms_of_bf16_are_computed_in_float32():
    x = (random_tensor(4, 256) * 20).astype(ml_dtypes.bfloat16)
    w = random_tensor(256, dtype=ml_dtypes.bfloat16, seed=1)
    y = run(
        f'%y = "llm.rms_norm"(%x, %w) <{{eps = 1.0e-02 : f64, offset = 1.0 : f64}}>'
        f" : ({types(x, w)}) -> {types(x)}",
        x,
        w,
    )
    exact = f64(x) / np.sqrt((f64(x) ** 2).mean(-1, keepdims=True) + 1e-2) * (f64(w) + 1)
    np.testing.assert_allclose(f64(y), exact, rtol=2**-8)


def test_layer_norm_takes_a_weight_of_several_axes():
    x, w, b = random_tensor(2, 3, 8) + 4, random_tensor(3, 8, seed=1), random_tensor(8, seed=2)
    y = run(
        f'%y = "llm.layer_norm"(%x, %w, %b) <{{eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 1, 1>}}>'
        f" : ({types(x, w, b)}) -> {types(x)}",
        x,
        w,
        b,
    )
    centred = f64(x) - f64(x).mean(-1, keepdims=True)
    exact = centred / np.sqrt(f64(x).var(-1, keepdims=True) + 1e-5) * w + b
    np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", get_args(llm.RopeMode))
def test_rope_multiplies_complex_numbers(mode):
    """Each pair of elements is a complex number that turns by the angle of its position."""
    x = random_tensor(1, 2, 5, 12)
    angle = np.arange(5, dtype=np.float32)[:, None] * np.array([1.0, 0.3, 0.1, 0.02], np.float32)
    wide = {
        "half": np.tile(angle, 2),
        "interleaved": np.repeat(angle, 2, axis=1),
        "half_tables": angle,
        "pairs_to_halves": np.tile(angle, 2),
    }[mode][None, None]
    cos, sin = np.cos(wide), np.sin(wide)
    y = run(
        f'%y = "llm.rope"(%x, %c, %s) <{{mode = "{mode}", rotary_dim = 8 : i64}}>'
        f" : ({types(x, cos, sin)}) -> {types(x)}",
        x,
        cos,
        sin,
    )
    neighbours, halves = (slice(0, 8, 2), slice(1, 8, 2)), (slice(0, 4), slice(4, 8))
    first, second = halves if mode in ("half", "half_tables") else neighbours
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angle)
    first, second = neighbours if mode == "interleaved" else halves
    np.testing.assert_allclose(y[..., first], turned.real, atol=1e-5)
    np.testing.assert_allclose(y[..., second], turned.imag, atol=1e-5)
    np.testing.assert_array_equal(y[..., 8:], x[..., 8:])


def attention_text(q, k, v, mask, sinks, softcap, visible='kind = "masked"'):
    operands = "%q, %k, %v, %m" + (", %s" if sinks is not None else "")
    arrays = [q, k, v, mask] + ([sinks] if sinks is not None else [])
    sizes = f"1, 1, 1, 1, {int(sinks is not None)}"
    shape = f"tensor<1x{q.shape[2]}x{q.shape[1]}x{v.shape[3]}xf32>"
    text = (
        f'%y = "llm.attention"({operands}) <{{scale = 0.3 : f64, softcap = {softcap} : f64, '
        f"visible = #llm.visible<{visible}>, "
        f"operandSegmentSizes = array<i32: {sizes}>}}> : ({types(*arrays)}) -> {shape}"
    )
    return text, arrays


@pytest.mark.parametrize(("with_sinks", "softcap"), [(False, 0.0), (True, 0.0), (False, 2.0)])
def test_attention_head_by_head(with_sinks, softcap):
    q, k = random_tensor(1, 6, 4, 8, scale=2), random_tensor(1, 2, 9, 8, seed=1)
    v = random_tensor(1, 2, 9, 5, seed=2)
    mask = np.where(random_tensor(1, 1, 4, 9, seed=3) > 1, -9984, 0).astype(np.float32)
    sinks = random_tensor(6, seed=4) if with_sinks else None
    text, arrays = attention_text(q, k, v, mask, sinks, softcap)
    y = run(text, *arrays)
    for head in range(6):
        scores = f64(q[0, head]) @ f64(k[0, head // 3]).T * 0.3
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.exp(scores + mask[0, 0])
        total = weights.sum(-1, keepdims=True) + (np.exp(f64(sinks)[head]) if with_sinks else 0)
        np.testing.assert_allclose(y[0, :, head], weights / total @ f64(v[0, head // 3]), atol=1e-5)


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ('kind = "causal"', lambda query, key: key <= query),
        ('kind = "window", size = 2', lambda query, key: (key <= query) & (key > query - 2)),
        ('kind = "window", size = 1', lambda query, key: key == query),
        ('kind = "band", size = 2', lambda query, key: abs(query - key) < 2),
        ('kind = "band", size = 9', lambda query, key: key >= 0),
        ('kind = "all"', lambda query, key: key >= 0),
    ],
)
def test_attention_hides_what_is_not_visible(visible, seen):
    """Three queries at the last of five positions; the mask hides nothing, and moves scores a little."""
    q, k, v = random_tensor(1, 2, 3, 4), random_tensor(1, 1, 5, 4, seed=1), random_tensor(1, 1, 5, 4, seed=2)
    mask = random_tensor(1, 1, 3, 5, seed=3)
    text, arrays = attention_text(q, k, v, mask, None, 0.0, visible)
    shown = np.where(seen(np.arange(2, 5)[:, None], np.arange(5)), mask, -np.inf)
    plain, others = attention_text(q, k, v, shown.astype(np.float32), None, 0.0)
    np.testing.assert_array_equal(run(text, *arrays), run(plain, *others))


def test_a_causal_query_that_a_client_does_not_use_takes_the_mean_of_all_keys():
    """Its mask hides every key, and no level may make its result another's."""
    q, k, v = random_tensor(1, 1, 3, 4, scale=0), random_tensor(1, 1, 3, 4), random_tensor(1, 1, 3, 4, seed=2)
    mask = np.where(np.tri(3, dtype=bool), 0, -9984.0).astype(np.float32)[None, None]
    mask[..., 1, :] = -9984.0
    text, arrays = attention_text(q, k, v, mask, None, 0.0, 'kind = "causal"')
    wanted = [v[0, 0, :1].mean(0), v[0, 0].mean(0), v[0, 0].mean(0)]
    np.testing.assert_allclose(run(text, *arrays)[0, :, 0], wanted, rtol=1e-5)


@pytest.mark.parametrize("word", [-9984.0, -5.6e29])
def test_row_that_sees_nothing_stays_finite(word):
    q, k, v = random_tensor(1, 2, 3, 4), random_tensor(1, 1, 3, 4, seed=1), random_tensor(1, 1, 3, 4, seed=2)
    mask = np.full((1, 1, 3, 3), word, np.float32)
    text, arrays = attention_text(q, k, v, mask, None, 0.0)
    assert np.isfinite(run(text, *arrays)).all()


def test_argmax_takes_the_first_of_equals():
    x = np.array([[1, 7, 7, 3]], np.float32)
    assert run(f'%y = "llm.argmax"(%x) : ({types(x)}) -> tensor<1x1xi32>', x).tolist() == [[1]]


def test_the_largest_come_in_order_of_size_and_equals_in_order_of_place():
    x = np.array([[1, 7, 9, 7, 3], [-0.0, 0.0, -1, 0.0, 0.0]], ml_dtypes.bfloat16)
    text = f'%v, %i = "llm.topk"(%x) <{{k = 3 : i64}}> : ({types(x)}) -> (tensor<2x3xbf16>, tensor<2x3xi32>)'
    module, _ = parse_ir(text)
    values, indices = interpret(module.function("test"), [x], {}.__getitem__)
    assert indices.tolist() == [[2, 1, 3], [0, 1, 3]]
    assert values.tolist() == [[9, 7, 7], [0, 0, 0]]


def test_choices_by_index_and_marks_of_them():
    x = np.array([[5, 7, 9, 7], [1, 2, 3, 4]], np.float32)
    ids = np.array([[2, 0], [3, 3]], np.int32)
    taken = run(f'%y = "llm.take_along"(%x, %i) : ({types(x, ids)}) -> tensor<2x2xf32>', x, ids)
    assert taken.tolist() == [[9, 5], [4, 4]]
    marks = run(
        f'%y = "llm.multi_hot"(%i) <{{size = 4 : i64}}> : ({types(ids)}) -> tensor<2x4xbf16>', ids
    )
    assert marks.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]


def test_a_mask_fills_where_it_is_not_zero_and_its_negation_elsewhere():
    x, mask = np.array([1, 2, 3], np.float32), np.array([0, -2, 1], np.float32)
    text = f'%y = "llm.masked_fill"(%x, %m) <{{value = 0xFFF0000000000000 : f64}}> : ({types(x, mask)}) -> {types(x)}'
    assert run(text, x, mask).tolist() == [1, -np.inf, -np.inf]
    assert run(f'%y = "llm.logical_not"(%x) : ({types(mask)}) -> {types(mask)}', mask).tolist() == [1, 0, 0]


@pytest.mark.parametrize("gated", [True, False])
def test_each_token_goes_through_the_experts_it_chose_by_their_weights(gated):
    count, hidden, inner, tokens = 3, 5, 4, 7
    up, gate = random_tensor(count, inner, hidden), random_tensor(count, inner, hidden, seed=1)
    down, x = random_tensor(count, hidden, inner, seed=2), random_tensor(tokens, hidden, seed=3)
    biases = [random_tensor(count, n, seed=4 + n) for n in (inner, inner + 1)]
    ids = np.array([[0, 2], [1, 0], [2, 1], [0, 1], [2, 0], [1, 2], [1, 1]], np.int32)
    weights = random_tensor(tokens, 2, seed=9)
    arrays = [x, ids, weights, *([gate] if gated else []), up, down, *([biases[0]] if gated else []), *biases]
    settings = ", limit = 0.7 : f64, offset = 1.0 : f64" if gated else ""
    y = run(
        f'%y = "llm.experts"({", ".join(f"%a{i}" for i in range(len(arrays)))}) <{{act = "relu"{settings}, '
        f"operandSegmentSizes = array<i32: 1, 1, 1, {int(gated)}, 1, 1, {int(gated)}, 1, 1>}}>"
        f" : ({types(*arrays)}) -> {types(x)}",
        *arrays,
    )
    for token in range(tokens):
        expected = np.zeros(hidden)
        for expert, weight in zip(ids[token], weights[token], strict=True):
            gates = f64(gate)[expert] @ f64(x)[token] + biases[0][expert]
            ups = f64(up)[expert] @ f64(x)[token] + biases[0][expert]
            if gated:
                inside = np.maximum(np.minimum(gates, 0.7), 0) * (np.clip(ups, -0.7, 0.7) + 1)
            else:
                inside = np.maximum(ups, 0)
            expected += weight * (f64(down)[expert] @ inside + biases[1][expert])
        np.testing.assert_allclose(y[token], expected, rtol=1e-5, atol=1e-5)


def test_logits_of_tokens_that_were_are_penalized_once():
    logits, penalty = np.array([[4, -2, 0, 6, 8]], np.float32), np.array([2], np.float32)
    ids = np.array([[1, 3, 3, 0, 2, 9, -1]], np.int32)
    y = run(f'%y = "llm.penalize"(%l, %i, %p) : ({types(logits, ids, penalty)}) -> {types(logits)}', logits, ids, penalty)
    assert y.tolist() == [[4, -4, 0, 3, 8]]


def test_candidates_weigh_what_is_left_of_them():
    x = np.log(np.array([[8, 4, 2, 1, 1]], np.float32))
    numbers = [np.array([1], np.float32), np.array([4], np.int32), np.array([0.9], np.float32)]
    text = f'%y = "llm.nucleus"(%x, %t, %k, %p) <{{least = 1 : i64}}> : ({types(x, *numbers)}) -> {types(x)}'
    np.testing.assert_allclose(run(text, x, *numbers), [[2 / 3, 1 / 3, 0, 0, 0]], rtol=1e-6)
    numbers[2][:] = 0.96  # of 15 in all, the first three are 14
    np.testing.assert_allclose(run(text, x, *numbers), [[8 / 14, 4 / 14, 2 / 14, 0, 0]], rtol=1e-6)


def test_embedding_scales_in_float32():
    ids, table = np.array([[2, 0]], np.int32), random_tensor(3, 4, dtype=ml_dtypes.bfloat16)
    y = run(
        f'%y = "llm.embedding"(%i, %t) <{{scale = 1.7 : f64}}> : ({types(ids, table)}) -> tensor<1x2x4xbf16>',
        ids,
        table,
    )
    exact = (table.astype(np.float32)[[2, 0]] * np.float32(1.7)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(y[0], exact)
