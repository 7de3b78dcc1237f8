"""Which key of a checkpoint holds which parameter of a transformers model.

The only file that touches the library's conversion tables (transformers.conversion_mapping and
core_model_loading, 5.x). They are not documented as public, an update may change them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from compiler.diagnostics import UserError, log
from compiler.weights.order import rows_in, weight_and_order
from compiler.weights.part import Part, part_of
from compiler.weights.scaled import rows_scaled, weight_and_scale
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized, Weight
from frontend.checkpoint import StoredTensor
from frontend.folder import adapter_not_merged, packed_by_bitsandbytes
from frontend.preflight import Problems
from frontend.sources.packed import PackedLinear
from frontend.sources.source import Source
from frontend.sources.stack import Place, Stack, expert_number, read_part, with_stacks
from frontend.values import check_finite, count_beyond, exceeds, largest, limited

FLOATS = ("bfloat16", "float16", "float32", "float64")
STALE_BUFFERS = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")  # in old checkpoints; computed anew today
# What the library does to the tensors of single experts: one stack, or one of each share of the outputs.
STACKING = [[("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)]]
# Keys of checkpoints that are no plain float model, by pattern.
FOREIGN = {
    r"\.(SCB|absmax|quant_map|quant_state\.\w+)$": packed_by_bitsandbytes,
    r"\.(lora_[AB]|base_layer)\.": adapter_not_merged,
}


@dataclass(frozen=True)
class Expected:
    """What a model wants of a checkpoint: its parameters, and how published keys map to their names."""

    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str] = field(default_factory=dict)  # parameter -> the one it shares its values with
    rename: Callable[[str], str] = str  # checkpoint key -> parameter name
    place_of: Callable[[str], Place | None] = lambda key: None  # of one expert's tensor, by its key
    ignored: tuple[str, ...] = STALE_BUFFERS  # patterns of keys that need no parameter
    prefix: str = ""  # of the decoder's parameters, which some checkpoints leave out

    def parameter_of(self, key: str) -> str:
        """The parameter that a key is, or is one expert's part of."""
        place = self.place_of(key)
        return self.rename(key) if place is None else place.parameter

    def has_place_for(self, key: str) -> bool:
        """Whether a key that is no parameter lies in a layer of the model, or beside a parameter.

        The layer would compute something else without it; a head or a layer that the model lacks does not
        change what it computes.
        """
        names = (self.rename(key), f"{self.prefix}.{key}")
        return any(_home(name) in self._homes for name in names)

    @cached_property
    def _homes(self) -> frozenset[str]:
        return frozenset(map(_home, self.shapes))


def _home(name: str) -> str:
    """The layer of a parameter, up to its number, or else its module."""
    layer = re.match(r"(.*?\.\d+)\.", name)
    return layer[1] if layer else name.rpartition(".")[0]


