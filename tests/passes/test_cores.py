"""Nets in the parts that the cores of BM1688 have of them, at each level from the llm dialect to streams."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from compiler.ir.core import Value
from compiler.ir.module import Function, Module
from compiler.ir.types import BF16
from compiler.target.chips.bm1688 import BM1688
from dialects import chip, tensor
from dialects.nets import NetPart, net_of
from driver.blob import Materializer
from frontend.imported import ImportedModel
from frontend.importer import import_model
from passes.llm_to_tensor import sums
from passes.tensor_to_chip import exchange
from passes.tensor_to_chip.cores import Cores
from runtime_sim.check.waits import Moved, find_race
from runtime_sim.interpret.chip import core_programs, run_cores
from tests.architectures.configs import config_of
from tests.compare import compare
from tests.passes.llm.parts import AFTER, after, fused, nets_of, random_inputs, random_weights, run_parts
from tests.passes.programs import core_program

ROUNDING, SUMMING = 0.9999, 0.99999  # cosines of what rounds, and of what adds up, in another order
PLACING = "hoist-stores,hoist-loads,allocate-local,assign-addresses,insert-waits"
UNEVEN = {
    "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 32, "hidden_size": 96, "intermediate_size": 224
}


@cache
def model(name: str, **settings: int) -> ImportedModel:
    return import_model({**config_of(name), **settings}, 100, 80, dtype=BF16)


def levels(module: Module, options: str) -> tuple[Module, Module, Module]:
    """Arrays, instructions and programs with addresses of a module in parts."""
    arrays = after(module, f"llm-to-tensor{options}")
    instructions = after(arrays, "tile-weights,spread-sums,tensor-to-chip")
    return arrays, instructions, after(instructions, PLACING)


@pytest.mark.parametrize(
    ("name", "settings", "options"),
    [
        ("llama", {}, ""),
        ("qwen3", {}, "{tokens=32}"),
        ("qwen2", {}, "{tokens=32 keys=32}"),
        ("llama", UNEVEN, "{tokens=32}"),
        ("gemma2", {}, "{tokens=32}"),
    ],
)
def test_cores_compute_at_each_level_what_they_do_at_the_one_before(name, settings, options):
    """One run of tokens, and several that are under way at once; gemma2 has norms behind its sums."""
    check_model(model(name, **settings), options)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("options", ["", "{tokens=64}", "{tokens=32 keys=32}"])
def test_terms_that_take_much_room_go_in_parts(name, options, monkeypatch):
    """As all do where there is little; rows of lanes are sent one by one, and loaded where they are added."""
    monkeypatch.setattr(sums, "FETCHED_SHARE", BM1688.lane_bytes)
    monkeypatch.setattr(exchange, "LARGE_SHARE", BM1688.lane_bytes)
    monkeypatch.setattr(type(BM1688), "work_bytes", 256)
    check_model(model(name), options)


def check_model(imported: ImportedModel, options: str) -> None:
    for group in imported.nets:
        whole = fused(group.module, BM1688)
        parts = after(whole, f"partition{{cores=2}},{AFTER}")
        weights = random_weights(whole)
        for stages in zip(*map(nets_of, (parts, *levels(parts, options))), strict=True):
            check_levels(stages, weights, imported.tables)


def check_levels(stages: tuple[list[Function], ...], weights, tables) -> None:
    llm, arrays, instructions, placed = stages
    inputs = [in_order(array) for array in random_inputs(llm[0])]
    wanted = run_parts(llm, inputs, weights, tables)
    found = run_parts(arrays, inputs, weights, tables)
    on_chip, at_addresses = (run(functions, inputs, weights, tables) for functions in (instructions, placed))
    for one, other, cosine in ((wanted, found, ROUNDING), (found, on_chip, SUMMING), (on_chip, at_addresses, 1)):
        for a, b in zip(one, other, strict=True):
            same = a.tobytes() == b.tobytes()
            assert same or compare(a, b).cosine > cosine, f"{net_of(llm[0]).name}: {compare(a, b)}"
    programs = [core_program(program) for program in core_programs(placed, BM1688, bytes_of(weights, tables))]
    assert find_race(programs, BM1688, moved(placed)) is None


def in_order(array: np.ndarray) -> np.ndarray:
    """Positions of tokens are those of their rows, as masks of windows rely on."""
    return np.arange(array.size, dtype=array.dtype).reshape(array.shape) if array.dtype == np.int32 else array


def run(functions: list[Function], inputs, weights, tables) -> list[np.ndarray]:
    return run_cores(core_programs(functions, BM1688, bytes_of(weights, tables)), inputs)


def bytes_of(weights, tables):
    return Materializer(weights, tables).bytes_of


def moved(functions: list[Function]) -> Moved:
    """What the runtime copies."""
    ranges: dict[str, set[tuple[int, int]]] = {"input": set(), "output": set()}
    for op in (op for function in functions for op in function.block.ops if isinstance(op, chip.GlobalOp)):
        if op.space in ranges:
            ranges[op.space].add((op.address, op.address + op.buffer.type.bytes))
    return Moved(tuple(ranges["input"]), tuple(ranges["output"]))


def block(options: str, **settings: int) -> list[Function]:
    """The functions of a block of prefill, as arrays."""
    group = next(group for group in model("llama", **settings).nets if group.of_layers)
    parts = after(fused(group.module, BM1688), f"partition{{cores=2}},{AFTER},llm-to-tensor{options}")
    return next(net for net in nets_of(parts) if net_of(net[0]).name == "block")


def test_terms_are_received_one_run_ahead_of_where_they_are_added():
    """Three runs send, each twice; while terms are under way, another run computes. The last sum of a run is
    received in time to be stored while the next run computes.
    """
    for function in block("{tokens=32}"):
        ops = [op for op in function.block.ops if isinstance(op, tensor.SendOp | tensor.ReceiveOp)]
        assert "".join("s" if isinstance(op, tensor.SendOp) else "r" for op in ops) == "ssrsrsrsrrsr"


def test_a_core_that_waits_for_one_sum_keeps_its_own_term():
    """It reads those of others alone."""
    for number, function in enumerate(block("")):
        received = [op for op in function.block.ops if isinstance(op, tensor.ReceiveOp)]
        read = [[bool(term.users) for term in op.results] for op in received]
        assert read == [[core != number for core in range(2)]] * 2


def test_as_many_messages_as_terms_may_be_ahead_of_others():
    (function, _) = block("{tokens=32}")
    module = function.parent_op
    after_ = after(module, "tile-weights,tensor-to-chip")
    sends = [op.message for op in after_.functions()[0].block.ops if isinstance(op, chip.SendOp)]
    assert sends == [30, 31, 32, 33, 34, 31, 32, 33]  # start, three runs twice, end


@pytest.mark.parametrize("count", range(2, 12))
@pytest.mark.parametrize("messages", [2, 4])
def test_a_launch_ends_with_another_message_than_the_next_begins_with(count, messages):
    """A core may still wait for the last when the first core is done, and begins anew."""
    cores = Cores(NetPart(cores=2), messages)
    start, *others = [cores.next_message() for _ in range(count)]
    assert start not in others
    assert all(one != other for one, other in pairwise(others))


def test_the_keys_of_a_run_are_read_from_where_its_core_stored_them():
    """Own heads lie apart in the output of all; they are stored once."""
    function, _ = block("{tokens=32 keys=32}")
    stores = [op for op in function.block.ops if isinstance(op, tensor.StoreOp)]
    assert sum(op.stored.type.rank == 4 for op in stores) == 3 * 2


@pytest.mark.parametrize("tokens", [1, 80])
def test_cores_cut_their_weights_alike(tokens):
    """Along their inputs where sums are sent, whether a core begins with what is added once or with nothing."""
    group = next(group for group in model("llama", intermediate_size=512).nets if group.of_layers)
    parts = after(fused(group.module, BM1688), f"partition{{cores=2}},{AFTER},llm-to-tensor")
    name = "block" if tokens > 1 else "block_cache"
    tiled = next(net for net in nets_of(after(parts, "tile-weights{bytes=512}")) if net_of(net[0]).name == name)
    first, second = ([(tile.type.rows, tile.type.columns) for tile in tiles_of(core)] for core in tiled)
    assert first == second
    assert len({columns for _, columns in first}) > 1


def tiles_of(function: Function) -> list[Value]:
    return [op.result for op in function.block.ops if isinstance(op, tensor.PackedWeightOp)]
