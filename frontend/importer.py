"""A model's configuration to the llm dialect: a module for each distinct layer, and the nets around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from compiler.diagnostics import UserError
from compiler.ir.types import BF16, ElementType
from compiler.weights.scheme import Scheme
from dialects.builtin import FuncOp, ModuleOp
from dialects.nets import NetAttr
from frontend.build import native_model
from frontend.capture import Capture, LayerCapture, capture_model, capture_streams
from frontend.config import read_config
from frontend.entry import entries
from frontend.functions import (
    Types,
    block_function,
    embedding_function,
    head_function,
    kv_results,
    live_nodes,
)
from frontend.imported import ImportedModel, Instance, NetGroup
from frontend.masks import first_keys, visible
from frontend.signatures import BLOCK, BLOCK_CACHE, EMBEDDING, EMBEDDING_CACHE
from frontend.streams import stream_count
from frontend.tables import Tables, Use
from frontend.tower_net import tower_groups

SHORT = 2  # tokens of a run that shows what depends on the length; one would look like a decode step


def import_model(
    config: str | Path | dict[str, Any] | nn.Module,
    seq_length: int,
    max_input_length: int | None = None,
    dtype: ElementType = BF16,
    schemes: Mapping[str, Scheme] | None = None,
    orders: Mapping[str, str] | None = None,
    shorter: Sequence[int] = (),
    patches: int | None = None,
) -> ImportedModel:
    """Trace a model at these lengths: that of a folder, of a parsed config.json, or from `native_model`.

    `seq_length` is the number of positions, `max_input_length` that of prefill tokens (the same by default),
    `dtype` the element type of activations and parameters in the modules, `schemes` says which parameters are
    stored as codes, by full name, and `orders` which have their inputs in an order, with that one's name.
    `shorter` are the lengths of history that decode has further stages for, the longest first. `patches` are
    those of a picture for a tower that takes any number; None leaves out the tower of a model that sees.
    Raises UserError for a model that is not understood; nothing of the checkpoint but its configuration is
    read.
    """
    model = config if isinstance(config, nn.Module) else native_model(settings_of(config), seq_length)
    prefill_length = max_input_length or seq_length
    prefill = capture_model(model, prefill_length)
    steps = [  # at the last position, whatever the history: tables are those of the whole length
        capture_model(model, 1, position=seq_length - 1, history=history, prefill=prefill)
        for history in (seq_length, *shorter)
    ]
    whole = prefill if prefill_length == seq_length else capture_model(model, seq_length)
    short = capture_model(model, SHORT)
    types = Types(dtype, schemes or {}, orders or {})
    return Importer(model, prefill, steps, whole, short, types, patches).run()


def settings_of(config: str | Path | dict[str, Any]) -> dict[str, Any]:
    return config if isinstance(config, dict) else dict(read_config(Path(config)).values)


class Importer:
    """The runs of one model, and what is made of them; `steps` are of decode, the longest history first.

    Where positions come in several streams, one more run tells them apart.
    """

    def __init__(
        self,
        model: nn.Module,
        prefill: Capture,
        steps: Sequence[Capture],
        whole: Capture,
        short: Capture,
        types: Types,
        patches: int | None = None,
    ) -> None:
        self.model: Any = model
        self.prefill, self.steps, self.whole, self.short = prefill, steps, whole, short
        self.types, self.patches = types, patches
        self.tables = Tables()
        self.streams = stream_count(model)
        self.apart = [capture_streams(model, self.streams)] if self.streams > 1 else []
        runs = (prefill, *steps, whole, short, *self.apart)
        self.entries = dict(zip(runs, entries(runs), strict=True))

    def run(self) -> ImportedModel:
        parameters = parameter_shapes(self.model)
        assert self.types.schemes.keys() <= parameters.keys(), "a scheme is of no parameter"
        layers = [self._layer_group(indices) for indices in self._distinct_layers()]
        embedding = ModuleOp.of(
            *(
                embedding_function(net, run, self.entries[run].embedded, self.types)
                for net, run in ((EMBEDDING, self.prefill), (EMBEDDING_CACHE, self.steps[0]))
            )
        )
        lm_head = ModuleOp.of(head_function(self.steps[0], self.types))
        around = [NetGroup(module, [Instance()]) for module in (embedding, lm_head)]
        return ImportedModel(
            nets=[*around, *self._tower(), *layers],
            tables=self.tables.arrays,
            parameters=parameters,
            tied=dict(self.model.all_tied_weights_keys),
        )

    def _tower(self) -> list[NetGroup]:
        if self.patches is None:
            return []
        return tower_groups(self.model, self.patches, self.types, self.tables)

    def _distinct_layers(self) -> list[list[int]]:
        """Layers whose graphs and schemes are alike. The first is alone where it begins with positions."""
        groups: dict[Any, list[int]] = {}
        for index in range(len(self.prefill.layers)):
            runs = [run.layers[index] for run in (self.prefill, *self.steps, *self.apart, self.whole)]
            check_masks(runs[-1], self.whole.logits.shape[1])
            prints = tuple(layer.graph.fingerprint(f"{layer.path}.") for layer in runs)
            key = (prints, self._stored(runs[0]), self._enters(index))
            groups.setdefault(key, []).append(index)
        return list(groups.values())

    def _stored(self, layer: LayerCapture) -> frozenset[tuple[str, Scheme, str]]:
        """The parameters of a layer that are stored as codes, with what orders their inputs, by the names
        that its module gives them.
        """
        prefix, names = f"{layer.path}.", self.types.schemes.keys() & layer.graph.parameters.keys()
        return frozenset(
            (
                name.removeprefix(prefix),
                self.types.schemes[name],
                self.types.orders.get(name, "").removeprefix(prefix),
            )
            for name in names
        )

    def _layer_group(self, indices: list[int]) -> NetGroup:
        first = indices[0]
        uses = [self._uses(first, step) for step in self.steps]
        block = self._block(BLOCK, self.prefill, first, uses[0])
        caches = [
            self._block(replace(BLOCK_CACHE, stage=stage), step, first, used)
            for stage, (step, used) in enumerate(zip(self.steps, uses, strict=True))
        ]
        instances = [Instance(index, f"{self.prefill.layers[index].path}.") for index in indices]
        return NetGroup(ModuleOp.of(block, *caches), instances)

    def _uses(self, index: int, step: Capture) -> list[Use]:
        """What the constants are that a layer's block begins with or has, in a prefill and in a step."""
        runs = (self.prefill, step, self.whole, self.short, *self.apart)
        before = [self.entries[run].rest if self._enters(index) else [] for run in runs]
        nodes = [live_nodes(run.layers[index].graph) for run in runs]
        position = self.whole.logits.shape[1] - 1
        return self.tables.uses([a + b for a, b in zip(before, nodes, strict=True)], position)

    def _enters(self, index: int) -> bool:
        """Whether a layer's block begins with what positions add to the embedding."""
        return index == 0 and self.entries[self.prefill].knows_positions

    def _window(self, kind: str) -> str | None:
        """The table of the first keys that a kind of mask shows; None for all that a client's mask shows."""
        first = first_keys(kind, self.whole.logits.shape[1])
        if first is None:
            return None
        if self.streams > 1:
            raise UserError(f"cannot import the model: a {kind} among positions of {self.streams} streams")
        return self.tables.add(first, by_position=True, kind="first_key")

    def _block(self, net: NetAttr, run: Capture, index: int, uses: list[Use]) -> FuncOp:
        layer = run.layers[index]
        masked = run if run is self.prefill else self.whole  # a decode step does not tell what it sees
        windows = [self._window(kind) for kind in mask_kinds(masked.layers[index])]
        shapes = {name: table.shape for name, table in self.tables.arrays.items()}
        entry = self.entries[run] if self._enters(index) else None
        reader = block_function(net, layer, uses, shapes, self.types, windows, entry, self.streams)
        hidden = reader.get(layer.graph.outputs[0])
        return reader.finish(hidden, *kv_results(reader, layer))


def check_masks(layer: LayerCapture, length: int) -> None:
    """A client writes a causal mask, of which a layer may see windows or chunks; nothing else."""
    for kind in mask_kinds(layer):
        if visible(kind).kind in ("all", "masked"):
            raise UserError(
                f"{layer.path} has a {kind} attention mask where a causal one is needed, of {length} "
                "positions, a window of it, or chunks"
            )


def mask_kinds(layer: LayerCapture) -> list[str]:
    """Of each mask that a layer reads, in order."""
    inputs = [node for node in live_nodes(layer.graph) if node.name == "input"]
    return [node.args[1] for node in inputs if node.args[0] == "mask"]


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict(keep_vars=True).items()}
