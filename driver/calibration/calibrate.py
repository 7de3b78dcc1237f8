"""What is measured before weights become codes, on random tokens, the model's own or those of a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from compiler.diagnostics import UserError, log
from compiler.files import read_text
from compiler.progress import note
from compiler.weights.part import parameter_of
from compiler.weights.stored import Array, Floats
from dialects.weights import Packed, view_of_name
from driver.calibration import chosen
from driver.calibration.dividing import multiply_readers
from driver.calibration.feedback import Settling
from driver.calibration.graphs import folds_of_layers, folds_of_norms, scores_of_layers, stored_plainly
from driver.calibration.kept import Shelf, shelf
from driver.calibration.running import Arrays, Running
from driver.calibration.settled import keep_settled, take_settled
from driver.job import Job
from driver.options import AUTO
from frontend.calibration import mean_squares, run_layers
from frontend.config import ModelConfig
from frontend.gguf import is_gguf
from frontend.layers import Unrunnable
from frontend.load import OpenedModel
from frontend.writing import written
from runtime_sim.tokens.text import Text

RANDOM = 128  # tokens: with SmolLM2-135M, four times as many gained nothing
WRITTEN = (128, 64)  # by the model itself, for products of inputs, which random ones misjudge
TEXT_SEQUENCES, TEXT_TOKENS = {"search": 16, "gptq": 48}, 512  # at most, spread over a longer text
TEXT_BYTES = 64 << 20


@contextmanager
def calibrated(job: Job, opened: OpenedModel, folder: Path) -> Iterator[None]:
    """With a job that knows how its weights become codes; what memory does not hold lies in `folder`."""
    method, running = method_of(job), Running(job, opened.config)
    with ExitStack() as stack:
        known, job.importance = job.importance, {}  # by the run that chose bits for a budget
        if method == "search":
            weigh(job, known or importance_of(running))
        elif method == "gptq":
            settle(running, stack.enter_context(shelf(folder)))
        for name in job.weights.made:
            job.digests.pop(name, None)  # those are of what was there before
        keep_choice(job, method)
        yield


def weigh(job: Job, importance: Mapping[str, Floats]) -> None:
    """Have errors count as inputs do, and inputs divided where that helps."""
    folds, schemes, jobs = folds_of_layers(job), stored_plainly(job), job.options.job_count
    job.importance = multiply_readers(job.weights, folds, schemes, importance, jobs)


def settle(running: Running, kept: Shelf) -> None:
    """Put codes in the place of weights."""
    job, tokens = running.job, sequences(running, "gptq")
    schemes, folds, scores = stored_plainly(job), folds_of_norms(job), scores_of_layers(job)
    jobs = job.options.job_count
    settling = Settling(job.weights, schemes, folds, scores, kept, jobs, job.importance)
    key = partial(running.key, "settled", tokens, sorted(schemes.items()), folds, scores)
    if job.cache is None or not take_settled(job.cache, key, settling):
        note(f"run {job.options.model_path} on {tokens.size} tokens")
        run_layers(running.native, job.weights, tokens, jobs, settling.measure_of, settling.settle)
        if job.cache is not None:
            keep_settled(job.cache, key, settling)


def keep_choice(job: Job, method: str) -> None:
    """Beside the dumps, if there are any."""
    if job.options.dump_ir is not None:
        chosen.keep(job.options.dump_ir, method, job.importance, job.weights)


def longest_of(config: ModelConfig) -> int:
    """Tokens of a sequence at most."""
    return config.max_positions or TEXT_TOKENS


def importance_of(running: Running) -> dict[str, Floats]:
    """Of inputs by parameter; of none where nobody asked for it and the model cannot be run."""
    job, tokens = running.job, sequences(running, "search")

    def measured() -> Arrays:
        note(f"run {job.options.model_path} on {tokens.size} tokens")
        return mean_squares(running.native, job.weights, tokens, job.options.job_count)

    try:
        return dict(running.kept("importance", [tokens], measured))
    except Unrunnable as error:
        if job.options.calibrate != AUTO:
            raise
        log.warning("%s, so that codes are chosen as by --calibrate none", error)
        return {}


def method_of(job: Job) -> str:
    """One of CALIBRATIONS. Unasked, only codes of 4 bits are searched for: 8 bits lose next to nothing."""
    options = job.options
    if options.calibrate == AUTO and options.calibration_text is None:
        return "search" if any(bits == 4 for _, bits in rounded(job)) else "none"
    if options.calibrate == "none" or nothing_to_choose(job):
        return "none"
    return "search" if options.calibrate == AUTO else options.calibrate


def nothing_to_choose(job: Job) -> bool:
    """Whether all weights stay as the checkpoint has them, which is told."""
    if any(rounded(job)):
        return False
    options = job.options
    flag = "--calibration_text" if options.calibrate == AUTO else f"--calibrate {options.calibrate}"
    why = "its codes stay as they are" if job.weights.schemes else "all weights have 16 bits"
    log.warning("%s changes nothing of %s: %s", flag, options.model_path, why)
    return True


def rounded(job: Job) -> Iterator[tuple[str, int]]:
    """The full names of parameters that are floats in the checkpoint and codes in the file, with the bits."""
    for group in job.nets:
        for instance in group.instances:
            for piece in job.pieces(group.module, instance):
                scheme = piece.source.tile.scheme if isinstance(piece.source, Packed) else None
                if isinstance(piece.source, Packed) and scheme is not None:
                    names = (view_of_name(name).tensor for name in piece.source.names)
                    made = {parameter_of(instance.parameter_name(name)) for name in names}
                    yield from ((name, scheme.bits) for name in sorted(made - job.weights.schemes.keys()))


def sequences(running: Running, method: str) -> Array:
    """Token numbers [sequences, tokens]: those of the text if there is one."""
    job, longest = running.job, longest_of(running.config)
    shape = shape_without_text(method, longest)
    tokens = given_or_random(running, (TEXT_SEQUENCES[method], min(TEXT_TOKENS, longest)), shape)
    if method == "search" or job.options.calibration_text is not None:
        return tokens

    def tokens_written() -> Arrays:
        note(f"have {job.options.model_path} write {tokens.size} tokens")
        jobs = job.options.job_count
        return {"tokens": written(running.native, job.weights, tokens[:, 0], shape[1], jobs)}

    return running.kept("written", [tokens], tokens_written)["tokens"]


def given_or_random(running: Running, of_text: tuple[int, int], random: tuple[int, int]) -> Array:
    """Sequences of the text that is given, at most so many of so many tokens, or random ones."""
    options = running.job.options
    if options.calibration_text is None:
        return np.random.default_rng(0).integers(0, running.vocabulary, random, np.int64)
    count, length = of_text
    tokens = text_tokens(options.model_path, options.calibration_text, running.vocabulary)
    return spread(tokens, length, count)


def shape_of_tokens(running: Running, method: str) -> tuple[int, ...]:
    """What `sequences` has, without a model that writes."""
    if running.job.options.calibration_text is None:
        return shape_without_text(method, longest_of(running.config))
    return sequences(running, method).shape


def shape_without_text(method: str, longest: int) -> tuple[int, int]:
    """Sequences, and tokens of each, at most `longest`."""
    if method == "search":
        length = min(RANDOM, longest)
        return -(-RANDOM // length), length
    return WRITTEN[0], min(WRITTEN[1], longest)


def text_tokens(model_path: Path, path: Path, vocabulary: int) -> Array:
    if is_gguf(model_path):
        raise UserError(f"--calibration_text: {model_path} is a GGUF file, whose tokenizer is not read")
    tokens = np.array(Text(model_path).encode(read_text(path, TEXT_BYTES)), np.int64)
    if len(tokens) < 2 or tokens.max() >= vocabulary:
        problem = f"{len(tokens)} tokens, of which the largest is {tokens.max(initial=0)}"
        raise UserError(f"--calibration_text {path}: has {problem}; expected 2 or more, below {vocabulary}")
    return tokens


def spread(tokens: Array, length: int, most: int) -> Array:
    """Some of the whole sequences of a text, as many from each part of it; the text where it has none."""
    count = len(tokens) // length
    if count == 0:
        return tokens[None]
    whole = tokens[: count * length].reshape(count, length)
    some: Array = whole[np.linspace(0, count - 1, min(count, most)).astype(int)]
    return some
