"""What the Hugging Face model computes in float32, layer by layer. The only file here that imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from compiler.aliases import ALIASES, Alias, native_keys, native_settings
from compiler.command import not_installed
from compiler.diagnostics import UserError
from compiler.files import checkpoint_root, open_file, read_json_object
from compiler.gguf import SUFFIX, read_gguf
from compiler.gguf_settings import settings_left_out
from compiler.model_settings import computing
from runtime_sim.arrays import Array
from runtime_sim.launch.tower import Picture
from runtime_sim.tool.choices import Choices
from runtime_sim.tool.dequantize import dequantized, is_quantized

READ = ("*.json", "*.safetensors")  # what loading a model opens; code and pickles are not


@dataclass(frozen=True)
class LayerValues:
    """A layer on a run of tokens: states [tokens, hidden], keys (rotated) and values [tokens, heads, dim].

    Keys and values are what attention reads, as a client keeps them: the narrower ones filled up by zeros.
    decided [tokens]: whether rounding cannot make the layer take a token through other experts.
    """

    states_in: Array
    states_out: Array
    keys: Array
    values: Array
    decided: Array


@dataclass(frozen=True)
class Trace:
    """A pass over all tokens at once, in float32."""

    embedded: Array  # [tokens, hidden]
    layers: list[LayerValues]
    logits: Array  # [tokens asked for, vocabulary]


class Reference:
    """A model from its folder, or its GGUF file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.suffix == SUFFIX and not folder.is_dir():
            self.model = load_gguf(folder)
        else:
            check_folder(folder)
            self.model = load(folder)
        config = self.model.config.get_text_config()
        self.vocabulary = int(self.model.get_input_embeddings().weight.shape[0])
        self.hidden = int(config.hidden_size)
        self.layers = self._layers(int(config.num_hidden_layers))

    def _layers(self, count: int) -> Any:
        """The list of the decoder's layers, whatever its name."""
        from torch.nn import ModuleList

        modules = self.model.get_decoder().modules()  # a tower may have as many layers
        found = [m for m in modules if isinstance(m, ModuleList) and len(m) == count]
        if not found or self.model.get_output_embeddings() is None:
            kind = type(self.model).__name__
            raise UserError(
                f"{self.folder}: {kind} is not built of {count} layers and a head, as verify expects"
            )
        return found[0]

    @property
    def name_of_layers(self) -> str:
        """What the list is called among the model's modules, as in a checkpoint."""
        return str(next(name for name, module in self.model.named_modules() if module is self.layers))

    def trace(
        self, tokens: Sequence[int], rows: Sequence[int] | None = None, pictures: Sequence[Picture] = ()
    ) -> Trace:
        """All layers on the tokens, of which some may keep the places of pictures; the head on some, or on
        all.
        """
        import torch
        from transformers import DynamicCache

        states, head = _Recorder(), _Head(rows)
        attended = _Attended(self.layers)
        choices = Choices(self.layers)
        cache: Any = DynamicCache()  # without a config it forgets nothing
        hooks = [layer.register_forward_hook(states, with_kwargs=True) for layer in self.layers]
        hooks += [self.model.get_output_embeddings().register_forward_pre_hook(head), *choices.hooks()]
        with _hooked(hooks), attended.recording(), torch.no_grad():
            ids = torch.tensor([list(tokens)])
            given = self._given(ids, pictures) if pictures else {}
            logits = self.model(input_ids=ids, use_cache=True, past_key_values=cache, **given).logits
        if not head.ran or len(states.outputs) != len(self.layers):
            raise UserError(f"{self.folder}: its layers or its head do not run once for each token")
        kept = [(layer.keys, layer.values) for layer in cache.layers]
        both = attended.both if len(attended.both) == len(kept) else kept
        layers = [
            LayerValues(
                _rows(given),
                _rows(output),
                *_alike(_heads(keys), _heads(values)),
                choices.decided(index, len(tokens)),
            )
            for index, (given, output, (keys, values)) in enumerate(
                zip(states.inputs, states.outputs, both, strict=True)
            )
        ]
        if not pictures:
            layers[0] = replace(layers[0], states_in=self.embedded(tokens))
        trace = Trace(layers[0].states_in, layers, _rows(logits))
        if not all(np.isfinite(layer.states_out).all() for layer in layers):
            raise UserError(f"{self.folder}: the model itself computes values that are not finite")
        return trace

    @property
    def head_width(self) -> int:
        """Values of a state that the head takes."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    def logits_of(self, states: Array, matrix: Array) -> Array:
        """The logits [tokens, vocabulary] that the model makes of what its last layer gives, with another
        matrix in the head.
        """
        import torch
        from torch.nn import Parameter

        head = self.model.get_output_embeddings()
        before, given = head.weight, _tensor(states[None])

        def instead(module: Any, arguments: tuple[Any, ...], output: Any) -> Any:
            return (given, *output[1:]) if isinstance(output, tuple) else given

        hooks = [self.layers[-1].register_forward_hook(instead)]
        head.weight = Parameter(_tensor(matrix), requires_grad=False)
        try:
            with _hooked(hooks), torch.no_grad():
                return _rows(self.model(input_ids=torch.tensor([[0]]), use_cache=False).logits)
        finally:
            head.weight = before

    @property
    def place(self) -> int:
        """The token that keeps the place of a row of a picture."""
        return int(self.model.config.image_token_id)

    def _given(self, ids: Any, pictures: Sequence[Picture]) -> dict[str, Any]:
        """What the model is told of the pictures in a prompt."""
        kinds = {"mm_token_type_ids": (ids == self.place).int()} if any(pictures[0].grid) else {}
        return {**_pixels(pictures), **kinds}

    def features(self, picture: Picture) -> Array:
        """[tokens, hidden]: the rows that take a picture's places."""
        import torch

        with torch.no_grad():
            found = self.model.get_image_features(**_pixels([picture])).pooler_output
        return np.concatenate([part.numpy().reshape(-1, self.hidden) for part in found])

    def embedded(self, tokens: Sequence[int]) -> Array:
        """[tokens, hidden]: what the first layer is given, or of that what does not depend on positions."""
        outputs, given = self._before_layers([[token] for token in tokens])
        states = given if self._embedding is None else outputs[self._embedding]
        return np.asarray(states[:, 0].detach().numpy())

    @cached_property
    def looks_up(self) -> bool:
        """Whether that is rows of a table as they are."""
        tokens = range(min(2, self.vocabulary))
        rows = self.model.get_input_embeddings().weight[: len(tokens)].detach().numpy()
        return np.array_equal(self.embedded(tokens), rows)

    @cached_property
    def _embedding(self) -> str | None:
        """The last module before the layers whose output depends on the token and not on its position; None
        where that is so of what the first layer is given.
        """
        last = self.vocabulary - 1
        outputs, given = self._before_layers([[0, 0, last]])
        if _of_token_only(given):
            return None
        found = [name for name, output in outputs.items() if _of_token_only(output)]
        if not found:
            raise UserError(f"{self.folder}: nothing before its layers is an embedding of the tokens alone")
        return found[-1]

    def _before_layers(self, ids: list[list[int]]) -> tuple[dict[str, Any], Any]:
        """The states that modules give before the layers, in order, and what the first layer is given."""
        import torch

        outputs: dict[str, Any] = {}

        def keep(name: str) -> Any:
            def hook(module: Any, given: Any, output: Any) -> None:
                if isinstance(output, torch.Tensor) and output.shape == (*tokens.shape, self.hidden):
                    outputs[name] = output

            return hook

        def stop(layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            raise _Reached(arguments[0] if arguments else keywords["hidden_states"])

        tokens = torch.tensor(ids)
        hooks = [module.register_forward_hook(keep(name)) for name, module in self.model.named_modules()]
        hooks.append(self.layers[0].register_forward_pre_hook(stop, with_kwargs=True))
        with _hooked(hooks), torch.no_grad():
            try:
                self.model(input_ids=tokens, use_cache=False)
            except _Reached as reached:
                return outputs, reached.states
        raise UserError(f"{self.folder}: its first layer does not run")

    def modules(self, tokens: Sequence[int], prefix: str) -> dict[str, Array]:
        """Outputs [tokens, ...] of the innermost modules below a prefix, by name, in order of the run."""
        import torch

        made: dict[str, Array] = {}

        def keep(name: str) -> Any:
            return lambda module, given, output: made.update({name: _rows(output)})

        inner = [(name, module) for name, module in self.model.named_modules() if not [*module.children()]]
        hooks = [m.register_forward_hook(keep(name)) for name, m in inner if name.startswith(prefix)]
        with _hooked(hooks), torch.no_grad():
            self.model(input_ids=torch.tensor([list(tokens)]))
        return made


def check_folder(folder: Path) -> None:
    """UserError unless the folder has a model, in regular files that lie in it."""
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} has no config.json: --reference wants the folder of the original model")
    root = checkpoint_root(folder)
    read_json_object(folder / "config.json")
    files = [path for pattern in READ for path in sorted(folder.glob(pattern))]
    for path in files:
        open_file(path, root).close()
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(
            f"{folder} has no safetensors: --reference reads no other weights, pickles least of all"
        )


