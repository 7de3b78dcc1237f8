"""The part of a model that sees: one graph from the pixels to the features that take the place of tokens.

There are two kinds, told apart by what the model's `get_image_features` takes. A grid tower takes patches of
pictures of any size, with the grid that they form; an image tower takes one picture of a fixed size. Whatever
a grid tower makes of the grid, its clients give: in which order rows come, where each patch stands, which
patches see each other. The functions of the library that compute these are replaced for the trace, so the
graph depends on the number of patches alone, which a run with another grid proves.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from math import isqrt, prod
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from compiler.diagnostics import UserError
from dialects.llm import Streams
from frontend.build import LONGEST_REASON
from frontend.capture import one_thread
from frontend.graph import Graph, GraphValue, Node
from frontend.masks import BAND
from frontend.streams import streams_of, told_apart
from frontend.tables import TOLERANCE
from frontend.trace import Recorder, Traced

GRID = "image_grid_thw"  # the parameter of those that take patches of any grid
OUTPUTS = {"last_hidden_state", "pooler_output", "hidden_states", "attentions"}  # of what a tower returns
# What is done to each row by itself, until rows are put in the order of windows.
BY_ROW = ("aten.convolution.default", "aten.view.default", "aten._unsafe_view.default", "linear")

Ids = np.ndarray  # [rows, streams] of whole numbers: where each patch stands


@dataclass(frozen=True)
class Patches:
    """What a grid tower takes: `rows` patches of `width` numbers; `side` x `side` of them are one feature."""

    rows: int
    width: int
    side: int

    @property
    def cell(self) -> int:
        return self.side**2

    def grids(self) -> list[tuple[int, int]]:
        """Two grids of so many patches, height and width: the widest and the one nearest to a square."""
        cells = self.rows // self.cell
        height = next(n for n in range(isqrt(cells), 0, -1) if cells % n == 0)
        return [(self.side, self.rows // self.side), (height * self.side, cells // height * self.side)]


@dataclass(eq=False)
class TowerCapture:
    """One run of a tower. Inputs of the graph are ("pixels",), ("mask", kind) and ("order",)."""

    graph: Graph
    features: GraphValue  # [.., rows, hidden]
    ids: Ids | None = None  # that the run was given as positions

    @property
    def constants(self) -> list[Node]:
        return [node for node in self.graph.slice_to([self.features], []) if node.name == "constant"]


@dataclass(frozen=True)
class TableByStreams:
    """A constant of a tower: rows of a table, each section of its columns by one of several numbers."""

    rows: np.ndarray
    streams: Streams


@dataclass
class Segments:
    """Which patches see each other, by the bounds that the model hands to its attentions."""

    recorder: Recorder
    rows: int
    windows: torch.Tensor | None = None  # bounds of windows; all others are of whole pictures
    largest: int = 0  # rows of a window of any grid
    masks: dict[str, Traced] = field(default_factory=dict)

    def mask_for(self, bounds: torch.Tensor | None) -> Traced:
        """The mask that a client writes for these bounds; that of whole pictures without any."""
        kind = f"{BAND}{self.largest}" if bounds is not None and bounds is self.windows else "full"
        if kind not in self.masks:
            shape = (1, 1, self.rows, self.rows)
            self.masks[kind] = self.recorder.input(shape, torch.float32, "mask", kind)
        return self.masks[kind]


def takes_grid(model: Any) -> bool | None:
    """Whether a model's tower is one for grids; None of a model that has no tower."""
    method = getattr(model, "get_image_features", None)
    return None if method is None else GRID in inspect.signature(method).parameters


def patches_of(model: Any, rows: int) -> Patches:
    """By the convolution that makes states of patches."""
    return Patches(rows, prod(patch_weight(model).shape[1:]), cell_side(model))


def cell_side(model: Any) -> int:
    """So many patches in height and in width are one feature."""
    side = getattr(model.config.vision_config, "spatial_merge_size", None)
    if not isinstance(side, int):
        raise UserError(f"cannot trace {type(model).__name__}: its tower has no spatial_merge_size")
    return side


def patch_weight(model: nn.Module) -> torch.Tensor:
    """[hidden, channels, ..., height, width]"""
    found = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    if not found:
        raise UserError(f"cannot trace {type(model).__name__}: its tower has no convolution of patches")
    return found[0]


def image_shape(model: Any) -> tuple[int, int, int, int]:
    """[1, channels, height, width] of the pictures that an image tower takes."""
    size = model.config.vision_config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return 1, patch_weight(model).shape[1], height, width


def capture_image_tower(model: Any) -> TowerCapture:
    """Record the features of one picture."""
    recorder = Recorder(model)
    return recorded(recorder, image_shape(model), {})


def capture_grid_tower(model: Any, patches: Patches) -> tuple[TowerCapture, list[TableByStreams | None]]:
    """Record the features of so many patches; with what each constant is, None for one that is the same
    wherever patches stand.
    """
    wide, square = patches.grids()
    run = capture_patches(model, patches, wide, one_after_the_other)
    other = capture_patches(model, patches, square, some_far_away)
    check_order(run)
    return run, compare_runs(run, other)


def capture_patches(
    model: Any, patches: Patches, grid: tuple[int, int], positions: Callable[[Ids], Ids]
) -> TowerCapture:
    """One run with a grid; `positions` makes of where each patch stands what the model is told."""
    recorder = Recorder(model)
    recorder.segments = Segments(recorder, patches.rows)
    with given_by_clients(recorder, patches, positions) as told:
        capture = recorded(recorder, (patches.rows, patches.width), {GRID: torch.tensor([[1, *grid]])})
    capture.ids = told[0] if told else None
    return capture


