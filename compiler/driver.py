"""Run the stages in order: checkpoint in, bmodel out. The one file that knows them all."""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from compiler.bmodel import BModel, CommandStreams, Net, write_bmodel
from compiler.client_files import copy_client_files
from compiler.diagnostics import CompileError, UserError
from compiler.files import open_file
from compiler.frontend.binding import Weights, bind, expected_of
from compiler.frontend.checkpoint import Checkpoint
from compiler.frontend.config import read_config
from compiler.frontend.imported import ImportedModel
from compiler.ir.core import Function, Module, walk
from compiler.ir.types import ElementType, element
from compiler.options import ConvertOptions
from compiler.output import CONFIG, EMBEDDING, LOG, Output, require_space, staged_output
from compiler.pass_manager import (
    HEADER,
    PassManager,
    check_chips,
    check_order,
    parse_pipeline,
    passes_that_end,
)
from compiler.pipelines import Effort, default_pipeline, lowering, placing
from compiler.progress import counter, note, track
from compiler.resume import check_sources, dumps_by_module, resume
from compiler.search import fastest
from compiler.weights import Materializer, Piece, WeightBlob
from compiler.weights import convert as convert_values
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.contents import READY, Content
from passes import load_all
from passes.chip.allocate_local import DoesNotFit
from passes.chip.assign_addresses import globals_of, weight_source
from passes.emit_bmodel import address_of, encode, net_of
from runtime_sim.contract import check_file
from runtime_sim.loader import Program
from runtime_sim.tokenizer_notes import tokenizer_noted
from runtime_sim.tool.timing import report
from runtime_sim.tool.verify import verify_file

log = logging.getLogger("compiler")

EMBEDDING_ROWS = 4096  # converted at a time


def convert(options: ConvertOptions) -> Path | None:
    """Compile a model; returns the bmodel's path, or None when a flag asked to stop before one is written.

    Whether the output folder can be written is known before the model is traced.
    """
    check_model(options)
    if options.stop_after:
        compiled_job(options)
        return None
    if options.dry_run:
        print(cost_of(proven(compiled_job(options))))
        return None
    name = options.bmodel_name
    with staged_output(options.out_dir, name) as output:
        copy_client_files(options.model_path, output.folder / CONFIG)
        output.check_config()
        job = compiled_job(options)
        write(job, proven(job), output)
        if options.verify:
            verify(output.folder / name, options)
    return options.out_dir / name


def check_model(options: ConvertOptions) -> None:
    """What config.json and the flags tell without a weight."""
    config = read_config(options.model_path)
    config.check_length(options.seq_length)
    if options.weight_bits < 16:
        config.check_group(options.q_group_size)
    config.check_widths(options.spec.lanes)
    check_passes(options)
    if options.dump_ir:
        check_dumps(options.dump_ir)


def check_dumps(folder: Path) -> None:
    """UserError when dumps could take the place of other IR: all there must be dumps of an earlier run."""
    for path in sorted(folder.glob("*.mlir")):
        with open_file(path) as file:
            if not file.read(len(HEADER)).startswith(HEADER.strip().encode()):
                raise UserError(f"--dump-ir {folder}: {path} is not a dump: give another folder")


def compiled_job(options: ConvertOptions) -> Job:
    """The model after the passes."""
    note(f"read {options.model_path}")
    model, weights = load_model(options)
    note_conversion(options, weights)
    job = Job(options, model, weights)
    job.compile()
    return job


def proven(job: Job) -> BModel:
    bmodel = job.bmodel()
    prove(bmodel)
    return bmodel


def check_passes(options: ConvertOptions) -> None:
    """Unknown passes and options, and a wrong order, are errors before anything else is done."""
    load_all()
    pipeline = options.passes
    known = parse_pipeline(default_pipeline(options) if pipeline is None else pipeline)
    if not known:
        raise UserError("--passes names no pass; leave it out for the default ones")
    check_chips(known, options.spec.name)
    held = check_order(known, Content.LLM, "the model")
    if options.stop_after not in (None, *(step.name for step in known)):
        names = ", ".join(step.name for step in known)
        raise UserError(f"--stop-after {options.stop_after}: not one of the passes {names}")
    if pipeline is not None and not options.stop_after and (left := held & ~READY):
        more = " and ".join(step.name for step in passes_that_end(left))
        raise UserError(f"--passes leaves {left}: add {more}, or give --stop-after")


def load_model(options: ConvertOptions) -> tuple[ImportedModel, Weights]:
    """The traced model and its bound checkpoint. Only here are torch and transformers imported."""
    from compiler.frontend.build import native_model
    from compiler.frontend.importer import import_model

    checkpoint = Checkpoint(options.model_path)
    config = read_config(options.model_path)
    config.check_sizes({key: tensor.shape for key, tensor in checkpoint.items()})
    native = native_model(dict(config.values))
    weights = bind(checkpoint, expected_of(native), element(options.half).numpy)
    model = import_model(native, options.seq_length, options.input_length, element(options.half))
    return model, weights


def note_conversion(options: ConvertOptions, weights: Weights) -> None:
    stored = {"bfloat16": "bf16", "float16": "f16"}.get(weights.dtype.name, weights.dtype.name)
    if stored != options.half:
        log.warning("the checkpoint is %s; activations and weights are converted to %s", stored, options.half)


