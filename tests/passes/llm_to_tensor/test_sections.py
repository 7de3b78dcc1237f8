"""Functions that tokens are moved in: sections of other numbers of tokens, through DDR, down to the chip."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.module import Module
from passes.llm_to_tensor.sections import Places, sections_of
from passes.manager import PassManager, parse_pipeline
from tests.helpers import as_net, parse_ir, random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

P, E = 150, 96
STATES = {2: 0}  # tokens on the first of two axes


def linear(y: str, x: str, w: str, tokens: str, inner: int, outer: int) -> str:
    return f"""
      %{w} = "llm.weight"() <{{name = "{w}"}}> : () -> tensor<{outer}x{inner}xbf16>
      %{y} = "llm.linear"(%{x}, %{w}) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
         : (tensor<{tokens}x{inner}xbf16>, tensor<{outer}x{inner}xbf16>) -> tensor<{tokens}x{outer}xbf16>
    """


def weight(*shape: int, seed: int = 3) -> np.ndarray:
    return random_tensor(*shape, seed=seed, scale=shape[-1] ** -0.5).astype("bfloat16")


def bf16(*shape: int, seed: int = 1) -> np.ndarray:
    return random_tensor(*shape, seed=seed).astype("bfloat16")


@pytest.mark.parametrize("options", ["", "{tokens=64}"])
def test_tokens_are_on_the_first_axis(options):
    text = linear("y", "x", "w", f"{P}", E, 80) + f"""
      %g = "llm.weight"() <{{name = "g"}}> : () -> tensor<80xbf16>
      %b = "llm.weight"() <{{name = "b"}}> : () -> tensor<80xbf16>
      %n = "llm.layer_norm"(%y, %g, %b) <{{eps = 1.0e-6 : f64, operandSegmentSizes = array<i32: 1, 1, 1>}}>
         : (tensor<{P}x80xbf16>, tensor<80xbf16>, tensor<80xbf16>) -> tensor<{P}x80xbf16>
    """
    weights = {"w": weight(80, E), "g": bf16(80), "b": bf16(80, seed=2)}
    check_levels(text, [bf16(P, E)], weights=weights, options=options, axes=STATES)


@pytest.mark.parametrize("options", ["", "{tokens=64}", "{tokens=128}"])
def test_neighbours_are_merged(options):
    """[P, E] -> [P/4, 4 E]; what is merged is read by a product."""
    p = 4 * 37
    text = linear("y", "x", "w", f"{p}", E, 80) + f"""
      %m = "llm.reshape"(%y) <{{shape = array<i64: {p // 4}, 320>}}> : (tensor<{p}x80xbf16>) -> tensor<{p // 4}x320xbf16>
    """ + linear("z", "m", "v", f"{p // 4}", 320, 72)
    check_levels(text, [bf16(p, E)], weights={"w": weight(80, E), "v": weight(72, 320)}, options=options, axes=STATES)


def test_the_last_tokens_of_one_of_several_sections_are_no_run_of_their_own():
    p = 4 * 64
    text = linear("y", "x", "w", f"{p}", E, 80) + f"""
      %m = "llm.reshape"(%y) <{{shape = array<i64: {p // 4}, 320>}}> : (tensor<{p}x80xbf16>) -> tensor<{p // 4}x320xbf16>
    """ + linear("z", "m", "v", f"{p // 4}", 320, 72)
    weights = {"w": weight(80, E), "v": weight(72, 320)}
    module = check_levels(text, [bf16(p, E)], weights=weights, options="{tail=1}", axes=STATES)
    products = [op.results[0].type.shape for op in module.functions()[0].block.ops if op.opname == "tensor.linear"]
    assert products == [(p, 80), (p // 4, 72)]


@pytest.mark.parametrize(("residual", "bits"), [("", {16}), ("m", {16, 32})])
def test_what_a_norm_alone_reads_is_stored_rounded(residual, bits):
    """The first section stores y, of which what is merged is the mean of a norm, or is added to as well."""
    p = 4 * 37
    merged = f"tensor<{p // 4}x320xbf16>"
    added = (f", %{residual}", f", {merged}") if residual else ("", "")
    text = linear("y", "x", "w", f"{p}", E, 80) + f"""
      %m = "llm.reshape"(%y) <{{shape = array<i64: {p // 4}, 320>}}> : (tensor<{p}x80xbf16>) -> {merged}
      %g = "llm.weight"() <{{name = "g"}}> : () -> tensor<320xbf16>
      %n = "llm.rms_norm"(%m, %g) <{{eps = 1.0e-6 : f64}}> : ({merged}, tensor<320xbf16>) -> {merged}
      %v = "llm.weight"() <{{name = "v"}}> : () -> tensor<320x320xbf16>
      %z = "llm.linear"(%n, %v{added[0]}) <{{operandSegmentSizes = array<i32: 1, 1, 0, {int(bool(residual))}>}}>
         : ({merged}, tensor<320x320xbf16>{added[1]}) -> {merged}
    """
    weights = {"w": weight(80, E), "g": bf16(320), "v": weight(320, 320, seed=4)}
    module = check_levels(text, [bf16(p, E)], weights=weights, axes=STATES)
    stores = [op for op in module.functions()[0].block.ops if op.opname == "tensor.store"]
    assert {op.results[0].type.element.bits for op in stores} == bits


def test_what_is_merged_is_added_to_and_given():
    """Nothing is computed of an argument before its tokens are moved, and nothing of a result afterwards."""
    p = 4 * 37
    merged = f"tensor<{p // 4}x320xbf16>"
    text = f"""
      %m = "llm.reshape"(%x) <{{shape = array<i64: {p // 4}, 320>}}> : (tensor<{p}x80xbf16>) -> {merged}
      %y = "llm.mul"(%m) <{{value = 2.0 : f64}}> : ({merged}) -> {merged}
      %z = "llm.reshape"(%y) <{{shape = array<i64: {p}, 80>}}> : ({merged}) -> tensor<{p}x80xbf16>
    """
    check_levels(text, [bf16(p, 80)], options="{tokens=64}", axes=STATES)


@pytest.mark.parametrize("options", ["", "{tokens=64}"])
def test_a_token_is_joined_and_left_out_again(options):
    n, x = 130, "tensor<1x130x64xbf16>"
    text = linear("p", "x", "w", f"1x{n}", 64, 64) + f"""
      %cls = "llm.weight"() <{{name = "cls"}}> : () -> tensor<1x1x64xbf16>
      %all = "llm.concat"(%cls, %p) <{{axis = 1 : i64}}> : (tensor<1x1x64xbf16>, {x}) -> tensor<1x131x64xbf16>
      %at = "llm.weight"() <{{name = "at"}}> : () -> tensor<1x131x64xbf16>
      %e = "llm.add"(%all, %at) : (tensor<1x131x64xbf16>, tensor<1x131x64xbf16>) -> tensor<1x131x64xbf16>
    """ + linear("q", "e", "v", "1x131", 64, 64) + f"""
      %r = "llm.slice"(%q) <{{axis = 1 : i64, start = 1 : i64, stop = 131 : i64, step = 1 : i64}}> : (tensor<1x131x64xbf16>) -> {x}
      %s = "llm.mul"(%r) <{{value = 3.0 : f64}}> : ({x}) -> {x}
    """
    weights = {"w": weight(64, 64), "v": weight(64, 64, seed=4), "cls": bf16(1, 1, 64), "at": bf16(1, 131, 64)}
    check_levels(text, [bf16(1, n, 64)], weights=weights, options=options, axes={3: 1})


@pytest.mark.parametrize("options", ["", "{tokens=64}"])
def test_pixels_are_shuffled(options):
    """InternVL: [1, h w, c] -> [1, h w / 4, 4 c], with width and height exchanged on the way."""
    h, c = 16, 32
    shapes = [(1, h, h, c), (1, h, h // 2, 2 * c), (1, h // 2, h, 2 * c), (1, h // 2, h // 2, 4 * c), (1, h // 2, h // 2, 4 * c)]
    ops = ["reshape", "reshape", "permute", "reshape", "permute"]
    text = linear("v0", "x", "w", f"1x{h * h}", c, c)
    before = (1, h * h, c)
    shapes, ops = [*shapes, (1, h * h // 4, 4 * c)], [*ops, "reshape"]
    for number, (op, shape) in enumerate(zip(ops, shapes, strict=True)):
        types = [f"tensor<{'x'.join(map(str, each))}xbf16>" for each in (before, shape)]
        how = "order = array<i64: 0, 2, 1, 3>" if op == "permute" else f"shape = array<i64: {', '.join(map(str, shape))}>"
        text += f'%v{number + 1} = "llm.{op}"(%v{number}) <{{{how}}}> : ({types[0]}) -> {types[1]}\n'
        before = shape
    text += linear("z", "v6", "u", f"1x{h * h // 4}", 4 * c, 48)
    check_levels(text, [bf16(1, h * h, c)], weights={"w": weight(c, c), "u": weight(48, 4 * c)}, options=options, axes={3: 1})


def picture(side: int, patch: int) -> tuple[str, tuple[int, int]]:
    """[1, 3, side, side] f32, rounded and cut into patches [n, 3 patch**2]."""
    n = side // patch
    split, turned = (1, 3, n, patch, n, patch), (1, n, n, 3, patch, patch)
    flat = (n * n, 3 * patch * patch)
    types = ["tensor<" + "x".join(map(str, each)) + "xbf16>" for each in ((1, 3, side, side), split, turned, flat)]
    text = f"""
      %r = "llm.narrow"(%x) : ({types[0].replace("bf16", "f32")}) -> {types[0]}
      %a = "llm.reshape"(%r) <{{shape = array<i64: {", ".join(map(str, split))}>}}> : ({types[0]}) -> {types[1]}
      %b = "llm.permute"(%a) <{{order = array<i64: 0, 2, 4, 1, 3, 5>}}> : ({types[1]}) -> {types[2]}
      %c = "llm.reshape"(%b) <{{shape = array<i64: {flat[0]}, {flat[1]}>}}> : ({types[2]}) -> {types[3]}
    """
    return text, flat


@pytest.mark.parametrize("options", ["", "{tokens=64}"])
def test_a_picture_is_cut_into_patches(options):
    text, (n, width) = picture(70, 7)
    text += f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> tensor<64x{width}xbf16>
      %d = "llm.linear"(%c, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
         : (tensor<{n}x{width}xbf16>, tensor<64x{width}xbf16>) -> tensor<{n}x64xbf16>
    """
    check_levels(text, [random_tensor(1, 3, 70, 70)], weights={"w": weight(64, width)}, options=options, axes={2: 0})


@pytest.mark.parametrize(
    ("options", "rows"), [("{tokens=64}", {64, 2}), ("{tokens=64 keys=64}", {64, 2}), ("", {133})]
)
def test_tokens_that_nobody_reads_are_not_computed_behind_attention(options, rows):
    """All 133 are keys, and the last 130 of the results are read: of three runs none has 64 and 64 and 5. In
    one run the keys are made where they are read.
    """
    n, h, d = 133, 2, 32
    q, split = f"tensor<1x{h}x{n}x{d}xbf16>", f"tensor<1x{n}x{h}x{d}xbf16>"
    x = f"tensor<1x{n}x64xbf16>"
    text = "".join(
        linear(f"{name}0", "x", f"w{name}", f"1x{n}", 64, 64)
        + f"""
      %{name}1 = "llm.reshape"(%{name}0) <{{shape = array<i64: 1, {n}, {h}, {d}>}}> : ({x}) -> {split}
      %{name} = "llm.permute"(%{name}1) <{{order = array<i64: 0, 2, 1, 3>}}> : ({split}) -> {q}
        """
        for name in "qkv"
    ) + f"""
      %a = "llm.attention"(%q, %k, %v) <{{scale = 0.2 : f64, visible = #llm.visible<kind = "all">, operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}>
         : ({q}, {q}, {q}) -> {split}
      %r = "llm.reshape"(%a) <{{shape = array<i64: 1, {n}, 64>}}> : ({split}) -> {x}
    """ + linear("o", "r", "wo", f"1x{n}", 64, 64) + f"""
      %s = "llm.slice"(%o) <{{axis = 1 : i64, start = 3 : i64, stop = {n} : i64}}> : ({x}) -> tensor<1x{n - 3}x64xbf16>
      %t = "llm.reshape"(%s) <{{shape = array<i64: 1, {(n - 3) // 2}, 128>}}> : (tensor<1x{n - 3}x64xbf16>) -> tensor<1x{(n - 3) // 2}x128xbf16>
    """ + linear("y", "t", "wy", f"1x{(n - 3) // 2}", 128, 64)
    weights = {f"w{name}": weight(64, 64, seed=i) for i, name in enumerate("qkvo")} | {"wy": weight(64, 128)}
    module = check_levels(text, [bf16(1, n, 64)], weights=weights, options=options, cosine=0.9999)
    scores = [op.results[0].type.shape for op in module.functions()[0].block.ops if op.opname == "tensor.matmul"]
    assert {shape[-2] for shape in scores} == rows


@pytest.mark.parametrize("options", ["", "{tokens=64}"])
def test_known_tokens_take_the_place_of_the_first(options):
    """Three of 133, of a picture's patches of 4 x 4 behind three more."""
    t = 130
    text = f"""
      %a = "llm.reshape"(%x) <{{shape = array<i64: 1, 3, 13, 4, 10, 4>}}> : (tensor<1x3x52x40xf32>) -> tensor<1x3x13x4x10x4xf32>
      %b = "llm.permute"(%a) <{{order = array<i64: 0, 2, 4, 1, 3, 5>}}> : (tensor<1x3x13x4x10x4xf32>) -> tensor<1x13x10x3x4x4xf32>
      %p = "llm.reshape"(%b) <{{shape = array<i64: 1, {t}, 48>}}> : (tensor<1x13x10x3x4x4xf32>) -> tensor<1x{t}x48xf32>
      %h = "llm.narrow"(%p) : (tensor<1x{t}x48xf32>) -> tensor<1x{t}x48xbf16>
      %t = "llm.concat"(%h, %h) <{{axis = 1 : i64}}> : (tensor<1x{t}x48xbf16>, tensor<1x{t}x48xbf16>) -> tensor<1x{2 * t}x48xbf16>
      %i = "llm.slice"(%t) <{{axis = 1 : i64, start = {t - 3} : i64, stop = {2 * t} : i64}}> : (tensor<1x{2 * t}x48xbf16>) -> tensor<1x{t + 3}x48xbf16>
    """ + linear("l", "i", "w", f"1x{t + 3}", 48, 64) + f"""
      %c = "llm.weight"() <{{name = "c"}}> : () -> tensor<1x3x64xbf16>
      %f = "llm.put"(%l, %c) <{{axis = 1 : i64}}> : (tensor<1x{t + 3}x64xbf16>, tensor<1x3x64xbf16>) -> tensor<1x{t + 3}x64xbf16>
      %y = "llm.mul"(%f) <{{value = 2.0 : f64}}> : (tensor<1x{t + 3}x64xbf16>) -> tensor<1x{t + 3}x64xbf16>
    """
    weights = {"w": weight(64, 48), "c": bf16(1, 3, 64)}
    module = check_levels(text, [random_tensor(1, 3, 52, 40)], weights=weights, options=options, axes={3: 1})
    (function,) = module.functions()
    stored = [op for op in function.block.ops if op.opname == "tensor.store" and op.results[0].type.element.bits == 32]
    assert not stored, "products are not stored where the next section begins"


@pytest.mark.parametrize("start", [0, 61, 96])
def test_known_tokens_are_put_anywhere(start):
    """In one of two runs, or in both."""
    x, rows = "tensor<1x100x64xbf16>", "tensor<1x4x64xbf16>"
    text = linear("l", "x", "w", "1x100", 64, 64) + f"""
      %c = "llm.weight"() <{{name = "c"}}> : () -> {rows}
      %f = "llm.put"(%l, %c) <{{axis = 1 : i64, start = {start} : i64}}> : ({x}, {rows}) -> {x}
      %y = "llm.mul"(%f) <{{value = 2.0 : f64}}> : ({x}) -> {x}
    """
    weights = {"w": weight(64, 64), "c": bf16(1, 4, 64)}
    check_levels(text, [bf16(1, 100, 64)], weights=weights, options="{tokens=64}", axes={3: 1})


@pytest.mark.parametrize("options", ["", "{tokens=64}"])
def test_rows_are_picked_by_numbers(options):
    p = 100
    text = linear("y", "x", "w", f"{p}", 64, 64) + f"""
      %j = "llm.reshape"(%i) <{{shape = array<i64: 1, {p}>}}> : (tensor<{p}xi32>) -> tensor<1x{p}xi32>
      %g = "llm.gather_rows"(%y, %j) : (tensor<{p}x64xbf16>, tensor<1x{p}xi32>) -> tensor<1x{p}x64xbf16>
      %z = "llm.reshape"(%g) <{{shape = array<i64: {p}, 64>}}> : (tensor<1x{p}x64xbf16>) -> tensor<{p}x64xbf16>
    """
    ids = np.random.default_rng(5).permutation(p).astype(np.int32)
    arguments = [bf16(p, 64), ids]
    given = check_levels(text, arguments, weights={"w": weight(64, 64)}, options=options, axes=STATES)
    assert is_gathered_locally(given) == {False}, "the client's rows go by local memory"
    more = f'%a = "llm.mul"(%z, %z) : (tensor<{p}x64xbf16>, tensor<{p}x64xbf16>) -> tensor<{p}x64xbf16>'
    read = check_levels(text + more, arguments, weights={"w": weight(64, 64)}, options=options, axes=STATES)
    assert is_gathered_locally(read) == {True}


def is_gathered_locally(module: Module) -> set[bool]:
    """Of each gather, whether its rows come into local memory."""
    ops = module.functions()[0].block.ops
    return {op.results[0].type.layout is not None for op in ops if op.opname == "tensor.gather"}


@pytest.mark.parametrize("options", ["", "{tokens=64}", "{tokens=64 keys=64}"])
def test_attention_sees_all_tokens(options):
    """Two layers on [P, E], of heads of 24."""
    p, h, d = 150, 2, 24
    q = f"tensor<1x{h}x{p}x{d}xbf16>"
    text = ""
    x = "x"
    for layer in range(2):
        text += linear(f"qkv{layer}", x, f"w{layer}", f"{p}", h * d, 3 * h * d)
        for number, name in enumerate("qkv"):
            text += f"""
              %{name}0{layer} = "llm.slice"(%qkv{layer}) <{{axis = 1 : i64, start = {number * h * d} : i64, stop = {(number + 1) * h * d} : i64, step = 1 : i64}}>
                 : (tensor<{p}x{3 * h * d}xbf16>) -> tensor<{p}x{h * d}xbf16>
              %{name}1{layer} = "llm.reshape"(%{name}0{layer}) <{{shape = array<i64: 1, {p}, {h}, {d}>}}> : (tensor<{p}x{h * d}xbf16>) -> tensor<1x{p}x{h}x{d}xbf16>
              %{name}2{layer} = "llm.permute"(%{name}1{layer}) <{{order = array<i64: 0, 2, 1, 3>}}> : (tensor<1x{p}x{h}x{d}xbf16>) -> {q}
            """
        text += f"""
          %a{layer} = "llm.attention"(%q2{layer}, %k2{layer}, %v2{layer}, %mask) <{{scale = {d**-0.5} : f64, softcap = 0.0 : f64, visible = #llm.visible<kind = "all">,
             operandSegmentSizes = array<i32: 1, 1, 1, 1, 0>}}> : ({q}, {q}, {q}, tensor<1x1x{p}x{p}xf32>) -> tensor<1x{p}x{h}x{d}xbf16>
          %r{layer} = "llm.reshape"(%a{layer}) <{{shape = array<i64: {p}, {h * d}>}}> : (tensor<1x{p}x{h}x{d}xbf16>) -> tensor<{p}x{h * d}xbf16>
          %o{layer} = "llm.weight"() <{{name = "o{layer}"}}> : () -> tensor<{h * d}x{h * d}xbf16>
          %y{layer} = "llm.linear"(%r{layer}, %o{layer}, %{x}) <{{operandSegmentSizes = array<i32: 1, 1, 0, 1>}}>
             : (tensor<{p}x{h * d}xbf16>, tensor<{h * d}x{h * d}xbf16>, tensor<{p}x{h * d}xbf16>) -> tensor<{p}x{h * d}xbf16>
        """
        x = f"y{layer}"
    weights = {f"w{i}": weight(3 * h * d, h * d, seed=i) for i in range(2)} | {f"o{i}": weight(h * d, h * d, seed=7 + i) for i in range(2)}
    mask = np.where(random_tensor(p, p, seed=5) > 0.4, 0.0, -10000.0).astype(np.float32)[None, None]
    check_levels(text, [bf16(p, h * d), mask], weights=weights, options=options, axes=STATES, cosine=0.9999)


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "quick_gelu"])
def test_activations_of_products_are_computed_tile_by_tile(kind):
    """3,420 outputs are no whole rows of lanes, nor tiles."""
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> tensor<3420x64xbf16>
      %b = "llm.weight"() <{{name = "b"}}> : () -> tensor<3420xbf16>
      %y = "llm.linear"(%x, %w, %b) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}>
         : (tensor<130x64xbf16>, tensor<3420x64xbf16>, tensor<3420xbf16>) -> tensor<130x3420xbf16>
      %a = "llm.act"(%y) <{{kind = "{kind}"}}> : (tensor<130x3420xbf16>) -> tensor<130x3420xbf16>
    """ + linear("z", "a", "v", "130", 3420, 64)
    weights = {"w": weight(3420, 64), "b": bf16(3420), "v": weight(64, 3420)}
    module = check_levels(text, [bf16(130, 64)], weights=weights, axes=STATES, cosine=0.9999)
    sums = [op.results[0].type for op in module.functions()[0].block.ops if op.opname == "tensor.act_linear"]
    assert [type_.element.bits for type_ in sums] == [16]


def test_a_function_may_be_as_long_as_a_tower_is():
    """What is known at compile time is found without a look at all that comes before."""
    x = w = "tensor<64x64xbf16>"
    lines = [f'%w = "llm.weight"() <{{name = "w"}}> : () -> {w}']
    for number in range(600):
        before = f"%y{number - 1}" if number else "%x"
        lines += [
            f'%n{number} = "llm.rms_norm"({before}) <{{eps = 1.0e-6 : f64}}> : ({x}) -> {x}',
            f'%y{number} = "llm.linear"(%n{number}, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({x}, {w}) -> {x}',
        ]
    module, _ = parse_ir("\n".join(lines))
    as_net(module, STATES)
    (section,) = sections_of(module.functions()[0], Places(module.functions()[0]), lambda tokens: 1)
    assert len(section.ops) == len(lines)
    PassManager(parse_pipeline("llm-to-tensor"), verify_each=False).run(module)
