"""Tiny models compiled stage by stage: every net as a function of each level, and as a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from compiler.bmodel import read_bmodel
from compiler.client_nets import stage_name
from compiler.ir.module import Function
from compiler.ir.types import I32, Attribute, TensorType, element
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized
from dialects.builtin import ModuleOp
from dialects.nets import net_of
from driver.blob import Materializer
from driver.client_files import copy_client_files
from driver.convert import prove
from driver.job import Job
from driver.modes import resolved
from driver.options import ConvertOptions
from driver.output import CONFIG, staged_output
from driver.pipelines import default_pipeline
from driver.write import write
from frontend.imported import Instance, NetGroup
from frontend.load import load_model, open_model
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret import chip, llm, tensor  # noqa: F401  (importing them registers their rules)
from runtime_sim.interpret.rules import interpret
from runtime_sim.launch.runtime import Runtime
from tests.compare import compare

Array = np.ndarray
MASKED = {"bf16": -9984.0, "f16": -10000.0}  # what a client adds for "not visible", by the type of the net
STAGE_BEFORE = {"llm-to-tensor": "llm", "tensor-to-chip": "tensor", "allocate-local": "chip"}

EMBEDDING = "embed_tokens.weight"

ROUNDING = 0.9999  # cosine of two runs that round to bf16 in different places
ROUNDING_F16 = 0.999998  # the same for f16
LENGTH = 1e-3  # difference of the lengths of two such vectors, which a cosine does not see
# Cosine of two that add in different orders before they round: one number that falls to the other side of a
# rounding in an attention takes a quarter of those that a gate rounds with it, which was seen at 0.999998.
SUMMING = 0.999997


@dataclass
class Net:
    """One net, bound to a layer's weights: its function at each stage."""

    name: str
    instance: Instance
    stages: dict[str, Function] = field(default_factory=dict)


class RecordingJob(Job):
    """A job that keeps copies of each module between passes, by the compiled module."""

    def run_passes(self, name: str, module: ModuleOp, pipeline: str) -> ModuleOp:
        copy, kept = copy_of(module), {}
        steps = parse_pipeline(pipeline)
        while steps:
            stop = next((i for i, step in enumerate(steps) if step.name in STAGE_BEFORE and i), len(steps))
            if steps[0].name in STAGE_BEFORE:
                kept[STAGE_BEFORE[steps[0].name]] = copy_of(copy)
            PassManager(steps[:stop]).run(copy)
            steps = steps[stop:]
        self.__dict__.setdefault("kept", {})[copy] = kept | {"placed": copy}
        return copy


def copy_of(module: ModuleOp) -> ModuleOp:
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    return copy


