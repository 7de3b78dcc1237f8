"""One model on its way through the passes, and the nets that come out of them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from compiler.bmodel import BModel, CommandStreams, Net
from compiler.diagnostics import UserError
from compiler.ir.module import Function, Module, walk
from compiler.progress import track
from compiler.target.attribute import set_target
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.nets import net_of
from driver.blob import Materializer, Piece, WeightBlob
from driver.options import ConvertOptions
from driver.pipelines import Effort, default_pipeline, lowering, placing
from driver.resume import check_sources, dumps_by_module, resume
from driver.search import fastest
from frontend.binding import Weights
from frontend.imported import ImportedModel
from passes.chip.allocate_local import DoesNotFit
from passes.chip.assign_addresses import globals_of, weight_source
from passes.emit_bmodel import address_of, bmodel_net, encode
from passes.manager import PassManager, parse_pipeline
from runtime_sim.tokens.notes import tokenizer_noted

log = logging.getLogger("compiler")


@contextmanager
def nothing_old_collected() -> Iterator[None]:
    """Keep the garbage collector from what there is already. Torch and transformers are some 300,000 objects,
    and looking through them again and again takes longer than the passes.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass
class Job:
    """One model on its way through the passes."""

    options: ConvertOptions
    model: ImportedModel
    weights: Weights
    layers: list[ModuleOp] = field(default_factory=list)  # as in the model, compiled
    tails: list[ModuleOp] = field(
        default_factory=list
    )  # embedding and head; one module where they share weights
    blobs: list[WeightBlob] = field(default_factory=list)
    dumps: dict[str, Path] = field(default_factory=dict)  # of modules that do not come from the model
    _efforts: dict[tuple[str, ...], Effort] = field(default_factory=dict)
    _streams: dict[Function, CommandStreams] = field(default_factory=dict)

    def compile(self) -> None:
        """Run the passes over each distinct module."""
        with nothing_old_collected(), tokenizer_noted(self.options.model_path, vocabulary(self.model)):
            tails = tail_modules(self.model, self.weights, self.options)
            named = {module.functions()[0].sym_name: module for module in tails}
            layers = [f"block_{group.layer_indices[0]}" for group in self.model.layers]
            self.dumps = dumps_by_module(self.options.resume_ir or (), [*named, *layers])
            for module in tails:
                set_target(module, self.options.spec)
            self.tails = [self.compiled(name, module) for name, module in named.items()]
            for group in self.model.layers:
                set_target(group.module, self.options.spec)
            for name, group in zip(layers, track(self.model.layers, "compile", " layers"), strict=True):
                self.layers.append(self.compiled(name, group.module))

    def compiled(self, name: str, module: ModuleOp) -> ModuleOp:
        """The module after the passes: those that its dump names, the given ones, or the default ones tuned
        to local memory.
        """
        if name in self.dumps:
            return self.resumed(name, module)
        if self.options.passes is not None:
            return self.run_passes(name, module, self.options.passes)
        try:
            return self.tuned(name, module)
        except DoesNotFit as error:
            raise UserError(self.too_large(name, error.message)) from error

    def resumed(self, name: str, module: ModuleOp) -> ModuleOp:
        """What its dump becomes. Later layers are tuned like the module that it takes the place of."""
        options = self.options
        if options.passes is None:
            self.effort(name, module)
        made = resume(self.dumps[name], module, options.spec, options.dump_ir)
        layer = int(name.removeprefix("block_")) if name.startswith("block_") else None
        weights = [op.name for op in walk(module) if isinstance(op, llm.WeightOp)]
        shapes = {each: self.weights.shape(self.model.parameter_name(each, layer)) for each in weights}
        check_sources(made, shapes, self.model.tables, options.spec.lanes)
        return made

    def too_large(self, name: str, problem: str) -> str:
        if not name.startswith("block"):
            return f"{self.options.model_path}: {problem}"
        return f"-s {self.options.seq_length}: {problem}; use a shorter sequence"

    def tuned(self, name: str, module: ModuleOp) -> ModuleOp:
        """Layers that differ little want the same tuning: a search is only made where no earlier one
        serves.
        """
        kind = kind_of(module)
        if kind in self._efforts:
            try:
                return self.run_passes(name, module, default_pipeline(self.options, self._efforts[kind]))
            except DoesNotFit:
                log.debug("%s needs a tuning of its own", name)
                del self._efforts[kind]
        return self.run_passes(name, module, default_pipeline(self.options, self.effort(name, module)))

    def effort(self, name: str, module: ModuleOp) -> Effort:
        """The tuning for modules of this kind, found for the first of them."""

        def lower(effort: Effort) -> ModuleOp:
            return self.run_passes(name, module, lowering(self.options, effort), trial=True)

        def place(lowered: ModuleOp, effort: Effort) -> ModuleOp:
            return self.run_passes(name, lowered, placing(effort), trial=True)

        kind = kind_of(module)
        if kind not in self._efforts:
            self._efforts[kind] = fastest(lower, place, self.options.input_length, self.options.spec)
        return self._efforts[kind]

    def run_passes(self, name: str, module: ModuleOp, pipeline: str, trial: bool = False) -> ModuleOp:
        """A copy of the module after a pipeline; DoesNotFit when local memory is too small for it.

        A trial is compiled to be priced: to its end, unverified, and without dumps.
        """
        copy = module.clone()
        assert isinstance(copy, ModuleOp)
        log.debug("%s: %s", name, pipeline)
        options = self.options
        manager = PassManager(
            parse_pipeline(pipeline),
            verify_each=not trial,
            dump_dir=None if trial else options.dump_ir,
            dump_prefix=name,
            stop_after=None if trial else options.stop_after,
        )
        manager.run(copy)
        return copy

    # ------------------------------------------------------------------------------------------- the result

    def bmodel(self) -> BModel:
        nets = [net for module in self.tails for net in self.nets(module, None)]
        blocks: dict[str, Net] = {}
        for group, module in zip(self.model.layers, self.layers, strict=True):
            for index in group.layer_indices:
                blocks |= {net.name: net for net in self.nets(module, index)}
        count = len(self.model.layer_prefixes)
        order = [f"{kind}_{i}" for kind in ("block", "block_cache") for i in range(count)]
        return BModel(self.options.spec.chip, [*nets, *(blocks[name] for name in order)])

    def nets(self, module: ModuleOp, layer: int | None) -> Iterator[Net]:
        """The nets of a module, bound to one layer's weights; their streams are encoded once."""
        spec = self.options.spec
        key, jobs = (id(module), layer), self.options.job_count
        blob = WeightBlob(self.pieces(module), self.materializer(layer), key, jobs)
        self.blobs.append(blob)
        for function in module.functions():
            streams = self.encoded(function)
            yield bmodel_net(function, layer, streams, blob if blob.size else None, spec)

    def encoded(self, function: Function) -> CommandStreams:
        if function not in self._streams:
            self._streams[function] = encode(function, self.options.spec)
        return self._streams[function]

    def pieces(self, module: ModuleOp) -> list[Piece]:
        base = self.options.spec.coeff_base
        found = {}
        for function in module.functions():
            for op in globals_of(function, "weight"):
                offset = address_of(op.buffer) - base
                found[offset] = Piece(offset, op.buffer.type.bytes, weight_source(op))
        return list(found.values())

    def materializer(self, layer: int | None) -> Materializer:
        def full_name(name: str) -> str:
            return self.model.parameter_name(name, layer)

        def read(name: str) -> np.ndarray:
            return self.weights.read(full_name(name))

        return Materializer(read, self.model.tables, self.options.spec.lanes, full_name)


def kind_of(module: Module) -> tuple[str, ...]:
    return tuple(net_of(function).name for function in module.functions())


def tail_modules(model: ImportedModel, weights: Weights, options: ConvertOptions) -> list[ModuleOp]:
    """Embedding and head. With tied weights they are one module, so that one blob serves both."""
    if options.embedding_disk:
        return [model.lm_head]
    table, head = weight_of(model.embedding), weight_of(model.lm_head)
    if table is None or head is None or not weights.same(table.name[1:], head.name[1:]):
        return [model.embedding, model.lm_head]
    head.name = table.name
    functions = [*model.embedding.functions(), *model.lm_head.functions()]
    for function in functions:
        function.detach()
    return [ModuleOp.of(*functions)]


def weight_of(module: Module) -> llm.WeightOp | None:
    """The widest parameter of a module: the table of an embedding, the matrix of a head."""
    found = [op for op in walk(module) if isinstance(op, llm.WeightOp)]
    return max(found, key=lambda op: op.y.type.size, default=None)


def vocabulary(model: ImportedModel) -> int:
    """Rows of the embedding."""
    op = weight_of(model.embedding)
    assert op is not None
    return op.y.type.shape[0]