def quiet_library() -> Any:
    """transformers, without its progress bars and warnings."""
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise not_installed(error, "verify") from None
    library: Any = transformers
    library.utils.logging.disable_progress_bar()
    library.logging.set_verbosity_error()
    return library


def load_gguf(path: Path) -> Any:
    """The model in float32, as the library itself reads it: its blocks dequantized."""
    settings = settings_left_out(read_gguf(path))
    library = quiet_library()
    from transformers import modeling_gguf_pytorch_utils

    read: Any = modeling_gguf_pytorch_utils.load_gguf_checkpoint
    try:
        with redirect_stderr(StringIO()):  # a progress bar that the library has no switch for
            config = library.AutoConfig.for_model(**read(str(path))["config"] | settings)
            model = library.AutoModelForCausalLM.from_config(config)
            tensors = read(str(path), return_tensors=True, model_to_load=model)["tensors"]
        lost = model.load_state_dict(tensors, strict=False).missing_keys
    except Exception as error:  # the classes of transformers and gguf raise of all kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} cannot be loaded: {lines[0][:200]}") from None
    if lost := sorted(set(lost) - set(model.all_tied_weights_keys)):
        raise UserError(f"{path} lacks {len(lost)} of the model's weights, such as {lost[0][:100]}")
    model.tie_weights()
    return model.float().eval()


