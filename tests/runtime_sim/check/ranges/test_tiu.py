"""Random TIU instructions touch what their ranges say, and nothing else."""

import random

import pytest

from tests.runtime_sim.check.ranges.memories import BF16, F32, SPEC, Fields, check_random


def strides(rng: random.Random, operand: str, shape: tuple[int, ...]) -> Fields:
    """Free strides that keep the tensor small: permuted axes, gaps, and broadcast where read."""
    step, fields = rng.choice([1, 1, 2]), {}
    axes = list(zip("nhw", (shape[0], *shape[2:]), strict=True))
    rng.shuffle(axes)
    for axis, size in axes:
        fields[f"{operand}_{axis}_str"] = step if operand == "res0" else rng.choice([step, step, 0])
        step *= size + rng.choice([0, 0, 1])
    return fields | {f"{operand}_c_str": step, f"{operand}_str": 3}


def ar(rng: random.Random) -> tuple[str, str, Fields]:
    shape = (rng.randint(1, 2), rng.choice([1, 5, 63, 64, 65, 130]), rng.randint(1, 3), rng.randint(1, 9))
    lane = rng.choice([0, 0, 3, 60]) * SPEC.lane_bytes
    precision = rng.choice([F32, BF16])
    fields = {f"res0_{axis}": size for axis, size in zip("nchw", shape, strict=True)}
    for operand, offset in (("opd0", 0), ("opd1", 1344), ("res0", 2688)):
        fields |= {f"{operand}_addr": lane + offset, f"{operand}_prec": precision}
        code = rng.choice([0, 0, 1, 3] if operand == "res0" else [0, 1, 2, 3])
        fields |= strides(rng, operand, shape) if code == 3 else {f"{operand}_str": code}
    kind, count = rng.choice([("add", 2), ("mul", 2), ("copy", 1), ("max", 2)])
    return "ar", kind, fields | {"tsk_opd_num": count, "opd1_const": rng.choice([0, 0, 1])}


def cmp(rng: random.Random) -> tuple[str, str, Fields]:
    kind = rng.choice(["gt_and_sel", "sel_gt", "sel_eq", "lt_and_sel", "sel_lt"])
    sizes = {"res0_n": 1, "res0_c": rng.choice([1, 64, 70]), "res0_h": 2, "res0_w": rng.randint(1, 20)}
    addresses = {
        f"{name}_addr": 512 * i for i, name in enumerate(("opd0", "opd1", "opd2", "opd3", "res0", "res1"))
    }
    codes = {"opd0_prec": F32, "opd2_prec": F32, "opd1_str": rng.choice([0, 3])}
    return "cmp", kind, sizes | addresses | codes


def mm2(rng: random.Random) -> tuple[str, str, Fields]:
    kind = rng.choice(["nn", "nt", "tt"])
    m, k, n = rng.choice([1, 64, 66]), rng.randint(1, 40), rng.choice([1, 33, 65])
    rows, columns = (n, m) if kind == "tt" else (m, n)
    right = (k, n) if kind == "nn" else (n, k)
    fields = {
        "res0_c": rows,
        "res0_w": columns,
        "opd1_c": right[0],
        "opd1_w": right[1],
        "res_add": rng.choice([0, 1]),
    }
    addresses = {"opd0_addr": 0, "opd1_addr": 1024, "res0_addr": 2048}
    return "mm2", kind, fields | addresses | {"opd0_prec": BF16, "res0_prec": rng.choice([BF16, F32])}


def sfu(rng: random.Random) -> tuple[str, str, Fields]:
    kind = rng.choice(["rsqrt", "taylor", "taylor_4x"])
    sizes = {
        "res0_n": rng.randint(1, 2),
        "res0_c": rng.choice([3, 64]),
        "res0_h": 2,
        "res0_w": rng.randint(1, 30),
    }
    addresses = {"opd0_addr": 0, "opd1_addr": 1024, "res0_addr": 2048}
    return "sfu", kind, sizes | addresses | {"opd0_prec": F32, "res0_prec": F32, "opd1_n": 5}


def pord(rng: random.Random) -> tuple[str, str, Fields]:
    h, w, kernel_h, kernel_w = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 2), rng.randint(1, 2)
    sizes = {
        "res0_n": 1,
        "res0_c": rng.choice([2, 64, 67]),
        "res0_h": h - kernel_h + 1,
        "res0_w": w - kernel_w + 1,
    }
    window = {
        "opd0_h": h,
        "opd0_w": w,
        "opd1_h": kernel_h,
        "opd1_w": kernel_w,
        "res_op_x_str": 1,
        "res_op_y_str": 1,
    }
    constants = {"opd1_const": 1, "opd3_const": 1, "opd1_addr": 0x3F800000}
    addresses = {"opd0_addr": 0, "res0_addr": 2048, "opd0_prec": F32, "res0_prec": F32}
    return "pord", rng.choice(["avgpooling", "maxpooling"]), sizes | window | constants | addresses


def tsbc(rng: random.Random) -> tuple[str, str, Fields]:
    kind = rng.choice(["cw_ts", "wc_ts", "l_copy", "l_bc"])
    c, w = rng.choice([1, 20, 64, 100]), rng.choice([1, 20, 64, 100])
    sizes = {"res0_n": 1, "res0_c": c, "res0_h": rng.choice([1, 2]), "res0_w": w, "opd0_c": w, "opd0_w": c}
    return "tsbc", kind, sizes | {"res0_prec": BF16, "opd0_addr": 0, "res0_addr": 2048}


def sg(rng: random.Random) -> tuple[str, str, Fields]:
    """Indices of a byte, none of which is too large for rows of 256."""
    kind, w = rng.choice(["pl_gather_d1coor", "pe_s_gather_d1coor"]), rng.randint(1, 70)
    sizes = {"res0_n": 1, "res0_c": rng.choice([1, 63, 64, 70]), "res0_h": 1, "res0_w": w, "opd0_w": 256}
    codes = {"res0_prec": BF16, "opd0_prec": BF16, "opd1_prec": 0}
    return "sg", kind, sizes | codes | {"opd0_addr": 0, "opd1_addr": 1024, "res0_addr": 2048}


FAMILIES = {make.__name__: make for make in (ar, cmp, mm2, sfu, pord, tsbc, sg)}


@pytest.mark.parametrize("family", FAMILIES)
def test_random_instructions_touch_only_their_ranges(family):
    check_random(FAMILIES[family])
