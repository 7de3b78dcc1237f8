"""A module that goes on from an edited dump, in the place of what the model gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from compiler.diagnostics import UserError
from compiler.files import read_text
from compiler.ir.module import Function
from compiler.ir.parser import parse_module
from compiler.ir.types import Type
from compiler.target.attribute import set_target
from compiler.target.spec import ChipSpec
from compiler.weights.order import weight_and_order
from compiler.weights.part import part_of
from compiler.weights.scaled import weight_and_scale
from dialects.builtin import ModuleOp
from dialects.chip import GlobalOp
from dialects.contents import READY, contents
from dialects.nets import net_of
from dialects.weights import (
    Floats,
    Indices,
    Iota,
    Joined,
    LaneRecord,
    Packed,
    RopeTable,
    Table,
    WeightSource,
    view_of_name,
)
from passes.chip.assign_addresses import globals_of
from passes.manager import HEADER, PassManager, check_order, parse_pipeline, passes_left

Interface = dict[str, tuple[tuple[Type, ...], tuple[Type, ...]]]  # of each function: inputs and results


def dumps_by_module(paths: Sequence[Path], modules: Sequence[str]) -> dict[str, Path]:
    """The dump of each module, which the first part of its file's name names."""
    found: dict[str, Path] = {}
    for path in paths:
        name = path.name.partition(".")[0]
        if name not in modules:
            raise UserError(f"--resume-ir {path}: no module is called {name}; there are {', '.join(modules)}")
        if name in found:
            raise UserError(f"--resume-ir {path}: {found[name]} is of the same module")
        found[name] = path
    return found


def resume(path: Path, original: ModuleOp, spec: ChipSpec, dump_dir: Path | None = None) -> ModuleOp:
    """The module of a dump after the passes that its first line names; UserError when it is another's."""
    text = read_text(path)
    left = passes_left(text)
    if left is None:
        raise UserError(f"{path} does not begin with {HEADER.strip()!r}, as the files of --dump-ir do")
    passes = parse_pipeline(left)
    module = parse_module(text, str(path))
    assert isinstance(module, ModuleOp)
    set_target(module, spec, str(path))
    if unfinished := check_order(passes, contents(module), str(path)) & ~READY:
        raise UserError(f"{path}: the passes that it names leave {unfinished}")
    prefix = path.name.partition(".")[0]
    manager = PassManager(passes, source=str(path), dump_dir=dump_dir, dump_prefix=prefix)
    manager.verify(module)
    check_interface(path, interface(module), interface(original))
    check_nets(path, module, original)
    manager.run(module)
    return module


def cores_of(module: ModuleOp) -> dict[str, list[Function]]:
    """The functions of each stage of a net, one or one for each core."""
    found: dict[str, list[Function]] = {}
    for function in module.functions():
        found.setdefault(net_of(function).stage_name, []).append(function)
    return found


def interface(module: ModuleOp) -> Interface:
    return {name: interface_of(cores) for name, cores in cores_of(module).items()}


def interface_of(cores: Sequence[Function]) -> tuple[tuple[Type, ...], tuple[Type, ...]]:
    """Types of inputs, and of results that any core gives; once lowered, they are those of regions of DDR."""
    outputs: dict[int, Type] = {}
    for function in cores:
        outputs |= results_of(function)
    return inputs_of(cores[0]), tuple(outputs[number] for number in sorted(outputs))


def inputs_of(function: Function) -> tuple[Type, ...]:
    if function.args:
        return function.function_type.inputs
    return tuple(map(tensor_of, globals_of(function, "input")))


def results_of(function: Function) -> dict[int, Type]:
    """By their numbers in the net."""
    types = function.function_type.results or tuple(map(tensor_of, globals_of(function, "output")))
    numbers = net_of(function).part.writes
    return dict(zip(range(len(types)) if numbers is None else numbers, types, strict=True))


def tensor_of(op: GlobalOp) -> Type:
    if op.tensor is None:
        op.fail("does not say what its tensor is")
    return op.tensor


def check_interface(path: Path, found: Interface, expected: Interface) -> None:
    if [*found] != [*expected]:
        raise UserError(f"{path} has the functions {', '.join(found)}, expected {', '.join(expected)}")
    for name, types in found.items():
        for kind, have, want in zip(("takes", "gives"), types, expected[name], strict=True):
            if have != want:
                told = [", ".join(map(str, each)) for each in (have, want)]
                raise UserError(f"{path}: {name} {kind} {told[0]}\nthe model and the flags need {told[1]}")


