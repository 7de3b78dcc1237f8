"""Run the stages in order: checkpoint in, bmodel out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import process_time

from compiler.bmodel import BModel
from compiler.diagnostics import CompileError, UserError, log
from compiler.files import open_file
from compiler.garbage import uncollected
from compiler.ir.types import element
from compiler.progress import note
from dialects.contents import READY, Content
from driver.budget.choose import check_budget, within_budget
from driver.cache import Cache
from driver.calibration.calibrate import calibrated
from driver.client_files import copy_client_files
from driver.job import Job
from driver.modes import resolved
from driver.options import MAX_DEVICES, ConvertOptions
from driver.output import CONFIG, staged_output
from driver.passes_page import passes_page
from driver.pipelines import default_pipeline
from driver.remote import Executor
from driver.write import write
from frontend.binding import Weights
from frontend.config import ModelConfig
from frontend.gguf import is_gguf
from frontend.heads import with_sampling
from frontend.load import OpenedModel, load_model, open_model
from passes import load_all
from passes.manager import HEADER, check_order, parse_pipeline, passes_that_end
from runtime_sim.check.contract import check_file
from runtime_sim.launch.loader import Program


@uncollected()
def convert(options: ConvertOptions) -> Path | None:
    """Compile a model; returns the bmodel's path, or None when a flag asked to stop before one is written.

    Whether the output folder can be written is known before the model is traced.
    """
    if options.executor is not None:  # workers may run in other folders
        options = replace(options, model_path=options.model_path.absolute())
    opened = open_model(options.model_path)
    options = resolved(options, opened.form)
    check_model(options, opened.config)
    if options.stop_after:
        compiled_job(options, opened)
        return None
    if options.dry_run:
        job = compiled_job(options, opened)
        bmodel = proven(job)
        from driver.ahead.dry_run import cost_of  # imports what else only tools need

        print("\n".join(cost_of(job, bmodel, opened.config, process_time())))
        return None
    name = options.bmodel_name
    with staged_output(options.out_dir, name) as output:
        copy_client_files(options.model_path, output.folder / CONFIG)
        output.check_config()
        job = compiled_job(options, opened)
        bmodel = proven(job)
        with calibrated(job, opened, output.work):
            write(job, bmodel, output)
        if options.verify:
            verify(output.folder / name, options)
    return options.out_dir / name


def check_model(options: ConvertOptions, config: ModelConfig) -> None:
    """What config.json and the flags tell without a weight."""
    config.check_length(options.seq_length)
    if options.num_device > 1:
        config.check_devices(options.num_device, MAX_DEVICES)
    note_length(options.seq_length, config)
    if options.weight_bits < 16 and not options.as_stored:
        config.check_group(options.group, options.weight_bits)
    check_budget(options)
    check_passes(options)
    if options.dump_ir:
        check_dumps(options.dump_ir)


def check_dumps(folder: Path) -> None:
    """UserError when dumps could take the place of other IR: all there must be dumps of an earlier run."""
    for path in sorted(folder.glob("*.mlir")):
        with open_file(path) as file:
            if not file.read(len(HEADER)).startswith(HEADER.strip().encode()):
                raise UserError(f"--dump-ir {folder}: {path} is not a dump: give another folder")


def compiled_job(options: ConvertOptions, opened: OpenedModel) -> Job:
    """The model after the passes."""
    note(f"read {options.model_path}")
    half = element(options.half)
    lengths = options.seq_length, options.input_length
    model, weights = load_model(opened, *lengths, half, options.shorter_histories, options.max_pixels)
    if options.do_sample:
        model = with_sampling(model, options.seq_length)
    note_conversion(options, weights)
    cache = None if options.cache is None else Cache(options.cache, options.cache_size)
    writes = not (options.dry_run or options.stop_after)
    executor = Executor(options.executor) if options.executor and writes else None
    job = Job(options, model, weights, cache=cache, executor=executor)
    if options.budget is not None:
        job = within_budget(job, opened)
    with passes_page(options.dump_ir):
        if not job.nets:
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
    held = check_order(known, Content.LLM, "the model")
    if options.stop_after not in (None, *(step.name for step in known)):
        names = ", ".join(step.name for step in known)
        raise UserError(f"--stop-after {options.stop_after}: not one of the passes {names}")
    if pipeline is not None and not options.stop_after and (left := held & ~READY):
        more = " and ".join(step.name for step in passes_that_end(left))
        raise UserError(f"--passes leaves {left}: add {more}, or give --stop-after")


def note_length(seq_length: int, config: ModelConfig) -> None:
    """Tell that short conversations have the frequencies of long ones."""
    if config.by_long_factors(seq_length):
        log.warning(
            "-s %d is more than original_max_position_embeddings %d: all tokens turn by long_factor, as "
            "transformers does beyond that length; up to it, -s %d is closer to the model",
            *(seq_length, config.original_positions, config.original_positions),
        )


def note_conversion(options: ConvertOptions, weights: Weights) -> None:
    """Tell that floats are converted; those of a GGUF file, whose vectors alone are f32, always are."""
    if is_gguf(options.model_path):
        return
    stored = {"bfloat16": "bf16", "float16": "f16"}.get(weights.dtype.name, weights.dtype.name)
    if stored != options.half:
        log.warning("the checkpoint is %s; activations and weights are converted to %s", stored, options.half)


def verify(path: Path, options: ConvertOptions) -> None:
    """Run each net on the simulator beside the Hugging Face model; CompileError when they part.

    With --dump-ir, the dumps say in which pass, and at which op.
    """
    from driver.bisect import bisect_net  # imports the interpreters, which compiling does without
    from runtime_sim.tool.verify import verify_file

    if verify_file(path, options.model_path, options.dump_ir, bisect_net):
        raise CompileError(
            f"{path.name} computes something else than {options.model_path}: nothing was written"
        )


def prove(bmodel: BModel) -> None:
    """Check the finished programs as if they came from elsewhere: waits, addresses, what clients need."""
    problems = check_file(Program(bmodel), hashes=False)
    if problems:  # also where Python leaves out assertions
        raise AssertionError("\n".join(["the compiled programs are not sound:", *problems]))
