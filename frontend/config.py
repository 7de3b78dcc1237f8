"""The config.json of a checkpoint: read, and refused where the model cannot be compiled."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import Any

from compiler.aliases import native_settings
from compiler.diagnostics import UserError, shown
from compiler.files import checkpoint_root, read_json_object
from frontend.folder import check_folder
from frontend.rules import check_numbers
from frontend.sources.settings import Settings, read_settings

# Each is a row of `make architectures`.
TESTED_TYPES = (
    "cohere", "cohere2", "deepseek_v3", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text",
    "glm4", "gpt_neox", "gpt_oss", "granite", "hunyuan_v1_dense", "internlm3", "llama", "minicpm3",
    "ministral3", "mistral", "mixtral", "nemotron", "olmo", "olmo2", "olmo3", "opt", "phi", "phi3",
    "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
SEEING_TYPES = ("internvl", "internvl_chat", "qwen2_5_vl")  # tested as well, of models that see
WIDTHS = ("hidden_size", "intermediate_size")  # input widths of a decoder's linear layers
SIZES = (*WIDTHS, "vocab_size", "head_dim", "num_attention_heads", "num_key_value_heads")
GROUPS = (16, 32, 64, 128, 256)  # proposed to users; where none of them divides all widths, others between
SMALLEST_GROUP = 8  # of those: a scale takes as much room as four weights of 4 bits
LONGROPE = ("longrope", "su")  # rope types whose frequencies change at the original length; su is an old name
SENSES = {"vision_config": "sees", "audio_config": "hears"}  # parts of models that do more than read
DECODERS = ("text_config", "llm_config", "language_config")  # where such models keep those of the decoder


@dataclass(frozen=True)
class ModelConfig:
    """config.json of one checkpoint. `values` is the JSON object as read."""

    folder: Path
    values: Mapping[str, Any]
    settings: Settings | None = None  # how weights are stored, where they are not floats
    stored_type: str = ""  # the model_type that the file has, where `values` are those of another

    @property
    def text(self) -> Mapping[str, Any]:
        """What it says of the decoder, which models of several parts may keep apart."""
        parts = (self.values.get(key) for key in DECODERS)
        return next((part for part in parts if isinstance(part, dict)), self.values)

    @property
    def sees(self) -> bool:
        return isinstance(self.values.get("vision_config"), dict)

    @property
    def path(self) -> Path:
        return self.folder / "config.json"

    @property
    def model_type(self) -> str:
        return str(self.values["model_type"])

    @property
    def max_positions(self) -> int | None:
        """Tokens the model was made for, prompt and answer together; None when config.json does not say."""
        return _positive(self.text.get("max_position_embeddings"))

    @property
    def dtype(self) -> str | None:
        """The type that config.json gives the weights, as in 'bfloat16'; the tensors may differ."""
        parts = (self.values, self.text)
        name = next((each[key] for each in parts for key in ("dtype", "torch_dtype") if each.get(key)), None)
        return str(name).removeprefix("torch.") if name else None

    def linear_inputs(self) -> dict[str, int]:
        """What config.json says of the input widths of the linear layers, by the name of the field."""
        widths = {name: _positive(self.text.get(name)) for name in WIDTHS}
        heads, size = (_positive(self.text.get(name)) for name in ("num_attention_heads", "head_dim"))
        widths["num_attention_heads * head_dim"] = heads * size if heads and size else None
        return {name: width for name, width in widths.items() if width}

    @property
    def rope(self) -> Mapping[str, Any]:
        """The settings of rotary positions that all layers share, empty when config.json has none."""
        found = self.text.get("rope_scaling") or self.text.get("rope_parameters")
        return found if isinstance(found, dict) else {}

    @property
    def rope_type(self) -> str:
        return str(self.rope.get("rope_type", self.rope.get("type", "default")))

    @property
    def original_positions(self) -> int | None:
        """The positions that the model had before its rotary frequencies were stretched."""
        key = "original_max_position_embeddings"
        return _positive(self.text.get(key)) or _positive(self.rope.get(key)) or self.max_positions

    @property
    def stretched_positions(self) -> int:
        """What yarn makes of the original positions, whether or not max_position_embeddings says so; or 0."""
        factor = self.rope.get("factor")
        if self.rope_type != "yarn" or not isinstance(factor, int | float):
            return 0
        return int(factor * (self.original_positions or 0))

    def check_length(self, seq_length: int) -> None:
        """Refuse a sequence that is longer than the model's positions."""
        limit, stretched = self.max_positions, self.stretched_positions
        if limit is not None and seq_length > max(limit, stretched):
            source = "max_position_embeddings" if limit >= stretched else "original positions x factor ="
            raise UserError(f"-s {seq_length} is more than {source} {max(limit, stretched)} of {self.path}")

    def by_long_factors(self, seq_length: int) -> bool:
        """Whether longrope has its other factors, those for more than the original length."""
        return self.rope_type in LONGROPE and seq_length > (self.original_positions or seq_length)

    def check_group(self, group: int, bits: int) -> None:
        """Refuse inputs of linear layers that are not whole groups of that many weights of `bits` bits."""
        widths = self.linear_inputs()
        for name, width in widths.items():
            if width % group:
                advice = groups_for(widths.values())
                raise UserError(f"-g {group} does not divide {name} = {width} ({self.path})\n{advice}")
            if width * bits % 8:
                raise UserError(
                    f"{name} = {width} ({self.path}) is odd, and rows of {bits}-bit weights fill whole "
                    "bytes\nuse another -q, such as w8bf16"
                )

    def check_heads(self) -> None:
        """Refuse counts of heads that do not divide what is shared out among them."""
        values = self.text
        hidden, heads = _positive(values.get("hidden_size")), _positive(values.get("num_attention_heads"))
        kv_heads = _positive(values.get("num_key_value_heads"))
        if heads and kv_heads and heads % kv_heads:
            raise UserError(
                f"{self.path}: num_attention_heads {heads} is not a multiple of "
                f"num_key_value_heads {kv_heads}"
            )
        if heads and hidden and not values.get("head_dim") and hidden % heads:
            raise UserError(
                f"{self.path}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}, "
                "and no head_dim says how wide a head is"
            )

    def check_devices(self, devices: int, most: int) -> None:
        """Refuse models that see, and counts of heads of which not every device can have as many as the
        others: a head of keys and values is read by one device, or by some that read no other. `most` is how
        many there can be.
        """
        if self.sees:
            raise UserError(f"--num_device {devices}: a model that sees ({self.path}) is for one device")
        heads = _positive(self.text.get("num_attention_heads"))
        kv_heads = _positive(self.text.get("num_key_value_heads")) or heads
        if heads and heads % devices:
            told = f"num_attention_heads = {heads}"
        elif kv_heads and kv_heads % devices and devices % kv_heads:
            told = f"num_key_value_heads = {kv_heads}"
        else:
            return
        possible = [n for n in range(2, most + 1) if not (heads or n) % n]
        possible = [n for n in possible if not (kv_heads or n) % n or not n % (kv_heads or n)]
        hint = f"possible are {', '.join(map(str, possible))}" if possible else "only 1 is possible"
        raise UserError(f"--num_device {devices}: does not divide {told} ({self.path}); {hint}")

    def check_sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse sizes that the tensors of the checkpoint cannot have, before a model of them is built."""
        widest = max((max(shape, default=1) for shape in shapes.values()), default=0)
        for key in SIZES:
            size = _positive(self.text.get(key))
            if size and size > widest:
                raise UserError(
                    f"{self.path}: {key} is {size}, but no tensor of the checkpoint is wider than {widest}"
                )
        layers = _positive(self.text.get("num_hidden_layers"))
        if layers and layers > len(shapes):
            raise UserError(
                f"{self.path}: num_hidden_layers is {layers}, but the checkpoint has {len(shapes)} tensors"
            )


def read_config(folder: Path) -> ModelConfig:
    """Read config.json of a checkpoint folder and refuse what cannot be compiled, with a UserError."""
    check_folder(folder)
    values = read_json_object(folder / "config.json", checkpoint_root(folder))
    config = ModelConfig(folder, native_settings(values, folder / "config.json"))
    config = replace(config, stored_type=str(values.get("model_type")))
    check_model_type(config)
    check_numbers(config.values, config.path)
    config.check_heads()
    return replace(config, settings=read_settings(folder, config.values))


def check_model_type(config: ModelConfig) -> None:
    """Refuse a model_type that transformers has no decoder for; the checkpoint's own code is never run.

    The tracer refuses later, by name, what it does not understand of those that it has.
    """
    model_type = config.values.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(f"{config.path} has no model_type, which says what the model is (such as llama)")
    if model_type in TESTED_TYPES:  # saves importing transformers
        return _check_flat(config)
    if model_type in SEEING_TYPES:
        return
    from transformers.models.auto import modeling_auto as auto

    known = {*auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    if model_type in known:
        return
    name = shown(model_type)
    for key, does in SENSES.items():
        if isinstance(config.values.get(key), dict):
            raise UserError(
                f"{config.path}: a model that {does} ({key}, model_type {name}) is not supported yet"
            )
    near = difflib.get_close_matches(model_type[:60], sorted(known), n=3)
    hint = f", among them {', '.join(near)}" if near else ""
    raise UserError(
        f"{config.path}: unknown model_type '{name}'\n"
        f"llm_convert.py --list has the {len(known)} that are known{hint}"
    )


def _check_flat(config: ModelConfig) -> None:
    """The decoders that are known here have all settings in one object."""
    for key in (*DECODERS, *SENSES):
        if isinstance(config.values.get(key), dict):
            raise UserError(
                f"{config.path} has {key}, which model_type {config.model_type} does not know: "
                "models of several parts are not supported yet"
            )


def groups_for(widths: Iterable[int]) -> str:
    """What to do when a group does not divide all of these widths."""
    common = gcd(*widths)
    good = [size for size in GROUPS if common % size == 0]
    good = good or [size for size in range(SMALLEST_GROUP, GROUPS[-1] + 1) if common % size == 0]
    if not good:
        return f"no group of {SMALLEST_GROUP} to {GROUPS[-1]} weights does for all: use -q bf16 or -q f16"
    return f"groups that do: {', '.join(map(str, good))}"


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
