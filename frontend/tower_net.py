"""The recorded graph of a tower as the function of its net."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.diagnostics import UserError
from compiler.ir.core import Value
from compiler.ir.types import F32, I32, TensorType
from dialects import llm
from dialects.builtin import FuncOp, ModuleOp
from dialects.nets import net_of
from frontend.aten import PositionIds
from frontend.functions import GraphReader, Types, function_for, numbers
from frontend.graph import Node
from frontend.imported import Instance, NetGroup
from frontend.patches import RowOrder
from frontend.signatures import TOWER_OF_IMAGES, TOWER_OF_ROWS, TOWER_OF_WINDOWS
from frontend.tables import Tables
from frontend.towers import (
    TableByStreams,
    TowerCapture,
    capture_grid_tower,
    capture_image_tower,
    patches_of,
    takes_grid,
)


@dataclass
class TowerReader(GraphReader):
    """Adds the ops of a tower. Its tables' rows are picked by several numbers of each patch."""

    tables: Tables = field(default_factory=Tables)
    uses: dict[Node, TableByStreams | None] = field(default_factory=dict)

    def _constant(self, node: Node) -> Value | PositionIds | float:
        found = self.uses.get(node)
        if found is None:
            return counted(node.args[0].data) or float_of(node)
        name = self.tables.add(found.rows, by_position=True)
        table = self.emit(llm.TableOp, name=name, types=[TensorType(found.rows.shape, F32)])
        rows = self.emit(llm.GatherRowsOp, table, self.ids, streams=found.streams)
        return self.emit.reshape(rows, node.results[0].shape)


def counted(numbers: np.ndarray) -> PositionIds | None:
    """Whole numbers that count up by one, as those of a picture's patches in their order do."""
    flat = numbers.reshape(-1)
    if flat.size < 2 or numbers.shape[-1] != flat.size or numbers.dtype.kind != "i":
        return None
    in_order = np.array_equal(flat, np.arange(flat.size) + flat[0])
    return PositionIds(None, int(flat[0]), flat.size) if in_order else None


def float_of(node: Node) -> float:
    (number,) = numbers([node])
    assert isinstance(number, float)
    return number


def tower_groups(model: Any, rows: int, types: Types, tables: Tables) -> list[NetGroup]:
    """The net of a model's tower, of so many patches where it takes any number; none without a tower."""
    grid = takes_grid(model)
    if grid is None:
        return []
    function = grid_function(model, rows, types, tables) if grid else image_function(model, types, tables)
    return [NetGroup(ModuleOp.of(function), [Instance()])]


def image_function(model: Any, types: Types, tables: Tables) -> FuncOp:
    """pixel_value [1, channels, height, width] f32 -> features [N, hidden]."""
    run = capture_image_tower(model)
    (pixels,) = run.graph.inputs
    function = function_for(TOWER_OF_IMAGES, {"pixel_value": TensorType(pixels.shape, F32)})
    return finished(TowerReader(function, types, tables=tables), run)


def grid_function(model: Any, rows: int, types: Types, tables: Tables) -> FuncOp:
    """The tower of `rows` patches; see `signatures` for what it takes."""
    run, uses = capture_grid_tower(model, patches_of(model, rows))
    given = given_types(run, rows)
    net = TOWER_OF_WINDOWS if "reverse_index" in given else TOWER_OF_ROWS
    function = function_for(net, given)
    reader = TowerReader(function, types, tables=tables, uses=dict(zip(run.constants, uses, strict=True)))
    reader.ids = function.args[1]
    return finished(reader, run)


def given_types(run: TowerCapture, rows: int) -> dict[str, TensorType]:
    """What a client gives, by name."""
    keys = {value.node.args[0]: value for value in run.graph.inputs}
    if run.ids is None:
        raise UserError("cannot import the model: its tower does not say where patches stand")
    mask = TensorType((1, 1, rows, rows), F32)
    given = {
        "input_states": TensorType(keys["pixels"].shape, F32),
        "position_ids": TensorType(run.ids.shape, I32),
        "full_attn_mask": mask,
    }
    if "order" in keys:
        given |= {"window_attn_mask": mask, "reverse_index": TensorType(keys["order"].shape, I32)}
    return given


def mask_name(kind: str) -> str:
    return "full_attn_mask" if kind == "full" else "window_attn_mask"


def narrowed(reader: TowerReader, pixels: Value) -> Value:
    """Pixels as activations."""
    type = TensorType(pixels.type.shape, reader.types.element)
    return pixels if pixels.type == type else reader.emit(llm.NarrowOp, pixels, types=[type])


def finished(reader: TowerReader, run: TowerCapture) -> FuncOp:
    """Bind the inputs, add all that the features are made of, and return these, one a row."""
    names = [each.name for each in net_of(reader.function).inputs]
    args = dict(zip(names, reader.function.args, strict=True))
    for value in run.graph.inputs:
        role, *kind = value.node.args
        if role == "pixels":
            reader.bind(value, narrowed(reader, reader.function.args[0]))
        elif role == "mask":
            reader.bind(value, args[mask_name(kind[0])])
        else:
            reader.values[id(value)] = RowOrder(args["reverse_index"])
    reader.run(run.graph.slice_to([run.features], run.graph.inputs))
    features = reader.get(run.features)
    *rows, width = features.type.shape
    return reader.finish(reader.emit.reshape(features, (rows[-1], width)))
