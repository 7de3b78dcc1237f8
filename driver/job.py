"""One model on its way through the passes, and the nets that come out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

from compiler.bmodel import BModel, CommandStreams, Net
from compiler.bmodel.cascade import step_of
from compiler.diagnostics import UserError, log
from compiler.ir.core import Op
from compiler.ir.module import Function, discard, walk
from compiler.progress import steps, track
from compiler.target.attribute import set_target
from compiler.weights.part import parameter_of
from compiler.weights.stored import Floats, Weight
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.chip import Instruction, LocalOp
from dialects.nets import net_of, programs_of, stages_of
from dialects.parts import part_name
from dialects.weights import view_of_name
from driver.blob import Make, Materializer, Piece, WeightBlob
from driver.cache import Cache
from driver.cached import CachedWeights, Compiled, get_program, program_key, put_program
from driver.devices import by_device, completed, renamed
from driver.groups import groups_to_compile, named_of, table_of
from driver.options import ConvertOptions
from driver.pipelines import Effort, Efforts, default_pipeline, fusing, sharing_out
from driver.precision import Precision
from driver.remote import Executor
from driver.resume import check_sources, dumps_by_module, resume
from driver.search import FILLS, fastest
from driver.trials import Trials
from driver.work import work_of
from frontend.binding import Weights
from frontend.gguf import is_gguf
from frontend.imported import ImportedModel, Instance, NetGroup
from passes.chip.allocate_local import DoesNotFit
from passes.chip.assign_addresses import globals_of, set_apart, weight_source
from passes.emit_bmodel import address_of, bmodel_net, encode, no_streams
from passes.manager import PassManager, parse_pipeline
from passes.options import ByFunction
from runtime_sim.tokens.notes import tokenizer_noted

LEAST = 1e-3  # seconds that a pass takes which was in no trial
LESS_AHEAD = (0.8, *FILLS[1:])  # shares of local memory, where what was chosen does not fit


@dataclass
class Job:
    """One model on its way through the passes.

    A compiled module is encoded at once, and then only has what says how its nets are called: its regions of
    DDR. With `keeps_instructions` it stays whole.
    """

    options: ConvertOptions
    model: ImportedModel
    weights: Weights
    nets: list[NetGroup] = field(default_factory=list)  # compiled, in the order of the file
    blobs: list[WeightBlob] = field(default_factory=list)
    dumps: dict[str, Path] = field(default_factory=dict)  # of modules that do not come from the model
    keeps_instructions: bool = False
    cache: Cache | None = None
    executor: Executor | None = None
    importance: dict[str, Floats] = field(default_factory=dict)  # of inputs, by parameter; see `quantize`
    digests: dict[str, bytes] = field(default_factory=dict)  # of tensors, for the cache
    _efforts: dict[Hashable, Efforts] = field(default_factory=dict)
    _seconds: Counter[str] = field(default_factory=Counter)  # that passes took in trials
    _streams: dict[Function, CommandStreams] = field(default_factory=dict)

    def compile(self) -> None:
        """Run the passes over each distinct module."""
        vocabulary = table_of(self.model).y.type.shape[0]
        path = self.options.model_path
        noted = nullcontext() if is_gguf(path) else tokenizer_noted(path, vocabulary)
        with noted:
            groups = self.groups()
            self.dumps = dumps_by_module(self.options.resume_ir or (), [group.name for group in groups])
            for group in track(groups, "compile", " modules"):
                self.nets.append(NetGroup(self.finished(group), group.instances))
        if not self.options.stop_after:
            set_apart([function for group in self.nets for function in group.module.functions()])

    def finished(self, group: NetGroup) -> ModuleOp:
        """The module compiled and encoded, or as the cache has it."""
        options = self.options
        if options.stop_after or self.keeps_instructions:
            return self.compiled(group)
        kind = self.kind(group)
        if self.cache is None or options.dump_ir or self.dumps:
            module = self.compiled(group)
            self.encode(module)
            return module
        key = program_key(group.module, options.for_programs, kind, self._efforts.get(kind))
        if (found := get_program(self.cache, key)) is None:
            module = self.compiled(group)
            self.encode(module)
            streams = {each: self._streams[each] for each in module.functions() if each in self._streams}
            found = Compiled(module, streams, self._efforts.get(kind))
            put_program(self.cache, key, found)
        self._streams.update(found.streams)
        if found.efforts is not None:
            self._efforts[kind] = found.efforts
        return found.module

    def encode(self, module: ModuleOp) -> None:
        """Encode what depends on no other module, and let go of what nothing else looks at."""
        for function in module.functions():
            if not net_of(function).flexible:
                self.encoded(function)
                erase_instructions(function)

    def groups(self) -> list[NetGroup]:
        """What is compiled: the model's groups, by what is the same in memory."""
        disk = self.options.embedding_disk
        groups = groups_to_compile(self.model, self.weights, disk, self.precision.narrow)
        found = [part for group in groups for part in self.precision.split(group)]
        for group in found:
            set_target(group.module, self.options.spec)
        devices = self.options.num_device
        return [part for group in found for part in self.on_devices(group)] if devices > 1 else found

    def on_devices(self, group: NetGroup) -> list[NetGroup]:
        """What each device has of a group's nets."""
        pipeline = sharing_out(self.options, self.precision.kept(group))
        shared = self.run_passes(group.name, group.module, pipeline)
        return by_device(NetGroup(shared, group.instances), self.options.num_device)

    def maker(self, instance: Instance) -> Make | None:
        """How weights are made but by this process: taken from the cache, or by workers."""
        remote = None if self.executor is None else self.executor.make(self.weights, instance)
        return remote if self.cache is None else CachedWeights(self.cache, self.digests, remote).pieces

    @cached_property
    def precision(self) -> Precision:
        return Precision.of(self.model, self.options.rules, self.options.group)

    def compiled(self, group: NetGroup) -> ModuleOp:
        """The module after the passes: its dump's, the given ones, or the default ones tuned to memory."""
        if group.name in self.dumps:
            return self.resumed(group)
        if self.options.passes is not None:
            return self.run_passes(group.name, group.module, self.options.passes)
        try:
            return self.tuned(group)
        except DoesNotFit as error:
            raise UserError(self.too_large(group, error.message)) from error

    def resumed(self, group: NetGroup) -> ModuleOp:
        """What its dump becomes. Later layers are tuned like the module that it takes the place of."""
        options = self.options
        if options.passes is None:
            self.efforts(group)
        made = resume(self.dumps[group.name], group.module, options.spec, options.dump_ir)
        full_name = group.instances[0].parameter_name
        names = {view_of_name(op.name).tensor for op in named_of(group.module)}
        shapes = {name: self.weights.shape(full_name(name)) for name in names}
        check_sources(made, shapes, self.model.tables)
        return made

    def too_large(self, group: NetGroup, problem: str) -> str:
        """Of no length: a program of few tokens and keys at a time takes as much of any call."""
        if not group.of_layers:
            return f"{self.options.model_path}: {problem}"
        states, *_ = group.module.functions()[0].args
        width, chip = states.type.shape[-1], self.options.spec.name
        return f"{self.options.model_path}: hidden_size is {width}: {problem}; use a narrower model on {chip}"

    def tuned(self, group: NetGroup) -> ModuleOp:
        """The module with the first efforts that fit; other layers of its kind begin with these."""
        problem = DoesNotFit("nothing was tried")
        for efforts in self.attempts(group):
            try:
                made = self.run_passes(group.name, group.module, self.pipeline(group, efforts))
            except DoesNotFit as error:
                log.debug("%s does not fit with %s", group.name, efforts)
                problem = error.with_traceback(None)  # whose frames hold the module
            else:
                self._efforts[self.kind(group)] = efforts
                return made
        raise problem

    def attempts(self, group: NetGroup) -> Iterator[Efforts]:
        """Layers that differ little want one tuning: a search is made where no earlier one serves.

        What fits in a few runs may not in all of them, as buffers come to lie in other ways; it then loads
        less ahead, in small steps: with much less, each run of tokens waits for weights.
        """
        known = self._efforts.pop(self.kind(group), None)
        if known is not None:
            yield known
        found = self.efforts(group)
        yield found
        for fill in LESS_AHEAD:
            yield found.map(partial(less_ahead, fill=fill))

    def kind(self, group: NetGroup) -> Hashable:
        return kind_of(group, self.precision.kept(group))

    def pipeline(self, group: NetGroup, efforts: Efforts) -> str:
        return default_pipeline(self.options, efforts, self.precision.kept(group))

    def efforts(self, group: NetGroup) -> Efforts:
        """The tuning for modules of this kind, found for the first of them."""
        kind = self.kind(group)
        if kind not in self._efforts:
            self._efforts[kind] = self.searched(group)
        return self._efforts[kind]

    def searched(self, group: NetGroup) -> Efforts:
        """What does not depend on the effort is done once for all trials."""

        def run_passes(module: ModuleOp, pipeline: str) -> ModuleOp:
            return self.run_passes(group.name, module, pipeline, trial=True)

        first_stages = without_further_stages(group.module)
        fused = run_passes(first_stages, fusing(self.options, self.precision.kept(group)))
        trials = Trials(fused, run_passes)
        spec = self.options.spec
        works = {function.sym_name: work_of(function, spec) for function in trials.first_cores()}
        found = fastest(works, trials.lower, spec)
        return for_all_functions({name: found[name] for name in works}, group.module, self.options.core_count)

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
        try:
            with nullcontext() if trial else self.told(manager):
                manager.run(copy)
        except DoesNotFit:
            discard(copy)
            raise
        if trial:
            self._seconds.update(manager.seconds)
        return copy

    @contextmanager
    def told(self, manager: PassManager) -> Iterator[None]:
        """Show which passes are done, and the time left by what they took in trials."""
        seconds = [self._seconds[step.name] or LEAST for step in manager.passes]
        with steps(f"compile {manager.dump_prefix}", seconds) as manager.tell:
            yield

    # ---- the result ----

    def bmodel(self) -> BModel:
        """Nets of one name follow each other by layer, and names in the order of the model's groups."""
        found = [
            (name, (instance.layer or 0, step_of(net), net.device), net)
            for group in self.nets
            for instance in group.instances
            for name, net in self.bound(group.module, instance)
        ]
        names = list(dict.fromkeys(name for name, _, _ in found))
        found.sort(key=lambda each: (names.index(each[0]), each[1]))
        devices, spec = self.options.num_device, self.options.spec
        nets = [net for _, _, net in found]
        return BModel(spec.chip, completed(nets, devices, no_streams(spec)), devices)

    def bound(self, module: ModuleOp, instance: Instance) -> Iterator[tuple[str, Net]]:
        """The nets that the functions of a module become, each with its name for all layers; streams are
        encoded once.
        """
        key, jobs = (id(module), instance), self.options.job_count
        if self.executor is not None:
            jobs = self.executor.ahead
        blob = WeightBlob(self.pieces(module, instance), self.materializer(instance), key, jobs)
        blob.make = self.maker(instance)
        self.blobs.append(blob)
        source = blob if blob.size else None
        for functions in stages_of(module.functions()):
            for cores in programs_of(functions):
                stages = [{each: self.encoded(each) for each in stage} for stage in zip(*cores, strict=True)]
                count, device = self.options.core_count, instance.device
                net = bmodel_net(stages, instance.layer, source, count, device)
                yield net_of(functions[0]).name, net

    def encoded(self, function: Function) -> CommandStreams:
        if function not in self._streams:
            self._streams[function] = encode(function)
        return self._streams[function]

    def pieces(self, module: ModuleOp, instance: Instance) -> list[Piece]:
        base, cuts = self.options.spec.coeff_base, dict(instance.cuts)
        found = {}
        for function in module.functions():
            for op in globals_of(function, "weight"):
                offset = address_of(op.buffer) - base
                source = weight_source(op)
                source = source if instance.device is None else renamed(source, cuts)
                found[offset] = Piece(offset, op.buffer.type.bytes, source)
        return list(found.values())

    def materializer(self, instance: Instance) -> Materializer:
        def read(name: str) -> Weight:
            return self.weights.read(instance.parameter_name(name))

        def importance(name: str) -> Floats | None:
            return self.importance.get(parameter_of(instance.parameter_name(name)))

        return Materializer(read, self.model.tables, instance.parameter_name, importance)


