"""TIU instructions beside the vendor's C-model, on every kind of bit pattern."""

import itertools

import numpy as np
import pytest

from compiler.target.chips import chip
from compiler.target.isa import PRECISION, isa_for
from tests.conformance.instructions.lane_images import TYPES, assert_equal_images, image_of

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]

A, B, C, D, RESULT, SECOND = 0, 1024, 2048, 3072, 4096, 6144  # byte offsets of operands and results
FLOATS, INTEGERS = ("f32", "bf16", "f16"), ("i8", "i16", "i32")
ITEMS = {"res0_n": 1, "res0_h": 1, "res0_w": 128}


@pytest.fixture(params=["bm1684x", "bm1688"])
def spec(request):
    return chip(request.param)


def instruction(spec, name, kind, **fields):
    """A case of one instruction on whole lanes."""
    given = ITEMS | {"res0_c": spec.lanes, "res0_addr": RESULT, "opd0_addr": A} | fields
    return lambda program: program.add(name, kind, **given)


def arithmetic(spec, kind, result, left, right=None, signs=(1, 1), **fields):
    precisions = {"res0_prec": PRECISION[result], "opd0_prec": PRECISION[left], "opd1_addr": B}
    precisions |= {"opd0_sign": signs[0], "opd1_sign": signs[1], "tsk_opd_num": 2 if right else 1}
    if right:
        precisions["opd1_prec"] = PRECISION[right]
    return instruction(spec, "ar", kind, **precisions | fields)


def run(spec, tmp_path, dtypes, cases):
    assert_equal_images(spec, image_of(spec, np.random.default_rng(0), dtypes), cases, tmp_path)


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_arithmetic(spec, tmp_path, dtype):
    kinds = ("add", "sub", "mul", "max", "min", "fsubabs")
    cases = {kind: arithmetic(spec, kind, dtype, dtype, dtype) for kind in kinds}
    cases |= {kind: arithmetic(spec, kind, dtype, dtype) for kind in ("abs", "copy")}
    payload = {"opd2_const": 1, "opd2_addr": 0x40490FDB, "opd2_prec": PRECISION[dtype], "tsk_opd_num": 3}
    for kind in ("select_gt", "select_eq", "select_lt"):
        cases[kind] = arithmetic(spec, kind, dtype, dtype, dtype, **payload)
    if dtype == "f32":
        cases |= {f"div {n}": arithmetic(spec, "div", dtype, dtype, dtype, opd2_n_str=n) for n in range(4)}
    run(spec, tmp_path, {A: dtype, B: dtype}, cases)


@pytest.mark.parametrize("source", TYPES)
def test_casts(spec, tmp_path, source):
    cases = {}
    for result, mode, left, right in itertools.product(TYPES, range(5), (0, 1), (0, 1)):
        if {source, result} == {"bf16", "f16"}:
            continue  # the C-model aborts
        fields = {"opd2_n_str": mode, "opd2_sign": right}
        cases[f"{left} to {result} {right} mode {mode}"] = arithmetic(
            spec, "cast", result, source, signs=(left, 1), **fields
        )
    run(spec, tmp_path, {A: source}, cases)


@pytest.mark.parametrize("left", INTEGERS)
@pytest.mark.parametrize("right", INTEGERS)
def test_integer_arithmetic(spec, tmp_path, left, right):
    cases = {}
    for result, kind, signs in itertools.product(
        INTEGERS, ("add", "sub", "mul", "adds", "subs", "muls"), [(0, 0), (0, 1), (1, 1)]
    ):
        shift = {}
        if kind.endswith("s"):
            shift = {"opd2_const": 1, "opd2_addr": -3 & 0xFF, "opd2_n_str": 1, "tsk_opd_num": 3}
        cases[f"{kind} {result} {signs}"] = arithmetic(spec, kind, result, left, right, signs, **shift)
    run(spec, tmp_path, {A: left, B: right}, cases)