@dataclass(frozen=True)
class Weights:
    """The parameters of a model by name, each read from its source when asked for.

    `half` is the 16-bit type that they are converted to. Floats that are read lie in its range: NaN and
    infinity are a UserError, and larger values are clipped, which `note_limited` tells.
    """

    tensors: Mapping[str, Source]
    half: npt.DTypeLike = ml_dtypes.bfloat16
    orders: Mapping[str, str] = field(default_factory=dict)  # of inputs, by weight: also among the tensors
    beyond: set[str] = field(default_factory=set)  # parameters read so far that had to be clipped
    made: dict[str, Source] = field(default_factory=dict)  # what calibration puts in the place of tensors

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that most floats are stored in, counted in bytes."""
        sizes: dict[np.dtype[Any], int] = {}
        for source in self.tensors.values():
            if source.dtype is not None:
                sizes[source.dtype] = sizes.get(source.dtype, 0) + source.nbytes
        return max(sizes, key=lambda dtype: (sizes[dtype], dtype.name))

    @property
    def schemes(self) -> dict[str, Scheme]:
        """Of the parameters that are codes already."""
        found = {name: source.scheme for name, source in self.tensors.items()}
        return {name: scheme for name, scheme in found.items() if scheme is not None}

    @property
    def limit(self) -> float:
        return largest(self.half)

    def shape(self, name: str) -> tuple[int, ...]:
        name, _ = weight_and_scale(name)
        part = part_of(name)
        return self.tensors[name].shape if part is None else part.shape(self.tensors[part.parameter].shape)

    def same(self, one: str, other: str) -> bool:
        """Whether two parameters are the same stored tensor (tied)."""
        return self.tensors[one] == self.tensors[other]

    def read(self, name: str, rows: slice = slice(None)) -> Weight:
        """The values, or those of some rows (first axis), in memory of their own; as stored if in range.

        The name may be one of rows in an order (`compiler.weights.order`), of rows by factors
        (`compiler.weights.scaled`), or of a part of a parameter (`compiler.weights.part`).
        """
        weight, scale = weight_and_scale(name)
        if scale is not None:
            return rows_scaled(self.read_floats(weight, rows), self.read_floats(scale, rows))
        weight, order = weight_and_order(name)
        if order is not None:
            return rows_in(self.read(weight), self.read_floats(order))
        part = part_of(name)
        parameter = name if part is None else part.parameter
        source = self.made.get(parameter) or self.tensors[parameter]
        values = source.read(rows) if part is None else read_part(source, part)
        if isinstance(values, Quantized) or values.dtype.kind == "i" or not exceeds(values, self.limit):
            return values
        if part is None:
            check_finite(source, values, rows.start or 0)
        else:
            check_experts(source, part)
        self.beyond.add(parameter)
        return limited(values, self.limit)

    def read_floats(self, name: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """The same of a parameter that no linear reads, as codes are for linears only."""
        values = self.read(name, rows)
        assert not isinstance(values, Quantized), f"{name} is stored as codes"
        return values

    def note_limited(self) -> None:
        """Tell which of the parameters that were read had values beyond the range of `half`."""
        names = {self.tensors[name].key: name for name in self.beyond}  # one for those that are tied
        counts = [f"{self._count_beyond(names[key])} of {key}" for key in sorted(names)]
        if counts:
            log.warning(
                "values beyond the range of %s, +-%g, were clipped: %s",
                np.dtype(self.half).name,
                self.limit,
                some(counts),
            )

    def _count_beyond(self, name: str) -> int:
        values = self.tensors[name].read()
        return 0 if isinstance(values, Quantized) else count_beyond(values, self.limit)


def bind(
    sources: Mapping[str, Source],
    folder: Path,
    expected: Expected,
    half: npt.DTypeLike = ml_dtypes.bfloat16,
    odd: Mapping[str, str] | None = None,
) -> Weights:
    """Find every parameter among what a folder's checkpoint holds, by key.

    UserError lists what is missing, or of another shape or type, after what is known to be odd.
    """
    odd = odd or {}
    problems = Problems(folder, list(odd.values()))
    told = {*map(expected.parameter_of, odd)}
    tensors: dict[str, Source] = {}
    extra = []
    for key, source in with_stacks(sources, expected.place_of, folder, told).items():
        name = expected.rename(key)
        if name in tensors:
            raise UserError(f"key {key} of {folder} is parameter {name}, as another key is too")
        if name in expected.shapes:
            tensors[name] = source
            _check(problems, source, expected.shapes[name])
        elif not (any(re.search(each, key) for each in expected.ignored) or _adds_nothing(key, sources)):
            extra.append(key)
    for pair in expected.tied.items():
        for name, other in (pair, pair[::-1]):
            if name not in tensors and other in tensors:
                tensors[name] = tensors[other]
    known = tensors.keys() | told
    missing = {name: shape for name, shape in expected.shapes.items() if name not in known}
    for name, shape in missing.items():
        problems.add(name, f"shape {list(shape)}", "no such tensor")
    _check_extra(problems, expected, {key: sources[key] for key in extra})
    problems.check()
    bound = {name: tensors[name] for name in expected.shapes}
    orders, sources_of_orders = _orders(bound)
    return Weights(bound | sources_of_orders, half, orders)


def _orders(bound: Mapping[str, Source]) -> tuple[dict[str, str], dict[str, Source]]:
    """The name of the order of inputs of each weight that has one, and the sources of these orders.

    An order is called after the first weight of a layer that has it, so that linears of one input share it.
    """
    orders: dict[str, str] = {}
    named: dict[tuple[str, bytes], str] = {}
    found: dict[str, Source] = {}
    for name, source in bound.items():
        order = source.order if isinstance(source, PackedLinear) else None
        if order is not None:
            key = _home(name), order.read().tobytes()
            orders[name] = named.setdefault(key, f"{name}.order")
            found.setdefault(orders[name], order)
    return orders, found


def _adds_nothing(key: str, sources: Mapping[str, Source]) -> bool:
    """Whether a key is a bias of zeros, which early quantizers wrote beside each weight they packed."""
    module, _, last = key.rpartition(".")
    if last != "bias" or not isinstance(sources.get(f"{module}.weight"), PackedLinear):
        return False
    return not np.any(sources[key].read())  # type: ignore[arg-type]


def expected_of(model: Any) -> Expected:
    """What a transformers model (its parameters may be on meta) wants of a checkpoint."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    ignored = tuple(model._keys_to_ignore_on_load_unexpected or ())
    tied = dict(model.all_tied_weights_keys)
    prefix = model.base_model_prefix
    rename, place_of = _renamers(model, shapes)
    return Expected(shapes, tied, rename, place_of, STALE_BUFFERS + ignored, prefix)