def erase_instructions(function: Function) -> None:
    """And their buffers in local memory."""
    block = function.block
    block.erase_all(op for op in block.ops.listed() if isinstance(op, Instruction | LocalOp))


def without_further_stages(module: ModuleOp) -> ModuleOp:
    """Of each net the stage of the largest inputs."""
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    for function in copy.functions():
        if net_of(function).stage:
            function.erase()
    return copy


def for_all_functions(efforts: Mapping[str, Effort], module: ModuleOp, cores: int) -> Efforts:
    """The further stages of a net are compiled as the first is, those of another step as its own, and the
    parts of other cores too, as all meet each other run by run; `module` is not shared out among cores yet.
    """
    found: dict[str, Effort] = {}
    programs = [program for net in stages_of(module.functions()) for program in programs_of(net)]
    for stages in chain.from_iterable(programs):
        first = stages[0]
        part = part_name(first.sym_name, "core", 0)
        for name in (each.sym_name for each in stages):
            if part in efforts:
                found |= {part_name(name, "core", number): efforts[part] for number in range(cores)}
            else:
                found[name] = efforts[first.sym_name]
    return ByFunction.of(found)


def less_ahead(effort: Effort, fill: float) -> Effort:
    return replace(effort, fill=min(effort.fill, fill))


def kind_of(group: NetGroup, kept: Mapping[str, int]) -> Hashable:
    """What decides how a module is best tuned: its nets, the weights that they multiply by, with the bits of
    those that have their own, and which keys they attend to. Layers that differ in norms or ropes are alike.
    """
    nets = ((net_of(each).name, *map(large_of, walk(each))) for each in group.module.functions())
    return (*kept.items(), *(tuple(filter(None, net)) for net in nets))


def large_of(op: Op) -> Hashable:
    """What of an op takes time or memory; None for most."""
    if isinstance(op, llm.Projects):
        return tuple(weight.type for weight in op.projections)
    return (op.k.type, op.v.type, op.visible) if isinstance(op, llm.AttentionOp) else None
