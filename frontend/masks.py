"""Kinds of attention masks, by the names that `hooks.mask_kind` finds them under.

A client writes a causal mask, whatever a layer wants; how far back a layer sees is a constant of its net.
"""

from __future__ import annotations

import numpy as np

from dialects.llm import Visible

WINDOW, CHUNKS, BAND = "sliding window of ", "chunks of ", "band of "  # each before its size
KINDS = {"causal": "causal", "full": "all"}
SIZED = {WINDOW: "window", CHUNKS: "chunk", BAND: "band"}


def visible(kind: str) -> Visible:
    """What a kind of mask shows; of those that are not known only the mask's numbers tell."""
    for name, shown in SIZED.items():
        if kind.startswith(name):
            return Visible(shown, int(kind.removeprefix(name)))
    return Visible(KINDS.get(kind, "masked"))


def first_keys(kind: str, positions: int) -> np.ndarray | None:
    """[positions, 1] f32: the first key that a query at each position sees; None where it is always 0."""
    position, shown = np.arange(positions, dtype=np.float32)[:, None], visible(kind)
    if shown.kind == "window":
        return np.maximum(position - (shown.size - 1), 0)
    return position // shown.size * shown.size if shown.kind == "chunk" else None
