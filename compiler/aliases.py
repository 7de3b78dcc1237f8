"""Checkpoints of models that transformers has by another name, with other keys in config.json and of tensors.

How each is that of a native model is data; the code that comes with such checkpoints is never run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compiler.diagnostics import UserError, shown


@dataclass(frozen=True)
class Alias:
    """A layout of checkpoints, and what takes its place."""

    model_type: str  # of the native model
    settings: Mapping[str, str]  # key of config.json to the native one, "part.key" in a part of it
    needed: Mapping[str, Any] = field(default_factory=dict)  # what keys must be, where they are there
    added: Mapping[str, Any] = field(default_factory=dict)  # native settings that the layout implies
    tensors: tuple[tuple[str, str], ...] = ()  # patterns of keys, and what takes the place of a match
    # Patterns of keys of tensors that are several in equal blocks of rows, and the keys of these.
    joined: tuple[tuple[str, tuple[str, ...]], ...] = ()


LAYER = r"vision_model\.encoder\.layers\.(\d+)\."
NATIVE_LAYER = r"model.vision_tower.encoder.layer.\1."

ALIASES = {
    # Source: the published checkpoints of InternVL 2.5 and 3, and transformers'
    # models/internvl/convert_internvl_weights_to_hf.py.
    "internvl_chat": Alias(
        "internvl",
        settings={
            "llm_config": "text_config",
            "llm_config.tie_word_embeddings": "tie_word_embeddings",  # whose native default is true
            "vision_config.qkv_bias": "vision_config.attention_bias",
            "vision_config.qk_normalization": "vision_config.use_qk_norm",
            "select_layer": "vision_feature_layer",
        },
        needed={"ps_version": "v2"},
        added={
            "tie_word_embeddings": False,
            "vision_config.model_type": "internvl_vision",
            "vision_config.use_absolute_position_embeddings": True,
        },
        tensors=(
            (r"vision_model\.embeddings\.class_embedding", "model.vision_tower.embeddings.cls_token"),
            (
                r"vision_model\.embeddings\.position_embedding",
                "model.vision_tower.embeddings.position_embeddings",
            ),
            (
                r"vision_model\.embeddings\.patch_embedding\.",
                "model.vision_tower.embeddings.patch_embeddings.projection.",
            ),
            (LAYER + r"attn\.proj\.", NATIVE_LAYER + "attention.projection_layer."),
            (LAYER + r"attn\.([qk]_norm)\.", NATIVE_LAYER + r"attention.\2."),
            (LAYER + r"norm1\.", NATIVE_LAYER + "layernorm_before."),
            (LAYER + r"norm2\.", NATIVE_LAYER + "layernorm_after."),
            (LAYER + r"ls([12])$", NATIVE_LAYER + r"lambda_\2"),
            (LAYER + r"mlp\.", NATIVE_LAYER + "mlp."),
            (r"mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
            (r"mlp1\.1\.", "model.multi_modal_projector.linear_1."),
            (r"mlp1\.3\.", "model.multi_modal_projector.linear_2."),
            (r"language_model\.model\.", "model.language_model."),
            (r"language_model\.lm_head\.", "lm_head."),
        ),
        joined=(
            (LAYER + r"attn\.qkv\.", tuple(NATIVE_LAYER + f"attention.{each}_proj." for each in "qkv")),
        ),
    ),
}


def native_settings(values: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """config.json as that of the native model; as it is, where it is one."""
    alias = ALIASES.get(str(values.get("model_type")))
    if alias is None:
        return values
    for key, wanted in alias.needed.items():
        if values.get(key, wanted) != wanted:
            found = shown(str(values[key]))
            raise UserError(f"{path}: {key} is {found}, where {wanted} is all that is supported")
    kept = {key: value for key, value in values.items() if key not in alias.settings}
    made: dict[str, Any] = {key: dict(part) if isinstance(part, dict) else part for key, part in kept.items()}
    for key, value in alias.added.items():
        put(made, key, value)
    for key, native in alias.settings.items():
        if (value := taken(values, key)) is not None:
            put(made, native, dict(value) if isinstance(value, dict) else value)
    return {**made, "model_type": alias.model_type}


def taken(values: Mapping[str, Any], key: str) -> Any:
    """The value of "key" or "part.key", None without one."""
    part, _, name = key.rpartition(".")
    inner = values.get(part) if part else values
    return inner.get(name) if isinstance(inner, Mapping) else None


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set "key" or, where there is such a part, "part.key"."""
    part, _, name = key.rpartition(".")
    inner = values.get(part) if part else values
    if isinstance(inner, dict):
        inner[name] = value


def native_keys(alias: Alias, key: str) -> list[str]:
    """The keys that a tensor of the layout has in the native model: several where it is as many in equal
    blocks of rows.
    """
    for pattern, names in alias.joined:
        if re.match(pattern, key):
            return [re.sub(pattern, name, key, count=1) for name in names]
    for pattern, name in alias.tensors:
        if re.match(pattern, key):
            return [re.sub(pattern, name, key, count=1)]
    return [key]
