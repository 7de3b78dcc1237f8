"""The config.json of a checkpoint: read, and refused where the model cannot be compiled."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.diagnostics import UserError

TESTED_TYPES = ("llama", "qwen2", "qwen3")
HEAD_UNIT = 32  # 16-bit items that a row of a matrix in local memory is a multiple of
WIDTHS = ("hidden_size", "intermediate_size")  # input widths of a decoder's linear layers


@dataclass(frozen=True)
class ModelConfig:
    """config.json of one checkpoint. `values` is the JSON object as read."""

    folder: Path
    values: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / "config.json"

    @property
    def model_type(self) -> str:
        return str(self.values["model_type"])

    @property
    def max_positions(self) -> int | None:
        """Tokens the model was made for, prompt and answer together; None when config.json does not say."""
        return _positive(self.values.get("max_position_embeddings"))

    @property
    def dtype(self) -> str | None:
        """The type that config.json gives the weights, as in 'bfloat16'; the tensors may differ."""
        name = self.values.get("dtype", self.values.get("torch_dtype"))
        return str(name).removeprefix("torch.") if name else None

    def linear_inputs(self) -> dict[str, int]:
        """What config.json says of the input widths of the linear layers, by the name of the field."""
        widths = {name: _positive(self.values.get(name)) for name in WIDTHS}
        heads, size = (_positive(self.values.get(name)) for name in ("num_attention_heads", "head_dim"))
        widths["num_attention_heads * head_dim"] = heads * size if heads and size else None
        return {name: width for name, width in widths.items() if width}

    def check_length(self, seq_length: int) -> None:
        """Refuse a sequence that is longer than the model's positions."""
        limit = self.max_positions
        if limit is not None and seq_length > limit:
            raise UserError(f"-s {seq_length} is more than max_position_embeddings {limit} of {self.path}")

    def check_group(self, group: int) -> None:
        """Refuse a quantization group that does not divide the input of every linear layer."""
        for name, width in self.linear_inputs().items():
            if width % group:
                raise UserError(
                    f"-g {group} does not divide {name} = {width} ({self.path})\n"
                    f"groups that do: {', '.join(map(str, self._dividing_groups()))}"
                )

    def check_widths(self, lanes: int) -> None:
        """Refuse vectors that do not fill whole rows of `lanes`; widths that config.json does not name
        pass here.
        """
        values = self.values
        hidden, heads = _positive(values.get("hidden_size")), _positive(values.get("num_attention_heads"))
        kv_heads = _positive(values.get("num_key_value_heads")) or heads
        size = _positive(values.get("head_dim")) or (hidden // heads if hidden and heads else None)
        if hidden and hidden % lanes:
            raise UserError(
                f"hidden_size {hidden} of {self.path} is not a multiple of {lanes}, as it must be"
            )
        if size and size % HEAD_UNIT:
            raise UserError(
                f"head size {size} of {self.path} is not a multiple of {HEAD_UNIT}, as it must be"
            )
        for name, count in (("num_attention_heads", heads), ("num_key_value_heads", kv_heads)):
            if size and count and count * size % lanes:
                width = f"{name} {count} x head size {size}"
                raise UserError(f"{width} of {self.path} is not a multiple of {lanes}, as it must be")

    def _dividing_groups(self) -> list[int]:
        widths = self.linear_inputs().values()
        return [group for group in (16, 32, 64, 128, 256) if not any(width % group for width in widths)]


def read_config(folder: Path) -> ModelConfig:
    """Read config.json of a checkpoint folder and refuse what cannot be compiled, with a UserError."""
    _check_folder(folder)
    config = ModelConfig(folder, read_json_object(folder / "config.json"))
    check_model_type(config)
    _check_unquantized(config)
    return config


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; UserError names the file and, in bad JSON, the line."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {path.name} in {path.parent}: is it a Hugging Face checkpoint?") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _check_folder(folder: Path) -> None:
    try:
        next(folder.iterdir(), None)
    except FileNotFoundError:
        raise UserError(f"no folder {folder}: -m expects the folder of a Hugging Face checkpoint") from None
    except NotADirectoryError:
        raise UserError(f"{folder} is a file: -m expects the folder of a Hugging Face checkpoint") from None
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def check_model_type(config: ModelConfig) -> None:
    """Refuse a model_type that transformers has no decoder for; the checkpoint's own code is never run.

    The tracer refuses later, by name, what it does not understand of those that it has.
    """
    model_type = config.values.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(f"{config.path} has no model_type, which says what the model is (such as llama)")
    if model_type in TESTED_TYPES:  # saves importing transformers
        return
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if model_type in known:
        return
    near = difflib.get_close_matches(model_type, sorted(known), n=3)
    hint = f", among them {', '.join(near)}" if near else ""
    raise UserError(
        f"{config.path}: unknown model_type '{model_type}'\n"
        f"known: {', '.join(TESTED_TYPES)}, and untested the other {len(known - set(TESTED_TYPES))} "
        f"causal language models of transformers{hint}"
    )


def _check_unquantized(config: ModelConfig) -> None:
    for key in ("quantization_config", "compression_config"):
        settings = config.values.get(key)
        if settings:
            method = settings.get("quant_method", "unknown") if isinstance(settings, dict) else settings
            raise UserError(
                f"{config.path}: the checkpoint is quantized already ({method}), which is not supported yet\n"
                "give the float checkpoint it was made from: -q quantizes it"
            )


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
