"""The transformers class of a config.json, built without memory for its weights."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from compiler.diagnostics import UserError
from compiler.frontend.hooks import ATTENTION_NAME

# Keys of config.json that say how weights are stored or who wrote the code, not what the model computes.
STORAGE_KEYS = ("quantization_config", "auto_map", "dtype", "torch_dtype", "attn_implementation")


def native_model(config: dict[str, Any]) -> nn.Module:
    """The model in evaluation mode: parameters on the meta device, buffers real, everything float32.

    Never runs code of the checkpoint: the class is chosen by `model_type` among those of transformers.
    Raises UserError for a model type that is unknown, and for values the library refuses.
    """
    model_type = config.get("model_type")
    check_model_type(model_type)
    settings = {key: value for key, value in config.items() if key not in STORAGE_KEYS}
    with parameters_on_meta(), quiet():
        try:
            made = transformers.AutoConfig.for_model(**settings)
            model: nn.Module = transformers.AutoModelForCausalLM.from_config(
                made, dtype=torch.float32, attn_implementation=ATTENTION_NAME
            )
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(f"config.json: cannot build the {model_type} model: {reason}") from error
    return model.eval().requires_grad_(False)


def check_model_type(model_type: Any) -> None:
    known = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if model_type in known:
        return
    near = difflib.get_close_matches(str(model_type), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "such as llama, qwen2, qwen3, gemma or mistral"
    raise UserError(
        f"config.json: model_type {model_type!r} is not among the {len(known)} causal language models "
        f"of transformers {transformers.__version__} ({hint})"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder as a dict; UserError when it is missing or no JSON object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules built meanwhile keep the shapes of their parameters only; buffers are computed as usual.

    Building everything on the meta device instead would lose the buffers, rotary frequencies among them.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of the library about a configuration are errors of ours, or nobody's business."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
