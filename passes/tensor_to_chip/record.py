"""The constants of a function with one token, gathered into one record per lane that one command loads.

Each would be a command of its own, and a command costs as much as moving twenty kilobytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.ir.core import Op, Value
from compiler.ir.types import F32, UI8, TensorType
from dialects import tensor
from dialects.tensor import Lanes
from dialects.weights import Joined, LanePart, LaneRecord, WeightSource
from passes.tensor_to_chip.constants import sources_for
from passes.tensor_to_chip.context import Lowering
from passes.tensor_to_chip.placed import Placed


def plan_record(low: Lowering, ops: Sequence[Op]) -> None:
    """Load the record at the start, and note where each of its parts lies."""
    columns = {load_: source for load_ in ops if (source := column_source(load_)) is not None}
    if not columns:
        return
    parts = [
        LanePart(source, op.results[0].type.shape[-1], over_lanes=True) for op, source in columns.items()
    ]
    rows = dict.fromkeys(source for op in ops for source in sources_for(op))
    parts += [LanePart(source, len(source.values), over_lanes=False) for source in rows]
    record = LaneRecord(tuple(dict.fromkeys(parts)), low.spec.lanes, low.spec.eu_bytes)
    places = load_record(low, record)
    for op, source in columns.items():
        low.recorded[op] = places[source]
    low.tables |= {part.source: places[part.source] for part in parts if not part.over_lanes}


def column_source(op: Op) -> WeightSource | None:
    """The parameter that `op` loads as f32 over the lanes; None for other ops."""
    if not isinstance(op, tensor.LoadOp) or not isinstance(type_ := op.results[0].type, TensorType):
        return None
    weight = weight_behind(op.source)
    column = Lanes(len(type_.shape) - 1, compact=True)
    if weight is None or type_.element != F32 or type_.layout != column:
        return None
    return Joined(tuple(weight.sources), F32)


def weight_behind(value: Value) -> tensor.WeightOp | None:
    reshape = value.defining(tensor.ReshapeOp)
    return weight_behind(reshape.x) if reshape is not None else value.defining(tensor.WeightOp)


def load_record(low: Lowering, record: LaneRecord) -> dict[WeightSource, Placed]:
    lanes, run = record.lanes, record.run_bytes
    local = low.emit.new((lanes, run), UI8, Lanes(0))
    buffer = low.emit.weight(record, lanes * run)
    low.emit.dma(local, low.row_major(buffer, TensorType((lanes, run), UI8)))
    places, offset = {}, 0
    for part in record.parts:
        axis = 1 if part.over_lanes else None
        row = replace(local, dtype=F32, shape=(1, part.count), strides=(0, 1), axis=axis, offset=offset)
        places[part.source] = row
        offset += record.part_bytes(part)
    return places