def cost_of(bmodel: BModel) -> str:
    """What the file would take, on disk and in time."""
    lines = [f"{size_of(bmodel) / 1e6:.1f} MB", *report(Program(bmodel))]
    return "\n".join(lines)


def verify(path: Path, options: ConvertOptions) -> None:
    """Run each net on the simulator beside the Hugging Face model; CompileError when they part.

    With --dump-ir, the dumps say in which pass, and at which op.
    """
    from compiler.bisect import bisect_net  # which imports this file

    if verify_file(path, options.model_path, options.dump_ir, bisect_net):
        raise CompileError(
            f"{path.name} computes something else than {options.model_path}: nothing was written"
        )


def prove(bmodel: BModel) -> None:
    """Check the finished programs as if they came from elsewhere: waits, addresses, and what clients rely
    on.
    """
    problems = check_file(Program(bmodel), hashes=False)
    if problems:  # also where Python leaves out assertions
        raise AssertionError("\n".join(["the compiled programs are not sound:", *problems]))


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
            self.tails = [self.compiled(name, module) for name, module in named.items()]
            for group in self.model.layers:
                group.module.function("block_cache").attributes["bm.io_alone"] = True
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
        made = resume(self.dumps[name], module, options.spec.name, options.dump_ir)
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
            return self.run_passes(name, lowered, placing(self.options, effort), trial=True)

        kind = kind_of(module)
        if kind not in self._efforts:
            self._efforts[kind] = fastest(lower, place, self.options.input_length, self.options.spec)
        return self._efforts[kind]

    def run_passes(self, name: str, module: ModuleOp, pipeline: str, trial: bool = False) -> ModuleOp:
        """A copy of the module after a pipeline; DoesNotFit when local memory is too small for it.

        A trial is compiled to be priced: to its end, unverified, and without dumps.
        """
        module = ModuleOp.of(*(function.clone() for function in module.functions()))  # type: ignore[arg-type]
        log.debug("%s: %s", name, pipeline)
        options = self.options
        manager = PassManager(
            parse_pipeline(pipeline),
            verify_each=not trial,
            dump_dir=None if trial else options.dump_ir,
            dump_prefix=name,
            stop_after=None if trial else options.stop_after,
        )
        manager.run(module)
        return module

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
            name = function.sym_name if layer is None else f"{function.sym_name}_{layer}"
            streams = self.encoded(function)
            yield net_of(function, name, streams, blob if blob.size else None, spec)

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
    return tuple(function.sym_name for function in module.functions())


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


# -------------------------------------------------------------------------------------------------- writing


def write(job: Job, bmodel: BModel, output: Output) -> None:
    """The embedding, the bmodel and its list of nets."""
    options = job.options
    embedding = embedding_bytes(job) if options.embedding_disk else 0
    require_space(options.out_dir, output.folder, size_of(bmodel) + embedding)
    if options.embedding_disk:
        table = output.folder / EMBEDDING
        sha256 = write_embedding(job.model, job.weights, element(options.half), table)
        bmodel = bmodel.with_embedding(sha256)
        output.check_config()
    with counter("write", len(job.blobs), " layers") as done:
        for blob in job.blobs:
            blob.done = done
        write_bmodel(output.folder / output.name, bmodel)
    job.weights.note_limited()
    (output.folder / LOG).write_text(listing(bmodel))


def embedding_bytes(job: Job) -> int:
    op = weight_of(job.model.embedding)
    assert op is not None
    return op.y.type.bytes


def write_embedding(model: ImportedModel, weights: Weights, half: ElementType, path: Path) -> str:
    """The embedding's rows as little-endian words of the activations' type, for clients that look them up
    themselves; their sha256 in hex.
    """
    op = weight_of(model.embedding)
    assert op is not None
    name = model.parameter_name(op.name)
    rows = weights.shape(name)[0]
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, rows, EMBEDDING_ROWS):
            values = weights.read(name, slice(start, min(start + EMBEDDING_ROWS, rows)))
            data = convert_values(values, half.numpy).tobytes()
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def vocabulary(model: ImportedModel) -> int:
    """Rows of the embedding."""
    op = weight_of(model.embedding)
    assert op is not None
    return op.y.type.shape[0]


def size_of(bmodel: BModel) -> int:
    blobs = {
        stage.coeff.blob.key: stage.coeff.size for net in bmodel.nets for stage in net.stages if stage.coeff
    }
    return sum(blobs.values()) + 4096 * len(bmodel.nets)


def listing(bmodel: BModel) -> str:
    """The nets of the file with the shapes of their inputs and outputs."""
    lines = [f"chip {bmodel.chip}"]
    for net in bmodel.nets:
        stage = net.stages[0]
        lines.append(f"net {net.name} ({net.addr_mode.name.lower()})")
        for kind, tensors in (("in ", stage.inputs), ("out", stage.outputs)):
            lines += [f"  {kind} {t.name}: {t.dtype} {list(t.shape)} at {t.address:#x}" for t in tensors]
    return "\n".join(lines) + "\n"
