"""From checkpoint tensors to the bytes of tiles."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.diagnostics import UserError
from compiler.ir.types import BF16, F16, F32
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized, Weight, joined, rectangle
from compiler.weights.tile import Tile, pack, unpack
from dialects.weights import Indices, Iota, Joined, Packed, RopeTable
from driver.blob import Materializer, Piece, WeightBlob
from frontend.binding import Weights
from frontend.checkpoint import Checkpoint
from tests.helpers import random_tensor

DTYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32, "f64": np.float64}
PARTS = {name: random_tensor(64, 64, dtype=dtype, seed=i) for i, (name, dtype) in enumerate(DTYPES.items())}
EXACT = np.concatenate([part.astype(np.float32) for part in PARTS.values()])
FOUR = Scheme(4, 32, True, BF16)


def materializer(weights: dict[str, Weight] | None = None) -> Materializer:
    return Materializer((PARTS if weights is None else weights).__getitem__, {}, "model.{}".format)


def packed(names: tuple[str, ...], rows: int, columns: int, stored: Scheme = FOUR, **where: int) -> Packed:
    place = {"row": 0, "column": 0} | where
    return Packed(names, tile=Tile(rows, columns, stored, 64, 64), **place)


def taken_apart(source: Packed, data: np.ndarray) -> Weight:
    return unpack(source.tile, data.swapaxes(0, 1).reshape(source.tile.lanes, -1))


def test_columns_of_a_rotary_table_are_those_of_its_rows():
    tables = {name: random_tensor(4, 8, seed=seed) for seed, name in enumerate(("cos", "sin"))}
    some, whole = (
        Materializer({}.__getitem__, tables).bytes_of(RopeTable("cos", "sin", columns=columns))
        for columns in ((9, 0, 7), ())
    )
    np.testing.assert_array_equal(some, whole[:, [9, 0, 7]])


@pytest.mark.parametrize("half", [F16, BF16])
def test_parts_of_several_types_are_each_converted_to_the_target(half):
    found = materializer().bytes_of(Joined(tuple(PARTS), half))
    np.testing.assert_array_equal(found, EXACT.astype(half.numpy))


def test_parts_of_several_types_are_quantized_by_their_values():
    source = packed(tuple(PARTS), 256, 64)
    found = taken_apart(source, materializer().bytes_of(source))
    assert isinstance(found, Quantized)
    np.testing.assert_array_equal(found.dequantize(), quantize(EXACT, FOUR).dequantize())


def hand_made(rows: int, columns: int, seed: int = 0) -> Quantized:
    """Codes that no search would choose: whole ranges unused, zero points beyond them, negative scales."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(2, 6, (rows, columns)).astype(np.uint8)
    scales = rng.standard_normal((rows, columns // 32)).astype(np.float16)
    return Quantized(codes, scales, rng.integers(0, 17, scales.shape).astype(np.uint8), Scheme(4, 32, True, F16))


@given(
    row=st.integers(0, 64),
    rows=st.integers(1, 64),
    column=st.sampled_from([0, 32, 64]),
    columns=st.sampled_from([32, 64]),
    each=st.booleans(),
    pieces=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=25)
def test_codes_of_a_checkpoint_reach_the_tiles_unchanged(row, rows, column, columns, each, pieces):
    parts = {name: hand_made(128, 128, seed) for seed, name in enumerate("ab")}
    count = 2 * rows if each else 100
    scheme = parts["a"].scheme
    source = Packed(("a", "b"), row, column, Tile(count, columns, scheme, 64, 64), each, pieces)
    found = taken_apart(source, materializer(parts).bytes_of(source))
    across = slice(column, column + columns)
    if each:
        wanted = joined([rectangle(part, slice(row, row + rows), across) for part in parts.values()])
    else:
        wanted = rectangle(joined([*parts.values()]), slice(row, row + count), across)
    assert isinstance(found, Quantized)
    assert isinstance(wanted, Quantized)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_array_equal(found.scales, wanted.scales)
    np.testing.assert_array_equal(found.zeros, wanted.zeros)


def test_codes_and_floats_are_joined_in_one_tile():
    own, floats = hand_made(64, 64), random_tensor(64, 64)
    source = packed(("own", "floats"), 128, 64, own.scheme)
    found = taken_apart(source, materializer({"own": own, "floats": floats}).bytes_of(source))
    np.testing.assert_array_equal(found.codes, np.concatenate([own.codes, quantize(floats, own.scheme).codes]))


def spoilt(change: Callable[[np.ndarray], None]) -> Quantized:
    made = hand_made(64, 64)
    change(made.codes)
    return made


def set_code(codes: np.ndarray) -> None:
    codes[3, 5] = 16


def not_finite() -> np.ndarray:
    weight = random_tensor(64, 64)
    weight[0, 1] = np.inf
    return weight


@pytest.mark.parametrize(
    ("weight", "stored", "reason"),
    [
        (hand_made(64, 64), FOUR, "taken over: it is stored as .*scale = f16>, where the program expects .*bf16>"),
        (hand_made(64, 64), BF16, "taken over: it is stored as #weights.scheme.*, where the program expects bf16"),
        (spoilt(set_code), hand_made(1, 32).scheme, "taken over: a code is 16, which 4 bits do not hold"),
        (random_tensor(64, 48), FOUR, "quantized: .* 48 is not a multiple of group 32"),
        (not_finite(), FOUR, "quantized: the weight holds NaN or infinity"),
    ],
    ids=["another scheme", "floats expected", "a wide code", "no whole groups", "not finite"],
)
def test_what_cannot_be_stored_is_named(weight, stored, reason):
    with pytest.raises(UserError, match=rf"^model\.w cannot be {reason}"):
        materializer({"w": weight}).bytes_of(packed(("w",), 64, 64, stored))


@pytest.mark.parametrize("stored", [FOUR, BF16])
def test_tiles_of_one_weight_are_made_of_one_reading(stored):
    read = []
    parts = {"w": random_tensor(128, 64).astype(BF16.numpy), "v": random_tensor(64, 64).astype(BF16.numpy)}

    def reader(name: str) -> np.ndarray:
        read.append(name)
        return parts[name]

    sources = [packed(("w",), 64, 64, stored), packed(("w",), 64, 64, stored, row=64), packed(("v",), 64, 64, stored)]
    size = sources[0].tile.total_bytes
    pieces = [Piece(index * size, size, source) for index, source in enumerate(sources)]
    pieces.append(Piece(3 * size + 64, 256, Iota(64, 0.5)))
    blob = WeightBlob(pieces, Materializer(reader, {}), "key")
    data = np.frombuffer(b"".join(blob.chunks()), np.uint8)
    assert (read, len(data), blob.size) == (["w", "v"], 3 * size + 320, 3 * size + 320)
    tiles = [Materializer(parts.__getitem__, {}).bytes_of(source) for source in sources]
    np.testing.assert_array_equal(data[: 3 * size], np.concatenate([tile.view(np.uint8).reshape(-1) for tile in tiles]))
    np.testing.assert_array_equal(data[3 * size + 64 :].view(np.float32), np.arange(64) / 2)


def test_bf16_beyond_f16_is_clipped_on_its_way(tmp_path):
    """The checkpoint's own words are within no limit; what is read for f16 is."""
    from safetensors.numpy import save_file

    values = np.array([[7e4, -1e30], [1.0, 65504.0]], np.float32).astype(ml_dtypes.bfloat16)
    save_file({"w": values}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    weights = Weights({"w": checkpoint["w"]}, F16.numpy)
    found = Materializer(weights.read, {}).bytes_of(Joined(("w",), F16))
    assert found.tolist() == [[65504, -65504], [1, 65504]]
    assert weights.beyond == {"w"}


def test_a_tile_without_a_scheme_holds_the_values_themselves():
    values = random_tensor(64, 64).astype(BF16.numpy)
    source = packed(("w",), 64, 64, BF16)
    data = materializer({"w": values}).bytes_of(source)
    np.testing.assert_array_equal(data[0], pack(source.tile, values))
    np.testing.assert_array_equal(taken_apart(source, data), values)


def test_indices_are_whole_numbers_of_16_bit():
    data = materializer({"order": np.array([3, 65535, 0], np.int32)}).bytes_of(Indices("order"))
    assert (data.dtype, data.tolist()) == (np.uint16, [3, 65535, 0])


def test_some_rows_of_a_tensor_are_taken_as_it_is_stored():
    values = random_tensor(200, 64)
    read = {"w": values, "b": values[:, 0]}.__getitem__
    made = Materializer(read, {})
    np.testing.assert_array_equal(made.bytes_of(Joined(("w{3:90:2}",), F32)), values[3:90:2])
    np.testing.assert_array_equal(made.bytes_of(Joined(("b{3:90:2}",), F32)), values[3:90:2, 0])
    scheme = Scheme(4, 32, True, BF16)
    some, whole = made.codes("w{100:164:1}", scheme), made.codes("w", scheme)
    for part in ("codes", "scales", "zeros"):
        np.testing.assert_array_equal(getattr(some, part), getattr(whole, part)[100:164])
    again = Materializer({"w": whole}.__getitem__, {}).codes("w{100:164:1}", scheme)
    np.testing.assert_array_equal(again.codes, some.codes)


def test_some_columns_of_a_tensor_are_whole_groups_of_it():
    values, scheme = random_tensor(100, 128), Scheme(4, 32, True, BF16)
    made = Materializer({"w": values}.__getitem__, {})
    np.testing.assert_array_equal(made.bytes_of(Joined(("w{3:90:2,32:96:1}",), F32)), values[3:90:2, 32:96])
    some, whole = made.codes("w{,32:96:1}", scheme), made.codes("w", scheme)
    again = Materializer({"w": whole}.__getitem__, {}).codes("w{,32:96:1}", scheme)
    for found in (some, again):
        np.testing.assert_array_equal(found.codes, whole.codes[:, 32:96])
        np.testing.assert_array_equal(found.scales, whole.scales[:, 1:3])


def test_a_tensor_is_transposed_as_its_name_says():
    values = random_tensor(64, 200)
    made = Materializer({"w": values}.__getitem__, {})
    np.testing.assert_array_equal(made.bytes_of(Joined(("w^T{3:90:2}",), F32)), values.T[3:90:2])
    turned = Materializer({"w": np.ascontiguousarray(values.T)}.__getitem__, {})
    scheme = Scheme(4, 32, True, BF16)
    np.testing.assert_array_equal(made.codes("w^T", scheme).codes, turned.codes("w", scheme).codes)
    codes = Materializer({"w": turned.codes("w", scheme)}.__getitem__, {})
    with pytest.raises(UserError, match="w cannot be taken over: it is stored as codes, and the program needs it transposed"):
        codes.codes("w^T", scheme)


def test_what_matters_follows_cuts_and_tiles():
    """Of columns 32 to 127 of a weight, the tile has the last 64."""
    weight = random_tensor(64, 128)
    importance = np.arange(128, dtype=np.float32) ** 2
    source = packed(("w{,32:128:1}",), 64, 64, column=32)
    made = Materializer({"w": weight}.__getitem__, {}, importance={"w": importance}.get)
    found = taken_apart(source, made.bytes_of(source))
    wanted = quantize(weight[:, 64:], FOUR, importance[64:])
    assert isinstance(found, Quantized)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_array_equal(found.scales, wanted.scales)
    assert not np.array_equal(found.codes, quantize(weight[:, 64:], FOUR).codes)


def test_what_matters_to_an_expert_is_known_by_its_part():
    stack = random_tensor(2, 128, 64)  # transposed, the inputs are the first axis of each
    importance = np.arange(128, dtype=np.float32) ** 2
    source = packed(("w[*].T",), 64, 64, column=64, experts=2)
    read = {f"w[{expert}].T": stack[expert].T for expert in range(2)}.__getitem__
    made = Materializer(read, {}, importance=lambda name: importance if name.startswith("w[") else None)
    for expert, data in enumerate(made.bytes_of(source)):
        found = taken_apart(source, data)
        wanted = quantize(stack[expert].T[:, 64:], FOUR, importance[64:])
        assert isinstance(found, Quantized)
        np.testing.assert_array_equal(found.codes, wanted.codes)