@pytest.mark.parametrize("signs", [(0, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("amount", [None, -2, -22, 4])
def test_saturating_arithmetic_of_16_bit_with_constants_and_shifts(spec, tmp_path, amount, signs):
    cases, shift = {}, {}
    if amount is not None:
        shift = {"opd2_const": 1, "opd2_addr": amount & 0xFF, "opd2_n_str": 1, "tsk_opd_num": 3}
    for kind, constant in itertools.product(("adds", "subs", "muls"), ("opd0", "opd1", None)):
        fields = {f"{constant}_const": 1, f"{constant}_addr": 2600} if constant else {}
        cases[f"{kind} {constant}"] = arithmetic(spec, kind, "i16", "i16", "i16", signs, **shift | fields)
    run(spec, tmp_path, {A: "i16", B: "i16"}, cases)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bits_extremes_and_shifts(spec, tmp_path, dtype):
    cases = {}
    for kind, sign in itertools.product(("and", "or", "xor", "max", "min", "not", "copy", "abs"), (0, 1)):
        right = None if kind in ("not", "copy", "abs") else dtype
        cases[f"{kind} {sign}"] = arithmetic(spec, kind, dtype, dtype, right, (sign, sign))
    run(spec, tmp_path, {A: dtype, B: dtype}, cases)
    shifts = itertools.product(("ashift", "logic_shift"), INTEGERS, range(7), (0, 1))
    cases = {
        f"{kind} {result} mode {mode} sign {sign}": arithmetic(
            spec, kind, result, dtype, "i8", (sign, 1), opd2_n_str=mode
        )
        for kind, result, mode, sign in shifts
    }
    run(spec, tmp_path, {A: dtype, B: "i8"}, cases)


@pytest.mark.parametrize("compared", TYPES)
def test_selections(spec, tmp_path, compared):
    cases = {}
    for kind, constant in itertools.product(
        ("gt_and_sel", "sel_gt", "sel_eq", "lt_and_sel", "sel_lt"), (0, 1)
    ):
        fields = {"opd0_prec": PRECISION[compared], "opd2_prec": PRECISION["i16"], "opd0_sign": 1}
        fields |= {"opd1_addr": B, "opd2_addr": C, "opd3_addr": D, "res1_addr": SECOND}
        if constant:
            fields |= {"opd1_str": 3, "opd3_const": 1, "opd3_addr": 0x1234}
        cases[f"{kind} {constant}"] = instruction(spec, "cmp", kind, **fields)
    run(spec, tmp_path, {A: compared, B: compared, C: "i16", D: "i16"}, cases)


@pytest.mark.parametrize("compared", INTEGERS)
def test_integers_that_decide_on_a_constant(spec, tmp_path, compared):
    payload = {"opd2_const": 1, "opd2_addr": 1, "opd2_prec": PRECISION["i8"], "tsk_opd_num": 3}
    cases = {
        f"{kind} {signs}": arithmetic(spec, kind, "i8", compared, compared, signs=signs, **payload)
        for kind in ("select_gt", "select_eq", "select_lt")
        for signs in ((0, 0), (0, 1), (1, 1))
    }
    run(spec, tmp_path, {A: compared, B: compared}, cases)


@pytest.mark.parametrize("dtype", FLOATS)
def test_series_roots_and_fused_operations(spec, tmp_path, dtype):
    code = PRECISION[dtype]
    cases = {}
    for count in (2, 10):
        fields = {"res0_prec": code, "opd0_prec": code, "opd1_n": count, "opd1_addr": B}
        cases[f"taylor {count}"] = instruction(spec, "sfu", "taylor_4x", **fields)
    for kind in ("mac", "square_sum", "square_diff"):
        cases[kind] = instruction(spec, "lin", kind, res0_prec=code, opd1_addr=B, opd2_addr=C)
    if dtype == "f32":
        for n in range(4):
            cases[f"root {n}"] = instruction(spec, "sfu", "rsqrt", res0_prec=2, opd0_prec=2, opd2_n_str=n)
    run(spec, tmp_path, {A: dtype, B: dtype, C: dtype}, cases)


@pytest.mark.parametrize("dtype", FLOATS)
def test_pooling(spec, tmp_path, dtype):
    code = PRECISION[dtype]
    kinds = ["avgpooling", "maxpooling"]
    if "minpooling" in isa_for(spec).layout("pord").kinds and dtype == "f32":
        kinds.append("minpooling")
    cases = {}
    for kind, (h, w, kh, kw) in itertools.product(
        kinds, [(8, 16, 8, 1), (1, 128, 1, 128), (8, 16, 3, 2), (8, 8, 1, 1)]
    ):
        fields = {"opd0_h": h, "opd0_w": w, "opd1_h": kh, "opd1_w": kw, "res_op_x_str": 1, "res_op_y_str": 1}
        fields |= {"res0_h": h - kh + 1, "res0_w": w - kw + 1, "res0_prec": code, "opd0_prec": code}
        scale = {"f32": 0x3C8E38E4, "bf16": 0x3C8E, "f16": 0x2C80}[dtype] if kind == "avgpooling" else 0
        fields |= {"opd1_const": 1, "opd3_const": 1, "opd1_addr": scale}
        cases[f"{kind} {h}x{w} by {kh}x{kw}"] = instruction(spec, "pord", kind, **fields)
    run(spec, tmp_path, {A: dtype}, cases)


@pytest.mark.parametrize("dtype", ["i8", "i16", "i32"])
def test_moves_between_lanes(spec, tmp_path, dtype):
    cases, lane = {}, spec.lane_bytes
    for kind, (c, w) in itertools.product(
        ("cw_ts", "wc_ts", "l_copy", "l_bc"), [(40, 20), (20, 70), (1, 64), (100, 16)]
    ):
        fields = {"res0_prec": PRECISION[dtype], "res0_c": c, "res0_w": w, "opd0_c": c, "opd0_w": w}
        if kind.endswith("ts"):
            fields |= {"opd0_c": w, "opd0_w": c}
        elif c + 9 <= spec.lanes:
            fields |= {"res0_addr": RESULT + 9 * lane, "opd0_addr": 5 * lane}
        cases[f"{kind} {c} x {w}"] = instruction(spec, "tsbc", kind, **fields)
    for c, source, target in ((5, 30, 0), (100, 30, 0), (100, 0, 9), (70, 31, 17)):  # round the last lane
        fields = {"res0_prec": PRECISION[dtype], "res0_c": c, "res0_w": 1, "opd0_c": c, "opd0_w": 1}
        fields |= {"res0_addr": RESULT + target * lane, "opd0_addr": source * lane}
        cases[f"l_copy {c} from {source} to {target}"] = instruction(spec, "tsbc", "l_copy", **fields)
    run(spec, tmp_path, {A: dtype}, cases)


@pytest.mark.parametrize("dtype", ["i8", "i16", "i32"])
@pytest.mark.parametrize("index", ["i8", "i16"])
def test_gathers_inside_lanes(spec, tmp_path, dtype, index):
    """By an index in each lane, and by one for all; indices of 16 bit are drawn below the row's width."""
    image = image_of(spec, np.random.default_rng(0), {A: dtype})
    if index == "i16":
        wide = np.random.default_rng(1).integers(0, 200, (spec.lanes, 512)).astype(np.uint16)
        image[:, B : B + 1024] = wide.view(np.uint8)
    fields = {"res0_prec": PRECISION[dtype], "opd0_prec": PRECISION[dtype], "opd1_prec": PRECISION[index]}
    fields |= {"opd0_h": 1, "opd0_w": 256, "opd1_addr": B}
    cases = {}
    for channels, width in ((spec.lanes, 128), (10, 70), (spec.lanes, 1)):
        sizes = fields | {"res0_c": channels, "res0_w": width}
        per_lane = sizes | {"opd1_c": channels, "opd1_w": width}
        cases[f"per lane {channels} x {width}"] = instruction(spec, "sg", "pe_s_gather_d1coor", **per_lane)
        shared = sizes | {"opd1_c": width, "opd1_w": 1}
        cases[f"shared {channels} x {width}"] = instruction(spec, "sg", "pl_gather_d1coor", **shared)
    assert_equal_images(spec, image, cases, tmp_path)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_products(spec, tmp_path, dtype):
    """Every bit pattern: products too small and too large, NaN, cancellation, short last blocks, both results."""
    code, cases = PRECISION[dtype], {}
    sizes = [(70, 96, 5), (10, 200, 65), (3, 31, 7), (1, 65, 100)]
    for (m, k, n), kind, result, add in itertools.product(sizes, ("nn", "nt", "tt"), ("f32", dtype), (0, 1)):
        right = (k, n) if kind == "nn" else (n, k)
        out = (n, m) if kind == "tt" else (m, n)
        fields = {"res0_c": out[0], "res0_w": out[1], "opd1_c": right[0], "opd1_w": right[1], "res_add": add}
        fields |= {"res0_prec": PRECISION[result], "opd0_prec": code, "opd2_const": 1, "opd1_addr": C}
        cases[f"{kind} {m}x{k}x{n} {result} {add}"] = lambda program, kind=kind, fields=fields: program.add(
            "mm2", kind, opd0_addr=A, res0_addr=RESULT, **fields
        )
    run(spec, tmp_path, {A: dtype, 512: dtype, B: dtype, C: dtype, 2560: dtype, RESULT: "f32"}, cases)
