"""The recorded graph of a tower as the function of its net."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from compiler.diagnostics import UserError
from compiler.ir.core import Value
from compiler.ir.types import F32, I32, TensorType
from dialects import llm
from dialects.builtin import FuncOp, ModuleOp
from dialects.nets import NetAttr, net_of
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

    def _constant(self, node: Node) -> Value | float:
        found = self.uses.get(node)
        if found is None:
            (number,) = numbers([node])
            assert isinstance(number, float)
            return number
        name = self.tables.add(found.rows, by_position=True)
        table = self.emit(llm.TableOp, name=name, types=[TensorType(found.rows.shape, F32)])
        rows = self.emit(llm.GatherRowsOp, table, self.ids, streams=found.streams)
        return self.emit.reshape(rows, node.results[0].shape)


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
    function = function_for(net_for(given), given)
    reader = TowerReader(function, types, tables=tables, uses=dict(zip(run.constants, uses, strict=True)))
    reader.ids = function.args[1]
    return finished(reader, run)


def given_types(run: TowerCapture, rows: int) -> dict[str, TensorType]:
    """What a client gives, by name."""
    keys = {value.node.args[0]: value for value in run.graph.inputs}
    masks = [value.node.args[1] for value in run.graph.inputs if value.node.args[0] == "mask"]
    assert run.ids is not None
    given = {
        "input_states": TensorType(keys["pixels"].shape, F32),
        "position_ids": TensorType(run.ids.shape, I32),
        **{mask_name(kind): TensorType((1, 1, rows, rows), F32) for kind in sorted(masks, key=mask_name)},
    }
    if "order" in keys:
        given["reverse_index"] = TensorType(keys["order"].shape, I32)
    return given


def mask_name(kind: str) -> str:
    return "full_attn_mask" if kind == "full" else "window_attn_mask"


def net_for(names: Iterable[str]) -> NetAttr:
    """Clients tell the kinds of towers by how many inputs they have."""
    for net in (TOWER_OF_ROWS, TOWER_OF_WINDOWS):
        if [each.name for each in net.inputs] == list(names):
            return net
    raise UserError(f"cannot import the model: no client gives a tower {', '.join(names)}")


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
