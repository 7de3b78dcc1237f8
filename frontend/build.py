"""The transformers class of a config.json, built without memory for its weights."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import frontend.library  # noqa: F401

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)
from transformers.utils import logging as library_log

from compiler.diagnostics import UserError, shown
from compiler.model_settings import computing
from frontend.hooks import ATTENTION_NAME, EXPERTS_NAME

ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")
ROPE_SETTINGS = ("rope_scaling", "rope_parameters")

LARGEST_BUFFER = 1 << 26  # numbers; a mask over 8,192 positions
LONGEST_REASON = 300  # characters of the library's message in one of ours


def native_model(
    config: dict[str, Any], seq_length: int, attention: str = ATTENTION_NAME, experts: str = EXPERTS_NAME
) -> nn.Module:
    """The model in evaluation mode: parameters on the meta device, buffers real, everything float32.

    Its rotary frequencies are those of a conversation of `seq_length` tokens, however short a run of it is.

    Never runs code of the checkpoint: the class is chosen by `model_type` among those of transformers.
    Raises UserError for a model type that is unknown, and for values the library refuses.
    """
    model_type = config.get("model_type")
    check_model_type(model_type)
    with parameters_on_meta(), BoundedBuffers(), quiet():
        try:
            made = AutoConfig.for_model(**computing(config))
            fix_frequencies(made, seq_length)
            model: nn.Module = auto_class(config).from_config(
                made,
                dtype=torch.float32,
                attn_implementation=attention,
                experts_implementation=experts,
            )
        except Exception as error:
            why = unknown_word(config) or reason(error)
            raise UserError(f"config.json: cannot build the {model_type} model: {why}") from error
    return model.eval().requires_grad_(False)


def auto_class(config: dict[str, Any]) -> Any:
    """What builds the class of a model: one that sees if its configuration has a part for that."""
    can_see = config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    sees = can_see and "vision_config" in config
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def fix_frequencies(config: Any, seq_length: int) -> None:
    """Have longrope's factors for conversations of that length, in runs of any.

    The library goes by the tokens so far: `Phi3ForCausalLM.prepare_inputs_for_generation` forgets the keys
    when the factors change. A compiled program has one table, as vLLM has one for its max_model_len.
    """
    settings = getattr(config.get_text_config(), "rope_parameters", None) or {}
    for each in (settings, *settings.values()):  # which may be an object for each kind of layer
        if isinstance(each, dict) and each.get("rope_type") == "longrope":
            if seq_length > each["original_max_position_embeddings"]:
                each["short_factor"] = each["long_factor"]


def reason(error: Exception) -> str:
    if error.args == (ATTENTION_NAME,):
        # From a table of attention classes by name, older than the library's one interface for all.
        return "its attention does not use the library's attention interface"
    return textwrap.shorten(str(error), LONGEST_REASON)


def unknown_word(config: dict[str, Any]) -> str | None:
    """A value that the library knows by name, and does not know; its own message is that of a KeyError."""
    words = {key: (config.get(key), set(ACT2FN)) for key in ACTIVATIONS}
    for key in ROPE_SETTINGS:
        settings = config.get(key)
        if isinstance(settings, dict):
            kind = "rope_type" if "rope_type" in settings else "type"
            words[f"{key}.{kind}"] = (settings.get(kind), {"default", *ROPE_INIT_FUNCTIONS})
    for key, (word, known) in words.items():
        if isinstance(word, str) and word not in known:
            names = textwrap.shorten(", ".join(sorted(known)), LONGEST_REASON)
            return f"{key} is '{shown(word)}', which is unknown\nknown: {names}"
    return None


def check_model_type(model_type: Any) -> None:
    """A folder's config.json has been checked with more words; this is for others."""
    if model_type not in {**MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, **MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}:
        raise UserError(f"config.json: unknown model_type {model_type!r}")


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules built meanwhile keep the shapes of their parameters only, and the library is told not to fill
    these; buffers are computed as usual.

    Building everything on the meta device instead would lose the buffers, rotary frequencies among them.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta":
            param = nn.Parameter(param.to("meta"), requires_grad=False)
            param._is_hf_initialized = True  # type: ignore[attr-defined]
        register(module, name, param)

    with patch.object(nn.Module, "register_parameter", register_on_meta):
        yield


class BoundedBuffers(TorchFunctionMode):
    """Refuses large real arrays, such as the [positions, positions] masks that some classes build."""

    MAKERS = frozenset({torch.arange, torch.ones, torch.zeros, torch.full})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.MAKERS:
            count = func(*args, **{**kwargs, "device": "meta"}).numel()
            if count > LARGEST_BUFFER:
                raise ValueError(f"it keeps {count} numbers beside its weights, more than {LARGEST_BUFFER}")
        return func(*args, **kwargs)


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of the library about a configuration are errors of ours, or nobody's business."""
    logging: Any = library_log
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
