"""The nets of a language model, by the names that clients find them by in a file.

Those of a layer have its number behind them, from 0 on without a gap: clients count layers by trying names.
Source: Sophgo's LLM-TPU programs.
"""

from __future__ import annotations

from collections.abc import Callable

VIT = "vit"  # a picture, or a tile of one, to states that stand for it in a prompt
EMBEDDING = "embedding"  # ids of a prompt to states
EMBEDDING_CACHE = "embedding_cache"  # of one token
BLOCK = "block"  # a layer for a prompt
BLOCK_CACHE = "block_cache"  # a layer for one token, with keys and values that the client keeps
LM_HEAD = "lm_head"  # a state to the next token, or to logits
GREEDY_HEAD = "greedy_head"  # logits to the most likely token
SAMPLE_HEAD = "sample_head"  # logits to candidates for the next token, and how likely each is to be taken

LOOK_UPS = (EMBEDDING, EMBEDDING_CACHE)
LAYER_NETS = (BLOCK, BLOCK_CACHE)
CHOICES = (GREEDY_HEAD, SAMPLE_HEAD)  # of a file whose LM_HEAD gives logits
ON_FIRST_DEVICE = (LM_HEAD, *CHOICES)  # of several, clients call these on the first alone
# What a file must have whose nets are run as a language model; LOOK_UPS may be left to the client.
NEEDED = (f"{BLOCK}_0", f"{BLOCK_CACHE}_0", LM_HEAD)


def net_name(kind: str, layer: int | None) -> str:
    """The name in a file of a kind of net that is bound to a layer, or to the model."""
    return kind if layer is None else f"{kind}_{layer}"


def kind_of(name: str) -> tuple[str, int | None]:
    """What `net_name` made a name of."""
    kind, _, layer = name.rpartition("_")
    return (kind, int(layer)) if kind and layer.isdecimal() else (name, None)


def stage_name(net: str, stage: int) -> str:
    """What people call a stage of a net, of which a file has one or several: the first as the net."""
    return f"{net}.{stage}" if stage else net


def layer_count(has_net: Callable[[str], bool]) -> int:
    """Layers that have both of their nets, up to the first that has not."""
    count = 0
    while all(has_net(net_name(kind, count)) for kind in LAYER_NETS):
        count += 1
    return count
