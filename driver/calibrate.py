"""How large the inputs of the weights are that become codes, on random tokens or those of a text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compiler.diagnostics import UserError
from compiler.files import read_text
from compiler.progress import note
from compiler.weights.part import parameter_of
from compiler.weights.stored import Array, Floats
from dialects.weights import Packed, view_of_name
from driver.groups import table_of
from driver.job import Job
from frontend.build import native_model
from frontend.calibration import mean_squares
from frontend.gguf import is_gguf
from frontend.load import OpenedModel
from runtime_sim.tokens.text import Text

RANDOM = (4, 128)  # sequences and tokens: with SmolLM2-135M, four times as many gained nothing
TEXT_SEQUENCES, TEXT_TOKENS = 16, 512  # spread over a longer text
TEXT_BYTES = 64 << 20


def measured(job: Job, opened: OpenedModel) -> dict[str, Floats]:
    """The mean square of the inputs of each parameter by its full name; nothing where none becomes codes."""
    options = job.options
    if options.calibrate == "none" or not any(rounded(job)):
        return {}
    tokens = sequences(job, opened.config.max_positions or TEXT_TOKENS)
    note(f"run {options.model_path} on {tokens.size} tokens")
    native = native_model(dict(opened.config.values), options.seq_length, "eager", "eager")
    return mean_squares(native, job.weights, tokens, options.job_count)


def rounded(job: Job) -> Iterator[str]:
    """The full names of parameters that are floats in the checkpoint and codes in the file."""
    for group in job.nets:
        for instance in group.instances:
            for piece in job.pieces(group.module, instance):
                if isinstance(piece.source, Packed) and piece.source.tile.scheme is not None:
                    names = (view_of_name(name).tensor for name in piece.source.names)
                    made = {parameter_of(instance.parameter_name(name)) for name in names}
                    yield from sorted(made - job.weights.schemes.keys())


def sequences(job: Job, longest: int) -> Array:
    """Token numbers [sequences, tokens], each of at most `longest`: random ones unless there is a text."""
    vocabulary = table_of(job.model).y.type.shape[0]
    path, model_path = job.options.calibration_text, job.options.model_path
    if path is None:
        count, length = RANDOM
        return np.random.default_rng(0).integers(0, vocabulary, (count, min(length, longest)), np.int64)
    if is_gguf(model_path):
        raise UserError(f"--calibration_text: {model_path} is a GGUF file, whose tokenizer is not read")
    tokens = np.array(Text(model_path).encode(read_text(path, TEXT_BYTES)), np.int64)
    if len(tokens) < 2 or tokens.max() >= vocabulary:
        problem = f"{len(tokens)} tokens, of which the largest is {tokens.max(initial=0)}"
        raise UserError(f"--calibration_text {path}: has {problem}; expected 2 or more, below {vocabulary}")
    return spread(tokens, min(TEXT_TOKENS, longest))


def spread(tokens: Array, length: int) -> Array:
    """Some of the whole sequences of a text, as many from each part of it; the text where it has none."""
    count = len(tokens) // length
    if count == 0:
        return tokens[None]
    whole = tokens[: count * length].reshape(count, length)
    chosen: Array = whole[np.linspace(0, count - 1, min(count, TEXT_SEQUENCES)).astype(int)]
    return chosen
