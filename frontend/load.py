"""A checkpoint to the traced model and its bound weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from compiler.gguf import GgufFile, read_gguf
from compiler.ir.types import ElementType
from frontend.aliases import native_tensors
from frontend.binding import Weights, bind, expected_of
from frontend.checkpoint import Checkpoint
from frontend.config import ModelConfig, read_config
from frontend.gguf import GgufParameters, config_of, form_of_file, is_gguf
from frontend.imported import ImportedModel
from frontend.sources.find import Found, find_sources, take_over
from frontend.sources.form import Form, form_of


class OpenedModel(Protocol):
    """What a checkpoint holds, as far as that can be told without the model itself."""

    @property
    def config(self) -> ModelConfig:
        """What it says of the model."""

    @property
    def form(self) -> Form:
        """How it has most of its weights."""

    def weights(self, model: Any, half: ElementType) -> Weights:
        """The parameters of a transformers model, for a program in `half`."""


@dataclass(frozen=True)
class OpenedFolder:
    """A folder, by its config.json and the names and shapes of its tensors."""

    config: ModelConfig
    found: Found

    @property
    def form(self) -> Form:
        return form_of(self.found.sources.values())

    def weights(self, model: Any, half: ElementType) -> Weights:
        sources = take_over(self.found, self.config.settings, half)
        return bind(sources, self.config.folder, expected_of(model), half.numpy, self.found.problems)


@dataclass(frozen=True)
class OpenedGguf:
    """A GGUF file, by what stands before its data."""

    config: ModelConfig
    file: GgufFile

    @property
    def form(self) -> Form:
        return form_of_file(self.file)

    def weights(self, model: Any, half: ElementType) -> Weights:
        sources = GgufParameters(self.file, self.config, model, half.numpy).sources()
        return bind(sources, self.file.path, expected_of(model), half.numpy)


def open_model(path: Path) -> OpenedModel:
    """UserError for what can be told to be wrong without the model itself."""
    if is_gguf(path):
        file = read_gguf(path)
        opened = OpenedGguf(config_of(file), file)
        opened.config.check_sizes({name: tensor.shape for name, tensor in file.tensors.items()})
        return opened
    config = read_config(path)
    checkpoint = Checkpoint(path)
    config.check_sizes({key: tensor.shape for key, tensor in checkpoint.items()})
    tensors = native_tensors(checkpoint, config.stored_type)
    return OpenedFolder(config, find_sources(tensors, config.settings))


def load_model(
    opened: OpenedModel,
    seq_length: int,
    input_length: int,
    half: ElementType,
    shorter: Sequence[int] = (),
    pixels: Sequence[int] = (),
    patches: int = 0,
) -> tuple[ImportedModel, Weights]:
    """The model traced for prompts of `input_length` tokens and caches of `seq_length`, computing in `half`,
    with stages of decode for `shorter` histories; and its parameters, each read when asked for. A tower for
    pictures of any size takes those of up to so many pixels, as a number or height and width, or of so many
    `patches`. Only here are torch and transformers imported.
    """
    from frontend.build import native_model
    from frontend.importer import import_model
    from frontend.max_pixels import check_prompt, patches_within

    native = native_model(dict(opened.config.values), seq_length)
    weights = opened.weights(native, half)
    patches = patches or patches_within(native, pixels)
    model = import_model(
        native, seq_length, input_length, half, weights.schemes, weights.orders, shorter, patches
    )
    check_prompt(model, input_length)
    return model, weights
