"""The dumps of one net, bound to the weights of its layer, each of which can be run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (importing both registers their rules)
from compiler.client_nets import BLOCK, kind_of
from compiler.diagnostics import CompileError, UserError
from compiler.ir.module import Function
from compiler.ir.parser import parse_module
from compiler.ir.types import ElementType, element
from compiler.target.spec import ChipSpec
from compiler.weights.part import parameter_of
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Floats, Weight
from dialects.nets import net_of
from driver.blob import Materializer
from driver.calibration import chosen
from frontend.binding import Weights
from frontend.heads import with_sampling
from frontend.imported import ImportedModel, Instance, NetGroup
from frontend.load import load_model, open_model
from passes.manager import parse_pipeline, passes_left
from runtime_sim.interpret.chip import ChipProgram, Observe, core_programs, run_cores
from runtime_sim.interpret.rules import Observer, interpret_parts
from runtime_sim.launch.runtime import RuntimeNet
from runtime_sim.launch.session import Session, history_rows
from runtime_sim.launch.tower import GridTower
from runtime_sim.machine.errors import SimulationError
from runtime_sim.tool.launches import NetRun
from runtime_sim.tool.verify import Suspect

Array = npt.NDArray[Any]

FIRST = ".00.input.mlir"
KEPT = 3  # weights: as many as one linear joins (q, k and v)


class CannotRun(Exception):
    """A program without addresses whose buffers would not fit any chip; it says nothing about the pass."""


@dataclass(frozen=True)
class Stage:
    """The function of a net in one dump, or those of its cores. The level is that of its ops: "llm", "tensor"
    or "chip".
    """

    path: Path
    functions: list[Function]
    level: str

    @property
    def pass_name(self) -> str:
        return self.path.name.split(".")[2]


@dataclass
class DumpedNet:
    """A net with its dumps, and the checkpoint that its weights are read from."""

    suspect: Suspect
    dumps: list[Path]
    group: NetGroup  # that it is of
    instance: Instance  # that it is bound to
    name: str  # in the dumps, without a layer's number
    model: ImportedModel
    weights: Weights
    importance: Mapping[str, Floats]  # see `driver.calibration.chosen`
    inputs: list[Array]

    @classmethod
    def of(cls, suspect: Suspect, folder: Path) -> DumpedNet:
        if suspect.session.devices > 1:
            raise UserError("--ir: the nets of several devices cannot be looked into, those of one can")
        model, weights = model_of(suspect.session, suspect.reference.folder)
        group, function, instance = model.find(suspect.run.net.name)
        net = net_of(function)
        dumps = dumps_after(first_dump(folder, group, net.name))
        known = chosen.kept(folder, weights)
        return cls(suspect, dumps, group, instance, net.stage_name, model, weights, known, suspect.run.inputs)

    @property
    def net(self) -> RuntimeNet:
        """That of the file."""
        (net,) = self.suspect.run.net.parts
        return net

    @property
    def spec(self) -> ChipSpec:
        return self.suspect.session.runtime.program.spec

    @cached_property
    def materializer(self) -> Materializer:
        def importance(name: str) -> Floats | None:
            return self.importance.get(parameter_of(self.instance.parameter_name(name)))

        return KeepingMaterializer(self.read, self.model.tables, importance=importance)

    def read(self, name: str) -> Weight:
        """A parameter by the name that the net's module uses."""
        return self.weights.read(self.instance.parameter_name(name))

    def read_floats(self, name: str) -> Array:
        return self.weights.read_floats(self.instance.parameter_name(name))

    def stages(self) -> Iterator[Stage]:
        """Without those that are as the one before."""
        before = ""
        for path in self.dumps:
            text = path.read_text()
            body = text.partition("\n")[2]
            if body != before:
                yield self._stage(path, text)
            before = body

    def _stage(self, path: Path, text: str) -> Stage:
        functions = parse_module(text, str(path)).functions()
        found = [each for each in functions if net_of(each).stage_name == self.name]
        if not found:
            raise UserError(f"{path} was not made with this file: it has no net {self.name}")
        names = {op.opname.partition(".")[0] for op in found[0].block.ops}
        level = next((level for level in ("chip", "tensor") if level in names), "llm")
        if level != "chip":
            self._check_signature(path, found[0])
        return Stage(path, found, level)

    def _check_signature(self, path: Path, function: Function) -> None:
        given = [(array.shape, array.dtype) for array in self.inputs]
        wanted = [(arg.type.shape, arg.type.element.numpy) for arg in function.args]
        if given != wanted:
            shapes = f"{[list(shape) for shape, _ in wanted]}, the net {[list(shape) for shape, _ in given]}"
            raise UserError(f"{path} was not made with this file: its inputs are {shapes}")

    def run(self, stage: Stage, observe: Observer | Observe | None = None) -> list[Array]:
        """The outputs of a stage. Raises CannotRun, or CompileError when the stage is at fault."""
        try:
            if stage.level == "chip":
                return run_cores(self.chip_programs(stage), self.inputs, observe)  # type: ignore[arg-type]
            return self._interpret(stage, observe)  # type: ignore[arg-type]
        except (SimulationError, ValueError) as error:
            raise CompileError(str(error).partition("\n")[0]) from error

    def _interpret(self, stage: Stage, observe: Observer | None) -> list[Array]:
        """The outputs, each by a core that gives it."""
        tables, codes = self.model.tables, self.materializer.codes
        inputs = [self.inputs] * len(stage.functions)
        found = interpret_parts(stage.functions, inputs, self.read_floats, tables, observe, codes)
        outputs: dict[str, Array] = {}
        for function, arrays in zip(stage.functions, found, strict=True):
            names = [each.name for each in net_of(function).written]
            outputs |= zip(names, arrays, strict=True)
        return [outputs[each.name] for each in net_of(stage.functions[0]).outputs]

    def chip_programs(self, stage: Stage) -> list[ChipProgram]:
        exact = self.suspect.session.runtime.exact
        try:
            return core_programs(stage.functions, self.spec, self.materializer.bytes_of, exact)
        except SimulationError as error:
            raise CannotRun(str(error)) from None

    def run_file(self) -> list[Array]:
        """The file's own outputs."""
        run = self.suspect.run
        self.suspect.session.runtime.launch(run.net, [x.reshape(-1).view(np.uint8) for x in run.inputs])
        return [output.array.copy() for output in run.net.outputs]


