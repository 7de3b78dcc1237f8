"""The default pipeline: the whole compiler on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compiler.options import ConvertOptions


@dataclass(frozen=True)
class Effort:
    """How much local memory a program may take: fewer tokens at a time, or fewer loads ahead, need less."""

    tokens: int = 0  # lowered at a time in prefill; 0 for all
    fill: float = 0.85  # see the pass hoist-loads


def efforts(input_length: int, lanes: int) -> Iterator[Effort]:
    """From the fastest program to the one that needs the least memory."""
    tokens = 0
    while True:
        yield from (Effort(tokens, fill) for fill in (0.85, 0.6, 0.0))
        longest = tokens or -(-input_length // lanes) * lanes
        if longest <= lanes:
            return
        tokens = -(-longest // 2 // lanes) * lanes


def default_pipeline(options: ConvertOptions, effort: Effort = Effort()) -> str:
    """The passes for these options, as text."""
    chip = f"{{chip={options.chip}}}"
    passes = ["canonicalize", "fuse-swiglu", "fuse-qkv", "fuse-gate-up", "fuse-residual"]
    if options.weight_bits < 16:
        symmetric = str(options.symmetric or options.weight_bits == 8).lower()
        settings = f"bits={options.weight_bits} group={options.q_group_size} symmetric={symmetric}"
        passes.append(f"quantize-weights{{{settings}}}")
    passes += [
        f"llm-to-tensor{{tokens={effort.tokens}}}" if effort.tokens else "llm-to-tensor",
        f"tile-weights{chip}",
        f"tensor-to-chip{chip}",
        f"hoist-loads{{chip={options.chip} fill={effort.fill}}}",
        f"allocate-local{chip}",
        f"assign-addresses{chip}",
        f"insert-waits{chip}",
    ]
    return ",".join(passes)