def _renamers(
    model: Any, shapes: dict[str, tuple[int, ...]]
) -> tuple[Callable[[str], str], Callable[[str], Place | None]]:
    """The library's renaming of keys, and where it puts those of single experts.

    It adds or removes the model's prefix where that names a parameter.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    table = get_model_conversion_mapping(model)
    renamings = [entry for entry in table if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in table if isinstance(entry, WeightConverter)]
    prefix = model.base_model_prefix

    def rename(key: str) -> str:
        name, pattern = rename_source_key(key, renamings, converters, prefix, shapes)
        if key in shapes and (name not in shapes or pattern is not None):
            return key
        if name in shapes and pattern is not None:
            raise UserError(
                f"key {key} is a part of parameter {name}: such checkpoints are not supported yet"
            )
        return str(name)

    def place_of(key: str) -> Place | None:
        name, pattern = rename_source_key(key, renamings, converters, prefix, shapes)
        if key in shapes or name not in shapes or pattern is None:
            return None
        converter = next(each for each in converters if pattern in each.source_patterns)
        steps = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
        expert = expert_number(key, pattern)
        if expert is None or steps not in STACKING:
            return None
        return Place(name, expert, converter.source_patterns.index(pattern))

    return rename, place_of


def check_experts(source: Source, part: Part) -> None:
    """As `check_finite`, of what a part is of."""
    if isinstance(source, Stack):
        for leaf in source.leaves(part.experts):
            values = leaf.read()
            if not isinstance(values, Quantized):
                check_finite(leaf, values)
    else:
        values = source.read(part.experts)
        assert not isinstance(values, Quantized)
        check_finite(source, values, part.expert or 0)


def _check(problems: Problems, source: Source, shape: tuple[int, ...]) -> None:
    if source.shape != shape:
        problems.add(source.key, f"shape {list(shape)}", str(list(source.shape)))
    elif isinstance(source, StoredTensor) and source.dtype.name not in FLOATS:
        problems.add(source.key, " or ".join(FLOATS), source.dtype.name)


def _check_extra(problems: Problems, expected: Expected, extra: Mapping[str, Source]) -> None:
    """Keys that are no parameter: in a layer of the model they are problems, elsewhere a note."""
    for pattern, refuse in FOREIGN.items():
        found = next((key for key in extra if re.search(pattern, key)), None)
        if found:
            raise refuse(problems.folder, f"key {found}")
    inside = [key for key in extra if expected.has_place_for(key)]
    for key in inside:
        problems.add(key, "no such tensor in that module", f"shape {list(extra[key].shape)}")
    if extra and not inside:
        keys = ("key " if len(extra) == 1 else "keys ") + some(list(extra))
        log.warning("%s: %s left out, which no part of the model uses", problems.folder, keys)


def some(items: list[str]) -> str:
    """The first three of a list, and how many more there are."""
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
