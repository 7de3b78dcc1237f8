"""A checkpoint folder to the traced model and its bound weights."""

from __future__ import annotations

from pathlib import Path

from compiler.ir.types import ElementType
from frontend.binding import Weights, bind, expected_of
from frontend.checkpoint import Checkpoint
from frontend.config import read_config
from frontend.imported import ImportedModel


def load_model(
    folder: Path, seq_length: int, input_length: int, half: ElementType
) -> tuple[ImportedModel, Weights]:
    """The model traced for prompts of `input_length` tokens and caches of `seq_length`, computing in `half`;
    and its parameters, each read when asked for. Only here are torch and transformers imported.
    """
    from frontend.build import native_model
    from frontend.importer import import_model

    checkpoint = Checkpoint(folder)
    config = read_config(folder)
    config.check_sizes({key: tensor.shape for key, tensor in checkpoint.items()})
    native = native_model(dict(config.values))
    weights = bind(checkpoint, folder, expected_of(native), half.numpy)
    return import_model(native, seq_length, input_length, half, weights.schemes), weights