class KeepingMaterializer(Materializer):
    """Keeps the weights that it was asked for last: their tiles are asked for one after the other."""

    @cached_property
    def _kept(self) -> Callable[[str, ElementType | Scheme], Weight]:
        return lru_cache(KEPT)(super().stored)

    def stored(self, name: str, form: ElementType | Scheme) -> Weight:
        return self._kept(name, form)


def without_padding(run: NetRun) -> list[Array]:
    """The inputs with tokens instead of padding, which repeat the states of the others and see them.

    As no token sees those after it, results for the others stay what they were.
    """
    if kind_of(run.net.name)[0] != BLOCK or len(run.wanted[0]) == run.inputs[0].shape[1]:
        return run.inputs
    states, positions, mask = (array.copy() for array in run.inputs)
    count, rows = len(run.wanted[0]), states.shape[1]
    states[0] = np.resize(states[0, :count], states.shape[1:])
    positions[...] = np.arange(rows)
    mask[0, 0, :] = np.where(np.tri(rows, dtype=bool), 0, mask.min())
    return [states, positions, mask]


def model_of(session: Session, folder: Path) -> tuple[ImportedModel, Weights]:
    """The reference's model, imported for the lengths and the type of the file."""
    sizes, half = session.sizes, session.caches[0].inputs[0].info.dtype
    lengths = sizes.history_rows, sizes.prefill_rows
    shorter = [history_rows(caches[0]) for caches in session.stages[1:]]
    patches = session.tower.patches if isinstance(session.tower, GridTower) else 0
    model, weights = load_model(open_model(folder), *lengths, element(half), shorter, patches=patches)
    if session.greedy_head is not None:
        model = with_sampling(model, sizes.history_rows)
    return model, weights


def first_dump(folder: Path, group: NetGroup, name: str) -> Path:
    """The dump before all passes of the module that a net is made from: its group's, or, where groups share
    a weight and are one, that of the group which has it.
    """
    for path in sorted(folder.glob(f"{group.name}{FIRST}")) or sorted(folder.glob(f"*{FIRST}")):
        if f'#bm.net<name = "{name}"' in path.read_text():
            return path
    raise UserError(f"{folder} has no dump of {name}: compile again with --dump-ir {folder}")


def dumps_after(first: Path) -> list[Path]:
    """All dumps of a module, in order, by what the header of the first says about those that follow."""
    left = passes_left(first.read_text())
    if left is None:
        raise UserError(f"{first} does not begin with the passes that follow: it is not a dump")
    prefix = first.name.removesuffix(FIRST)
    names = ["input", *(step.name for step in parse_pipeline(left))]
    paths = [first.with_name(f"{prefix}.{number:02}.{name}.mlir") for number, name in enumerate(names)]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise UserError(f"{missing} is missing: compile again with --dump-ir {first.parent}")
    return paths
