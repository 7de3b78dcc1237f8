"""A GGUF file as a checkpoint: its config, its parameters, and what clients need of it.

The only file that touches the library's tables for GGUF (transformers.modeling_gguf_pytorch_utils, 5.x). They
are not documented as public, an update may change them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Kind

from compiler.diagnostics import UserError, log, shown
from compiler.files import write_text
from compiler.gguf import SUFFIX, GgufFile, GgufTensor, read_gguf
from compiler.gguf_settings import settings_left_out
from frontend.config import ModelConfig, check_model_type
from frontend.rules import check_numbers
from frontend.sources.blocks import FLOATS, SCHEMES, CodeBlocks, FloatBlocks
from frontend.sources.form import Form, by_size
from frontend.sources.source import Source

OTHER_SECTIONS = ("general", "tokenizer")  # of the library's table, beside architectures
# Architectures that the library calls otherwise, and models that it has as a part of larger ones.
MODEL_TYPES = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "gpt-oss": "gpt_oss"}
TEXT_PARTS = ("gemma3", "gemma4")
LAYERS = "blk."  # what the names of the layers' tensors begin with
FEW_BITS = 5.5  # of a weight in blocks: fewer are read as floats for programs of 4 bits, others of 8
KEPT = ", ".join(kind.name for kind in SCHEMES)


def is_gguf(path: Path) -> bool:
    return path.suffix == SUFFIX and not path.is_dir()


@dataclass(frozen=True)
class GgufConfig(ModelConfig):
    """Messages name the file, where others name config.json."""

    @property
    def path(self) -> Path:
        return self.folder


def config_of(file: GgufFile) -> GgufConfig:
    """What the file says of the model, as transformers reads it; UserError for what it does not read."""
    config = GgufConfig(file.path, _settings(file))
    check_model_type(config)
    check_numbers(config.values, config.path)
    config.check_heads()
    return config


def _settings(file: GgufFile) -> dict[str, Any]:
    """The values of a config.json, by the library's table of names and `settings_left_out`."""
    architecture = file.architecture
    model_type = MODEL_TYPES.get(architecture, architecture)
    table = _table(file.path, architecture, model_type)
    values: dict[str, Any] = {"model_type": f"{model_type}_text" if model_type in TEXT_PARTS else model_type}
    for key, value in file.metadata.items():
        section, _, name = key.partition(".")
        renamed = table.get(section, {}).get(name)
        if renamed is not None:
            values[renamed] = value
    if "tokenizer.ggml.tokens" in file.metadata:
        values.setdefault("vocab_size", file.metadata["tokenizer.ggml.tokens"])
    values["tie_word_embeddings"] = "output.weight" not in file.tensors
    if model_type == "stablelm":  # its tensors tell
        values["use_qkv_bias"] = any(name.endswith("attn_q.bias") for name in file.tensors)
        values["use_parallel_residual"] = not any("ffn_norm" in name for name in file.tensors)
    return values | settings_left_out(file)


def _table(path: Path, architecture: str, model_type: str) -> dict[str, dict[str, str]]:
    """What keys of a file's metadata are called in config.json, by their first word."""
    known = _tables()
    if model_type not in architectures():
        raise UserError(
            f"{path}: transformers does not read architecture {shown(architecture)!r} from GGUF\n"
            f"it reads {', '.join(architectures())}"
        )
    return {
        architecture: known[model_type],
        "tokenizer": known["tokenizer"],
    }


def _tables() -> Mapping[str, Any]:
    """The library's names of settings, by architecture."""
    from transformers.integrations import ggml

    found: Mapping[str, Any] = ggml.GGUF_CONFIG_MAPPING
    return found


def architectures() -> list[str]:
    """Those that the library reads, by its own names."""
    return sorted(set(_tables()) - set(OTHER_SECTIONS))


def form_of_file(file: GgufFile) -> Form:
    """By the matrices of the layers: the embedding is read as floats, and so is a head that is no codes."""
    sizes: dict[Kind, int] = {}
    for tensor in file.tensors.values():
        if tensor.name.startswith(LAYERS) and len(tensor.shape) > 1:
            sizes[tensor.kind] = sizes.get(tensor.kind, 0) + tensor.nbytes
    kinds = by_size(sizes)
    kept = [SCHEMES[kind] for kind in kinds if kind in SCHEMES]
    others = [kind for kind in kinds if kind not in SCHEMES and kind not in FLOATS]
    return Form(
        "f16" if kinds and kinds[0] == Kind.F16 else "bf16",
        tuple(dict.fromkeys(scheme.bits for scheme in kept)),
        tuple(dict.fromkeys(scheme.group for scheme in kept)),
        (4 if bits_of(others[0]) < FEW_BITS else 8) if others else None,
    )


def bits_of(kind: Kind) -> float:
    """Of a weight, scales included."""
    values, size = GGML_QUANT_SIZES[kind]
    return 8 * size / values