def check_nets(path: Path, found: ModuleOp, expected: ModuleOp) -> None:
    """What its functions are to a client is the model's to say, not the dump's."""
    for name, (want, *_) in cores_of(expected).items():
        cores = cores_of(found)[name]
        for number, have in enumerate(cores):
            net, part = net_of(have), net_of(want).part
            whole = replace(net, part=replace(net.part, core=0, cores=1, writes=part.writes))
            if whole != net_of(want):
                raise UserError(f"{path} has {net}\nthe model needs {net_of(want)}")
            if (net.part.core, net.part.cores) != (number, len(cores)):
                raise UserError(f"{path}: {have.sym_name} is for core {net.part.core} of {net.part.cores}")


# ---- weights ----


def check_sources(module: ModuleOp, shapes: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    """Each region of weights holds bytes that the checkpoint has; `shapes` and `tables` are by name."""
    for function in module.functions():
        for op in globals_of(function, "weight"):
            assert op.source is not None
            for source in parts_of(op.source):
                if problem := problem_of(source, shapes, tables):
                    op.fail(f"holds {source}, but {problem}")
            size = stored_bytes(op.source, shapes, tables)
            if size != op.buffer.type.bytes:
                op.fail(f"holds {size} bytes of {op.source} in {op.buffer.type}")


def stored_bytes(source: WeightSource, shapes: Mapping[str, Any], tables: Mapping[str, Any]) -> int:
    """Bytes that a source becomes."""
    match source:
        case Joined(names, dtype):
            return sum(prod(map(int, shape_of(name, shapes))) for name in names) * dtype.bytes
        case Packed():
            return source.total_bytes
        case Indices(name):
            return 2 * int(prod(shapes[name]))
        case RopeTable(cos, _, _, columns):
            return 4 * len(tables[cos]) * (len(columns) or rope_width(source, tables))
        case Table(name):
            return 4 * int(tables[name].size)
        case Floats(values):
            return 4 * len(values)
        case Iota(count):
            return 4 * count
        case LaneRecord():
            return int(source.lanes * source.run_bytes)
    raise NotImplementedError(type(source).__name__)


def rope_width(source: RopeTable, tables: Mapping[str, Any]) -> int:
    """Items of each row of which a source may have some."""
    width = tables[source.cos].shape[1] + tables[source.sin].shape[1]
    return int(width) * (2 if source.mode == "half_tables" else 1)


def parameter(name: str) -> str:
    """The parameter that a name says, whichever of its rows or experts, and in whatever order."""
    tensor = view_of_name(name).tensor
    part = part_of(tensor)
    return weight_and_order(weight_and_scale(tensor)[0])[0] if part is None else part.parameter


def shape_of(name: str, shapes: Mapping[str, Any]) -> tuple[int, ...]:
    view, shape = view_of_name(name), shapes[parameter(name)]
    part = part_of(view.tensor)
    whole = view.of_shape(shape if part is None else part.shape(shape))
    kept = [len(range(size)[cut]) for size, cut in zip(whole, view.index, strict=False)]
    return (*kept, *whole[len(kept) :])


def parts_of(source: WeightSource) -> Iterator[WeightSource]:
    yield from (part.source for part in source.parts) if isinstance(source, LaneRecord) else (source,)


def problem_of(source: WeightSource, shapes: Mapping[str, Any], tables: Mapping[str, Any]) -> str | None:
    if isinstance(source, RopeTable | Table):
        return problem_of_table(source, tables)
    if not isinstance(source, Joined | Packed | Indices):
        return None
    names = (source.name,) if isinstance(source, Indices) else source.names
    missing = [name for name in names if parameter(name) not in shapes]
    if missing or not names:
        return f"there is no parameter {missing[0] if missing else ''}"
    return problem_of_tile(source, shapes) if isinstance(source, Packed) else None


def problem_of_table(source: RopeTable | Table, tables: Mapping[str, Any]) -> str | None:
    named = (source.cos, source.sin) if isinstance(source, RopeTable) else (source.name,)
    missing = [name for name in named if name not in tables]
    if missing:
        return f"there is no table {missing[0]}"
    if isinstance(source, RopeTable) and max(source.columns, default=0) >= rope_width(source, tables):
        return f"its tables make no column {max(source.columns)}"
    return None


def problem_of_tile(source: Packed, shapes: Mapping[str, Any]) -> str | None:
    found = [shape_of(name, shapes)[1 if source.experts else 0 :] for name in source.names]
    columns = {prod(shape[1:]) for shape in found}
    rows = sum(shape[0] for shape in found)
    shares = len(source.names) if source.each else 1
    inside = source.row + source.tile.rows // shares <= rows // shares
    if len(columns) == 1 and inside and source.column + source.tile.columns <= columns.pop():
        return None
    return f"the parameters have only {rows} rows together"