def recorded(recorder: Recorder, shape: Sequence[int], others: dict[str, Any]) -> TowerCapture:
    try:
        with one_thread(), recorder.recording():
            pixels = recorder.input(shape, torch.float32, "pixels")
            returned = recorder.model.get_image_features(pixels, **others)  # type: ignore[operator]
            return TowerCapture(recorder.graph, features_of(recorder, returned).read())
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {textwrap.shorten(str(error), LONGEST_REASON)}"
        raise recorder.refuse(reason) from error


def features_of(recorder: Recorder, returned: Any) -> Traced:
    """The one tensor that takes the place of tokens."""
    if more := set(returned) - OUTPUTS:
        raise recorder.refuse(f"its tower gives more than features for tokens ({', '.join(sorted(more))})")
    found = tree_leaves(returned.pooler_output)
    if len(found) != 1 or not isinstance(found[0], Traced):
        raise recorder.refuse(f"its tower gives {len(found)} tensors for one picture")
    return found[0]


@contextmanager
def given_by_clients(
    recorder: Recorder, patches: Patches, positions: Callable[[Ids], Ids]
) -> Iterator[list[Ids]]:
    """The library's functions of a grid, in all modules that the model's classes are from, with what a client
    gives in the place of what they compute; gives the positions that were told.
    """
    told: list[Ids] = []

    def position_ids(original: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        ids = positions(original(*args, **kwargs).numpy())
        told.append(ids)
        return torch.from_numpy(ids)

    def window_index(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert isinstance(recorder.segments, Segments)
        order, bounds = original(*args, **kwargs)
        recorder.segments.windows = bounds
        recorder.segments.largest = largest_window(original, *args, **kwargs)
        return recorder.input(order.shape, torch.int64, "order"), bounds

    replaced = {
        "get_vision_position_ids": position_ids,
        "get_vision_window_index": window_index,
        "is_flash_attention_requested": lambda *_, **__: True,  # which is told the bounds of segments
    }
    with ExitStack() as stack:
        for module in {type(m).__module__: None for m in recorder.model.modules()}:
            names = vars(sys.modules[module])
            for name in replaced.keys() & names.keys():
                wrapped = bound(replaced[name], names[name])
                stack.enter_context(patch.dict(names, {name: wrapped}))
        yield told


def bound(wrapper: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: wrapper(original, *args, **kwargs)


def largest_window(original: Callable[..., Any], grid: torch.Tensor, *args: Any, **kwargs: Any) -> int:
    """The most rows that a window of any grid has: of grids so large that larger ones have no larger ones."""
    kwargs["kwargs"] = None  # what would tell the windows instead
    found, side = [0], 8
    while len(found) < 3 or found[-1] != found[-2]:
        _, bounds = original(torch.tensor([[1, side, side]]), *args, **kwargs)
        found.append(int(bounds.diff().max()))
        side *= 2
    return found[-1]


def check_order(run: TowerCapture) -> None:
    """Rows that a client gives in the order of windows must be put in it by the model before they meet."""
    order = next((node.results[0] for node in run.graph.nodes if node.args[:1] == ("order",)), None)
    if order is None:
        return
    natural: set[GraphValue] = set()
    for node in run.graph.slice_to([run.features], []):
        operands = node.operands()
        before = [value for value in operands if value in natural]
        if node.args[:1] == ("pixels",) or (before and order not in operands and node.name in BY_ROW):
            natural.update(node.results)
        elif before and order not in operands:
            raise UserError(
                f"cannot import {node.name}: it mixes patches before they are in order, in {node.path}"
            )


def compare_runs(run: TowerCapture, other: TowerCapture) -> list[TableByStreams | None]:
    """What each constant is, by two runs that differ in where patches stand and in the shape of the grid."""
    pairs = list(zip(run.constants, other.constants, strict=True))
    found = [table_of(one, another, other.ids) for one, another in pairs]
    for one, another in pairs:
        another.args = one.args
    if run.graph.fingerprint("") != other.graph.fingerprint(""):
        raise UserError("cannot import the model: what its tower computes depends on the shape of the grid")
    return found


def table_of(node: Node, other: Node, ids: Ids | None) -> TableByStreams | None:
    """The rows of a table, which a constant has one after the other in the first run, and which of them the
    other run picks.
    """
    first, second = node.args[0].data, other.args[0].data
    if np.array_equal(first, second):
        return None
    if ids is None or first.dtype.kind != "f" or first.size % len(ids):
        raise UserError(
            f"cannot import the model: a constant of shape {list(first.shape)} depends on the grid, "
            f"in {node.path}"
        )
    rows, seen = (each.reshape(len(ids), -1).astype(np.float32) for each in (first, second))
    apart = told_apart(ids.shape[1]).shape[1]
    streams = replace(streams_of(seen[:apart], node.path), axis=1)
    picked = rows[ids[apart:, np.repeat(streams.numbers, streams.widths)], np.arange(rows.shape[1])]
    if not np.allclose(picked, seen[apart:], rtol=TOLERANCE, atol=TOLERANCE):
        raise UserError(f"cannot import the model: its tables are not by rows and columns, in {node.path}")
    return TableByStreams(rows, streams)


def one_after_the_other(ids: Ids) -> Ids:
    """i for each position of row i, so that a constant of the run is a table."""
    return np.repeat(np.arange(len(ids))[:, None], ids.shape[1], 1)


def some_far_away(ids: Ids) -> Ids:
    """The first ones where they tell the streams apart, the others where they stand."""
    apart = told_apart(ids.shape[1]).T
    return np.concatenate([apart, ids[len(apart) :]])
