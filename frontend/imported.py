"""What the frontend hands to the compiler: modules of the llm dialect, and the names of their data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.client_nets import stage_name
from compiler.ir.module import Function
from compiler.weights.order import in_order, weight_and_order
from compiler.weights.scaled import scaled, weight_and_scale
from dialects.builtin import ModuleOp
from dialects.nets import net_of


@dataclass(frozen=True)
class Instance:
    """What the nets of a module are bound to: one layer's weights, or those of the model."""

    layer: int | None = None
    prefix: str = ""  # "model.layers.3.", which the module leaves out of names of parameters
    device: int | None = None  # of several
    # Of devices that have one module: what this one has of a weight in the place of what the module says.
    cuts: tuple[tuple[str, str], ...] = ()

    def parameter_name(self, name: str) -> str:
        """Full name of what an llm.weight op calls `name`."""
        weight, scale = weight_and_scale(name)
        if scale is not None:
            return scaled(self.parameter_name(weight), self.parameter_name(scale))
        weight, order = weight_and_order(name)
        if order is not None:
            return in_order(self.parameter_name(weight), self.parameter_name(order))
        if name.startswith("/"):
            return name[1:]
        if not self.prefix:
            raise ValueError(f"weight {name!r} is relative to a layer")
        return self.prefix + name


@dataclass(frozen=True)
class NetGroup:
    """Functions that are compiled together, as they share weights, and all that they are bound to.

    What each function is, and what of its arguments, its `bm.net` says. M is the prefill length, S the
    sequence length, E the hidden size, h the KV heads, D the head size, n how many positions a token has:
      @embedding        ids [1, M] i32 -> [1, M, E]
      @embedding_cache  ids [1, 1] i32 -> [1, 1, E]
      @lm_head          hidden [1, E] -> token [1, 1] i32
      @block            x [1, M, E], position_ids [n, M] i32, mask [1, 1, M, M] -> x, k [1, M, h, D], v
      @block_cache      x [1, 1, E], position_ids [n, 1] i32, mask [1, 1, 1, S + 1], history_k [1, S, h, D],
                        history_v -> x, k [1, 1, h, D], v of the new token
      @block_cache.1    the same for a shorter history, and so on
    Distinct layers are groups of their own. The final norm is the head's.
    """

    module: ModuleOp
    instances: list[Instance]

    @property
    def name(self) -> str:
        """The first of its nets, and of several devices which, that its dumps are called after."""
        first = self.instances[0]
        device = "" if first.device is None else f".device{first.device}"
        return net_of(self.module.functions()[0]).name_for(first.layer) + device

    @property
    def of_layers(self) -> bool:
        return self.instances[0].layer is not None


@dataclass
class ImportedModel:
    """A causal language model: the groups of its nets, in the order in which a file has them.

    `tables` are the values of llm.table ops, float32: a rotary table has one row per position, [S, width].
    """

    nets: list[NetGroup]
    tables: dict[str, np.ndarray]
    parameters: dict[str, tuple[int, ...]]  # full name to shape, buffers of the checkpoint included
    tied: dict[str, str]  # full name to the parameter it equals, unless the checkpoint has both

    def find(self, net: str) -> tuple[NetGroup, Function, Instance]:
        """What a net of the file, or a stage of one, is made from and bound to; KeyError when it has none."""
        for group in self.nets:
            for function in group.module.functions():
                for instance in group.instances:
                    stated = net_of(function)
                    if stage_name(stated.name_for(instance.layer), stated.stage) == net:
                        return group, function, instance
        raise KeyError(f"the model has no net {net!r}")
