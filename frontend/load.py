"""A checkpoint folder to the traced model and its bound weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compiler.ir.types import ElementType
from frontend.binding import Weights, bind, expected_of
from frontend.checkpoint import Checkpoint
from frontend.config import ModelConfig, read_config
from frontend.imported import ImportedModel
from frontend.sources.find import Found, find_sources, take_over
from frontend.sources.form import Form, form_of


@dataclass(frozen=True)
class OpenedModel:
    """What a folder holds, by its config.json and the names and shapes of its tensors."""

    config: ModelConfig
    found: Found

    @property
    def form(self) -> Form:
        return form_of(self.found.sources.values())


def open_model(folder: Path) -> OpenedModel:
    """UserError for what can be told to be wrong without the model itself."""
    config = read_config(folder)
    checkpoint = Checkpoint(folder)
    config.check_sizes({key: tensor.shape for key, tensor in checkpoint.items()})
    return OpenedModel(config, find_sources(checkpoint, config.settings))


def load_model(
    opened: OpenedModel, seq_length: int, input_length: int, half: ElementType
) -> tuple[ImportedModel, Weights]:
    """The model traced for prompts of `input_length` tokens and caches of `seq_length`, computing in `half`;
    and its parameters, each read when asked for. Only here are torch and transformers imported.
    """
    from frontend.build import native_model
    from frontend.importer import import_model

    config, found = opened.config, opened.found
    native = native_model(dict(config.values))
    sources = take_over(found, config.settings, half)
    weights = bind(sources, config.folder, expected_of(native), half.numpy, found.problems)
    return import_model(native, seq_length, input_length, half, weights.schemes, weights.orders), weights