class GgufParameters:
    """The tensors of a file as parameters of a transformers model, whose memory is not needed."""

    def __init__(
        self, file: GgufFile, config: ModelConfig, model: Any, half: np.dtype[Any] | None = None
    ) -> None:
        """`half` is the type that tables are rounded to, None for as they are."""
        self.file = file
        self.config = config
        self.model = model
        self.half = half

    def sources(self) -> dict[str, Source]:
        """By the names of parameters; tensors that are none are left out, as the library does."""
        names = self._names
        found = {
            names[name]: self._source(tensor, names[name])
            for name, tensor in self.file.tensors.items()
            if name in names
        }
        note_left_out(self.file.path, [name for name in self.file.tensors if name not in names])
        note_dequantized(found.values())
        return found

    @cached_property
    def _processor(self) -> Any:
        """What undoes the changes that llama.cpp's converter makes to values."""
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        kind: Any = TENSOR_PROCESSORS.get(self.file.architecture, TensorProcessor)
        return kind(config=dict(self.config.values))

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """The model's parameters by the names of the file's tensors."""
        import gguf

        known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
        number = known[self.file.architecture]
        names = gguf.get_tensor_name_map(number, int(self.model.config.num_hidden_layers))
        found = {}
        for parameter in self.model.state_dict():
            name = names.get_name(parameter, try_suffixes=(".weight", ".bias"))
            if name is not None:
                found[name] = parameter
        return found

    @cached_property
    def _linears(self) -> frozenset[str]:
        """The weights that only linears read, which may stay codes."""
        from torch import nn

        modules = self.model.named_modules()
        names = {f"{name}.weight" for name, module in modules if isinstance(module, nn.Linear)}
        return frozenset(names - set(self.model.all_tied_weights_keys))

    def _source(self, tensor: GgufTensor, name: str) -> Source:
        order, added = self._change(tensor)
        if tensor.kind in SCHEMES and name in self._linears and len(tensor.shape) == 2 and not added:
            return CodeBlocks(tensor, self.file.path, tensor.shape, order)
        half = None if name in self._linears else self.half
        return FloatBlocks(tensor, self.file.path, tensor.shape, order, added, half)

    def _change(self, tensor: GgufTensor) -> tuple[tuple[int, ...] | None, float]:
        """The order of a tensor's rows in the parameter, None for as they are, and what is added to values.

        Found by what the library does to a tensor of two columns that hold the numbers of their rows.
        """
        rows = np.arange(tensor.shape[0], dtype=np.float64)
        probe = np.stack([rows] * 2, axis=1) if len(tensor.shape) > 1 else rows
        try:
            made = self._processor.process(probe.copy(), tensor.name).weights
            column = made.reshape(probe.shape).reshape(len(rows), -1)[:, 0]
            alike = bool((made.T == column).all())
        except (AttributeError, LookupError, TypeError, ValueError):  # it takes another form, or makes one
            alike = False
        if alike and np.array_equal(column, rows):
            return None, 0.0
        if alike and np.array_equal(np.sort(column), rows):
            return tuple(column.astype(int).tolist()), 0.0
        if alike and np.array_equal(column, rows + column[0]):
            return None, float(column[0])
        raise UserError(
            f"{self.file.path}: {tensor.name} is stored in another form than the model of "
            f"{self.config.model_type} has it, which is not supported yet"
        )


def note_left_out(path: Path, names: list[str]) -> None:
    """Tensors that are no parameters, beside those that `settings_left_out` reads."""
    names = [name for name in names if not name.startswith("rope_f")]
    if experts := [name for name in names if "_exps." in name]:
        raise UserError(f"{path} has a mixture of experts ({experts[0]}): not supported in GGUF yet")
    if names:
        log.warning("%s: %s left out, which no part of the model uses", path, ", ".join(names[:3]))


def note_dequantized(sources: Iterable[Source]) -> None:
    """Tell which types of blocks are not kept as codes."""
    kinds = Counter(
        source.tensor.kind.name
        for source in sources
        if isinstance(source, FloatBlocks) and source.tensor.kind not in FLOATS
    )
    if kinds:
        counts = ", ".join(f"{count} tensors of {kind}" for kind, count in sorted(kinds.items()))
        log.warning("read as floats, which -q applies to: %s; only linears in %s stay codes", counts, KEPT)


def write_client_files(path: Path, target: Path) -> None:
    """What clients read, as a checkpoint's folder has it: config.json, generation_config.json, the tokenizer.

    A note says what of it cannot be made.
    """
    file = read_gguf(path)
    values = dict(config_of(file).values)
    ends = {key: value for key, value in values.items() if key.endswith("_token_id")}
    write_text(target / "config.json", json.dumps(values, indent=2) + "\n")
    write_text(target / "generation_config.json", json.dumps(ends, indent=2) + "\n")
    try:
        _write_tokenizer(path, target)
    except Exception as error:  # of all kinds
        why = f"{type(error).__name__}: {str(error)[:100]}"
        log.warning("%s: no tokenizer can be made of it (%s); chat will not work", path, why)


def _write_tokenizer(path: Path, target: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    made: Any = PreTrainedTokenizerFast.from_pretrained(str(path.parent), gguf_file=path.name)
    made.save_pretrained(str(target))