def load(folder: Path) -> Any:
    """The model in float32, from safetensors, with no code of the checkpoint's own."""
    library = quiet_library()
    import torch

    stored = read_json_object(folder / "config.json")
    settings = computing(native_settings(stored, folder / "config.json"))
    alias = ALIASES.get(str(stored.get("model_type")))
    try:
        config = library.AutoConfig.for_model(**settings)
        sees = type(config) in library.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        kinds = library.MODEL_FOR_CAUSAL_LM_MAPPING
        kinds = library.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if sees else kinds
        model, found = kinds[type(config)].from_pretrained(
            **source_of(folder, alias),
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
        )
    except Exception as error:  # the classes of transformers and safetensors raise of all kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{folder} cannot be loaded: {lines[0][:200]}") from None
    if lost := sorted([*found["missing_keys"], *(str(key) for key in found["mismatched_keys"])]):
        raise UserError(f"{folder} lacks {len(lost)} of the model's weights, such as {lost[0][:100]}")
    return model.eval()


def source_of(folder: Path, alias: Alias | None) -> dict[str, Any]:
    """Where the library finds the weights: in the folder, or read here where they are codes, or have other
    keys than its own.
    """
    from safetensors import safe_open

    opened: list[Any] = [safe_open(path, "pt") for path in sorted(folder.glob("*.safetensors"))]
    where = {key: file for file in opened for key in file.keys()}
    coded = is_quantized(where)
    if not coded and alias is None:
        return {"pretrained_model_name_or_path": folder}
    tensors = {key: _array(file.get_tensor(key)) for key, file in where.items()}
    arrays = dequantized(tensors, folder) if coded else tensors
    arrays = renamed(arrays, alias) if alias else arrays
    state = {key: _tensor(array) for key, array in arrays.items()}
    return {"pretrained_model_name_or_path": None, "state_dict": state}


