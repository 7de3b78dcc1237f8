"""What programs move and compute, and the figures of nets and models."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.isa import split_address
from compiler.target.timing import estimate, measure, work_of
from compiler.target.timing.report import ModelTiming, bound
from runtime_sim.launch.queues import CoreProgram
from tests.compiler.target.timing.instructions import (
    COLUMN,
    F32,
    F32_IN_OUT,
    I8,
    I32,
    gather,
    load,
    make,
    matmul,
    matrix,
    on_8,
    rows_of,
    shaped,
    step,
    tensor,
)


def test_work_counts_bytes_commands_and_products():
    program = CoreProgram(
        [matmul("nn", 64, 32, 4), step(1), make("sys", "end")],
        [tensor("copy", *rows_of(2, 100)), tensor("copy", *rows_of(1, 100), store=True), gather(3, 64),
         make("dma_sys", "end")],
    )  # fmt: skip
    work = work_of([program], BM1684X)
    assert (work.ddr_read, work.ddr_write) == (400 + 384, 200 + 384)
    assert (work.dma_commands, work.macs) == (3, 64 * 32 * 4)
    assert not work.guessed


def test_work_counts_what_lanes_share_once_and_indices_in_ddr():
    words = tensor("broadcast", (1, 1, 8, 16), (0, 0, 16, 1), item=I32, dst_csize=64)
    far = gather(3, 64, **split_address("index", BM1684X.ddr_base))
    linear = make("dma_general", "copy", move_length=700, **split_address("src", BM1684X.ddr_base),
                  **split_address("dst", BM1684X.dma_local_base))  # fmt: skip
    fill = tensor("copy", *rows_of(2, 100), fill_constant_en=1)
    assert work_of([CoreProgram([], [words])], BM1684X).ddr_read == 512
    assert work_of([CoreProgram([], [linear])], BM1684X).ddr_read == 700
    assert work_of([CoreProgram([], [far])], BM1684X).ddr_read == 384 + 12
    assert work_of([CoreProgram([], [fill])], BM1684X).ddr_read == 0


def test_instructions_that_were_never_seen_are_named():
    program = CoreProgram([shaped("lin", "mac", COLUMN, res0_prec=F32)], [matrix(1, 576, 9)])
    assert work_of([program], BM1684X).guessed == {"lin.mac": 1}


def test_the_roofline_is_the_larger_of_bytes_and_products():
    load_only = CoreProgram([], [matrix(1, 58 * 640, 580, item=I8)])
    product_only = CoreProgram([matmul("nn", 256, 256, 64)], [])
    costs = BM1684X.costs
    assert work_of([load_only], BM1684X).bound(costs) == 640
    assert work_of([product_only], BM1684X).bound(costs) == 512
    assert work_of([load_only, product_only], BM1684X).bound(costs) == 640
    assert work_of([load_only, load_only], BM1684X).bound(costs, cores=2) == 640
    assert work_of([CoreProgram([], [gather(500, 32)])], BM1684X).bound(costs) == 500


def test_no_estimate_is_below_the_roofline():
    rng = np.random.default_rng(0)
    for _ in range(50):
        count, width = (int(n) for n in rng.integers(1, 600, 2))
        commands = [
            tensor("copy", *rows_of(count, width)),
            matrix(count, width, 1 + width // 64),
            gather(count, width),
        ]
        timing = measure("net", [CoreProgram([], commands)], BM1684X)
        assert timing.roofline <= timing.cycles <= timing.cycles_cautious


@pytest.mark.parametrize(
    ("tiu", "dma", "expected"),
    [
        ([step(100)], [load(5)], "tiu"),
        ([step(5)], [load(100)], "dma"),
        ([step(50), step(50, wait=1)], [load(100, wait=1)], "waits"),
    ],
)
def test_what_bounds_a_program(tiu, dma, expected):
    assert bound([estimate(tiu, dma, BM1684X)]) == expected


def test_a_model_is_its_embedding_its_blocks_and_its_head():
    names = {"embedding": 1, "embedding_cache": 2, "block_0": 10, "block_1": 10, "block_cache_0": 20,
             "block_cache_1": 20, "block_2": 1000, "lm_head": 5}  # fmt: skip
    nets = {name: measure(name, [CoreProgram([step(width)], [])], BM1684X) for name, width in names.items()}
    model = ModelTiming(nets, mhz=1000)
    assert model.layers == 2
    figures = model.as_dict()
    assert figures["prefill_seconds"]["cycles"] == pytest.approx((1 + 20 + 5) * 1e-9)
    assert figures["tokens_per_second"]["cycles"] == pytest.approx(1e9 / (2 + 40 + 5))
    assert figures["prefill_seconds"]["cycles_cautious"] == pytest.approx((1 + 20 + 5 + 4 * 11) * 1e-9)


def nets_of(*names: str) -> ModelTiming:
    timing = measure("net", [CoreProgram([step(10)], [])], BM1684X)
    return ModelTiming({name: timing for name in names}, mhz=1000)


@pytest.mark.parametrize(
    ("names", "layers", "whole"),
    [
        (["block_0", "block_cache_0", "lm_head"], 1, True),
        (["block_0", "block_cache_0"], 1, False),
        (["block_1", "block_cache_1", "lm_head"], 0, False),
        (["block_0", "block_cache_0", "block_cache_1", "lm_head"], 1, True),
        (["lm_head"], 0, False),
    ],
)
def test_a_model_has_the_layers_that_a_client_would_count(names, layers, whole):
    model = nets_of(*names)
    assert (model.layers, model.is_whole) == (layers, whole)


def test_the_heads_that_come_after_belong_to_it():
    assert len(nets_of("block_0", "block_cache_0", "lm_head", "greedy_head", "sample_head").decode()) == 3


def test_products_in_blocks_count_as_products():
    sizes = {"res0_c": 5, "res0_w": 128, "opd0_n": 3, "opd0_c": 2, "opd0_w": 32, "opd1_w": 16}
    assert work_of([CoreProgram([make("mm", "normal", **sizes)], [])], BM1684X).macs == 3 * 48 * 640


def test_commands_whose_way_was_never_seen_are_named():
    near = gather(3, 64, **split_address("dst", BM1684X.dma_local_base))
    work = work_of([CoreProgram([], [near, near])], BM1684X)
    assert work.guessed == {"dma_gather.copy ddr->local": 2}


def test_a_net_that_takes_no_time():
    timing = measure("nothing", [CoreProgram([make("sys", "end")], [make("dma_sys", "end")])], BM1684X)
    assert (timing.cycles, timing.roofline, timing.as_dict()["dma_commands"]) == (0, 0, 0)
    whole = ModelTiming({"block_0": timing, "block_cache_0": timing, "lm_head": timing}, mhz=1000)
    assert whole.as_dict()["tokens_per_second"]["cycles"] == pytest.approx(1e9)  # as if one cycle


def test_cores_that_only_load_are_bound_by_their_ddr():
    loads = CoreProgram([], [tensor("copy", *rows_of(64, 1024), spec=BM1688)] * 20)
    both, one = (measure("net", [loads] * count, BM1688) for count in (2, 1))
    assert (both.as_dict()["bound"], both.as_dict()["bound_cautious"]) == ("dma", "ddr")
    assert both.shared_ddr == both.roofline_cautious == int(2 * 20 * 64 * 2048 / 24.5e9 * 900e6)
    assert both.roofline < both.roofline_cautious <= both.cycles_cautious
    assert (one.shared_ddr, one.roofline_cautious, one.bound_cautious) == (0, one.roofline, "dma")


def test_cores_that_compute_are_not_bound_by_their_ddr():
    program = CoreProgram([on_8("ar", "add", **F32_IN_OUT, res0_n=1, res0_c=32, res0_h=1, res0_w=60000, opd0_addr=64)], [tensor("copy", *rows_of(64, 1024), spec=BM1688)])
    assert measure("net", [program] * 2, BM1688).bound_cautious == "tiu"
