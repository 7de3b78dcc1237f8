"""What the Hugging Face model computes in float32, layer by layer. The only file here that imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.diagnostics import UserError


@dataclass(frozen=True)
class LayerValues:
    """A layer on a run of tokens: states [tokens, hidden], keys (rotated) and values [tokens, heads, dim]."""

    states_in: np.ndarray
    states_out: np.ndarray
    keys: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Trace:
    """A pass over all tokens at once, in float32. The last layer's output has the final norm applied."""

    embedded: np.ndarray  # [tokens, hidden]
    layers: list[LayerValues]
    logits: np.ndarray  # [tokens, vocabulary]


class Reference:
    """A model from its folder."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} has no config.json: --reference wants the folder of the original model"
            )
        try:
            import torch
            import transformers
        except ImportError as error:
            raise UserError(f"verify needs torch and transformers: {error}") from None
        try:
            library: Any = transformers
            library.utils.logging.disable_progress_bar()
            options = {"dtype": torch.float32, "local_files_only": True, "trust_remote_code": False}
            loaded: Any = library.AutoModelForCausalLM.from_pretrained(folder, **options)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from None
        self.folder = folder
        self.model = loaded.eval()
        self.vocabulary = int(self.model.config.vocab_size)

    def trace(self, tokens: Sequence[int]) -> Trace:
        import torch

        base, states = self.model.base_model, _Recorder()
        handles = [layer.register_forward_hook(states, with_kwargs=True) for layer in base.layers]
        try:
            with torch.no_grad():
                ids = torch.tensor([list(tokens)])
                result = self.model(input_ids=ids, use_cache=True)
                final = base.norm(states.outputs[-1])
                embedded = self.model.get_input_embeddings()(ids)
        finally:
            for handle in handles:
                handle.remove()
        outputs = [*states.outputs[:-1], final]
        layers = [
            LayerValues(
                _rows(given), _rows(output), *map(_heads, _keys_values(result.past_key_values, index))
            )
            for index, (given, output) in enumerate(zip(states.inputs, outputs, strict=True))
        ]
        return Trace(_rows(embedded), layers, _rows(result.logits))


    def modules(self, tokens: Sequence[int], prefix: str) -> dict[str, np.ndarray]:
        """Outputs [tokens, ...] of the innermost modules below a prefix, by name, in order of the run."""
        import torch

        made: dict[str, np.ndarray] = {}

        def keep(name: str) -> Any:
            return lambda module, given, output: made.update({name: _rows(output)})

        inner = [(name, module) for name, module in self.model.named_modules() if not [*module.children()]]
        hooks = [m.register_forward_hook(keep(name)) for name, m in inner if name.startswith(prefix)]
        try:
            with torch.no_grad():
                self.model(input_ids=torch.tensor([list(tokens)]))
        finally:
            for hook in hooks:
                hook.remove()
        return made


class _Recorder:
    """A forward hook that keeps the first input and the output of each layer it sees."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def __call__(self, layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        self.inputs.append(arguments[0] if arguments else keywords["hidden_states"])
        self.outputs.append(output[0] if isinstance(output, tuple) else output)


def _keys_values(cache: Any, layer: int) -> tuple[Any, Any]:
    return cache.layers[layer].keys, cache.layers[layer].values


def _rows(tensor: Any) -> np.ndarray:
    """[1, tokens, ...] without its first axis."""
    return np.asarray(tensor[0].numpy())


def _heads(tensor: Any) -> np.ndarray:
    """[1, heads, tokens, dim] to [tokens, heads, dim]."""
    return np.asarray(tensor[0].numpy()).transpose(1, 0, 2)