def renamed(arrays: Mapping[str, Array], alias: Alias) -> dict[str, Array]:
    """By the keys of the native model, of which one tensor may be several, in blocks of rows."""
    pairs = [(native_keys(alias, key), array) for key, array in arrays.items()]
    parts = [(names, np.split(array, len(names)) if len(names) > 1 else [array]) for names, array in pairs]
    return {name: part for names, each in parts for name, part in zip(names, each, strict=True)}


def _pixels(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Pictures as models take them: all in one, with their grids."""
    found = {"pixel_values": _tensor(np.concatenate([picture.pixels for picture in pictures]))}
    if any(pictures[0].grid):
        found["image_grid_thw"] = _tensor(np.array([[1, *picture.grid] for picture in pictures]))
    return found


@contextmanager
def _hooked(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Reached(Exception):
    """The first layer is about to run on these states."""

    def __init__(self, states: Any) -> None:
        self.states = states


def _of_token_only(states: Any) -> bool:
    """Of [1, 3, hidden], for one token twice and another: whether it tells tokens apart, not positions."""
    same, again, other = states[0]
    return bool((same == again).all()) and not bool((same == other).all())


class _Recorder:
    """A forward hook that keeps the first input and the output of each layer it sees."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def __call__(self, layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        self.inputs.append(arguments[0] if arguments else keywords["hidden_states"])
        self.outputs.append(output[0] if isinstance(output, tuple) else output)


class _Attended:
    """Keeps the keys and values that each attention of the layers reads, which may be more than the cache
    holds.
    """

    def __init__(self, layers: Any) -> None:
        self.both: list[tuple[Any, Any]] = []
        self._modules = {id(module) for module in layers.modules()}

    @contextmanager
    def recording(self) -> Iterator[None]:
        from transformers import modeling_utils

        functions: Any = modeling_utils.ALL_ATTENTION_FUNCTIONS
        original = functions.get_interface

        def recorded(*arguments: Any) -> Any:
            function = original(*arguments)

            def attention(module: Any, query: Any, *others: Any, **keywords: Any) -> Any:
                key, value = others[:2]
                if id(module) in self._modules:
                    self.both.append((key, value))
                return function(module, query, *others, **keywords)

            return attention

        functions.get_interface = recorded
        try:
            yield
        finally:
            del functions.get_interface


class _Head:
    """A hook before the head that passes some rows on, or all."""

    def __init__(self, rows: Sequence[int] | None) -> None:
        self.rows = rows
        self.ran = False

    def __call__(self, module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        self.ran = True
        states, *others = arguments
        return arguments if self.rows is None else (states[:, list(self.rows)], *others)


def _array(tensor: Any) -> Array:
    return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def _tensor(array: Array) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def _rows(tensor: Any) -> Array:
    """[1, tokens, ...] without its first axis."""
    return np.asarray(tensor[0].detach().numpy())


def _heads(tensor: Any) -> Array:
    """[1, heads, tokens, dim] to [tokens, heads, dim]."""
    return np.asarray(tensor[0].numpy()).transpose(1, 0, 2)


def _alike(keys: Array, values: Array) -> tuple[Array, Array]:
    """Both as wide as the wider ones."""
    width = max(keys.shape[-1], values.shape[-1])
    keys, values = (np.pad(x, ((0, 0), (0, 0), (0, width - x.shape[-1]))) for x in (keys, values))
    return keys, values