class Tiny:
    """A compiled tiny model.

    Stages of a net: "llm" (fused), "tensor" (tiled), "chip" (no addresses yet), "placed" (what is encoded).
    """

    def __init__(self, options: ConvertOptions) -> None:
        load_all()
        opened = open_model(options.model_path)
        options = resolved(options, opened.form)
        passes = options.passes or default_pipeline(options)  # no search for the fastest program
        self.options = options = replace(options, passes=passes)
        half = element(options.half)
        lengths = options.seq_length, options.input_length
        self.model, self.weights = load_model(
            opened, *lengths, half, options.shorter_histories, options.max_pixels
        )
        self.job = RecordingJob(options, self.model, self.weights, keeps_instructions=True)
        self.job.compile()
        self.nets: dict[str, Net] = {}
        self._bytes: dict[tuple[Instance, Attribute], Array] = {}
        for group in self.job.nets:
            self._add(group)

    def _add(self, compiled: NetGroup) -> None:
        for stage, module in self.job.kept[compiled.module].items():
            for function in module.functions():
                for instance in compiled.instances:
                    net = net_of(function)
                    name = stage_name(net.name_for(instance.layer), net.stage)
                    self.nets.setdefault(name, Net(name, instance)).stages[stage] = function

    @property
    def last_layer(self) -> tuple[str, str]:
        """The names of its nets."""
        index = max(net.instance.layer for net in self.nets.values() if net.instance.layer is not None)
        return f"block_{index}", f"block_cache_{index}"

    @cached_property
    def path(self) -> Path:
        bmodel = self.job.bmodel()
        prove(bmodel)
        options = self.options
        with staged_output(options.out_dir, options.bmodel_name) as output:
            copy_client_files(options.model_path, output.folder / CONFIG)
            write(self.job, bmodel, output)
        return options.out_dir / options.bmodel_name

    @cached_property
    def runtime(self) -> Runtime:
        """The file, written and read again."""
        return Runtime(read_bmodel(self.path))

    def reader(self, net: Net) -> Callable[[str], Array]:
        return lambda name: self.weights.read(net.instance.parameter_name(name))

    def materializer(self, net: Net) -> Callable[[Attribute], Array]:
        """The bytes of coefficient regions by their source; computed once for all nets of a layer."""
        make = Materializer(self.reader(net), self.model.tables).bytes_of

        def bytes_of(source: Attribute) -> Array:
            key = (net.instance, source)
            if key not in self._bytes:
                self._bytes[key] = make(source)
            return self._bytes[key]

        return bytes_of

    def codes(self, net: Net) -> Callable[[str, Scheme], Quantized]:
        """What a parameter is stored as; computed once for all tiles."""
        return lru_cache(None)(Materializer(self.reader(net), self.model.tables).codes)

    def inputs(self, net: Net) -> list[Array]:
        (vocabulary, _), *_ = (shape for name, shape in self.model.parameters.items() if name.endswith(EMBEDDING))
        return sample_inputs(net.stages["llm"].function_type.inputs, vocabulary)

    def run(self, net: Net, stage: str, inputs: Sequence[Array], observer: Any = None) -> list[Array]:
        """The outputs of one stage of a net; "file" is what the written file computes."""
        if stage == "file":
            return self._run_file(net, inputs)
        function = net.stages[stage]
        if stage in ("llm", "tensor"):
            tables, codes = self.model.tables, self.codes(net)
            return interpret(function, inputs, self.reader(net), tables, observer, codes)
        weights = self.materializer(net)
        return chip.run_function(function, self.options.spec, inputs, weights, observe=observer)

    def _run_file(self, net: Net, inputs: Sequence[Array]) -> list[Array]:
        placed = self.runtime.net(net.name)
        for buffer, array in zip(placed.inputs, inputs, strict=True):
            buffer.array[...] = array
        self.runtime.launch(placed)
        return [buffer.array.copy() for buffer in placed.outputs]


def fused(module: ModuleOp, options: ConvertOptions) -> ModuleOp:
    """A copy of an imported module after the passes of the llm level."""
    copy = copy_of(module)
    steps = parse_pipeline(default_pipeline(options))
    names = [step.name for step in steps]
    PassManager(steps[: names.index("llm-to-tensor")]).run(copy)
    return copy


def sample_inputs(types: Sequence[TensorType], vocabulary: int) -> list[Array]:
    """Arrays as a client would give them: positions in order, causal masks with rows of padding.

    Prefill fills all but a few rows; decode stands in the middle of its history.
    """
    rng = np.random.default_rng(7)
    if types[0].element == I32:
        return [rng.integers(0, vocabulary, types[0].shape).astype(np.int32)]
    arrays = [rng.standard_normal(type_.shape).astype(type_.element.numpy) for type_ in types]
    if len(types) == 1:
        return arrays
    tokens = types[0].shape[1]
    length = types[2].shape[-1]
    used = max(1, tokens - 5) if tokens > 1 else length // 2
    first, streams = (np.arange(tokens) if tokens > 1 else used), np.arange(types[1].shape[0])
    arrays[1] = np.abs(first - streams[:, None]).astype(np.int32)  # others in each stream
    mask, masked = np.zeros((tokens, length), np.float32), MASKED[str(types[2].element)]
    if tokens > 1:
        mask[np.triu_indices(length, 1)] = masked
        mask[used:] = masked
    else:
        mask[:, used : length - 1] = masked
    arrays[2] = mask.reshape(types[2].shape).astype(types[2].element.numpy)
    return arrays


def check_close(net: Net, found: Sequence[Array], wanted: Sequence[Array], cosine: float) -> None:
    for index, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        difference = compare(ours, theirs)
        assert difference.cosine > cosine, f"{net.name}, output {index}: {difference}"
        lengths = [float(np.linalg.norm(x.astype(np.float64))) for x in (ours, theirs)]
        bound = max(LENGTH, 0.05 / np.sqrt(ours.size)) * lengths[1]  # rounding errors of many items cancel
        assert abs(lengths[0] - lengths[1]) <= bound, f"{net.name}, output {index}: {lengths}"
