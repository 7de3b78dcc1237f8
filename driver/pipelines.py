"""The default pipeline: the whole compiler on one screen."""

from __future__ import annotations

from dataclasses import dataclass

from driver.options import ConvertOptions


@dataclass(frozen=True)
class Effort:
    """How a program uses local memory."""

    tokens: int = 0  # lowered at a time in prefill; 0 for all
    tile_bytes: int = 0  # the largest tile of weights, 0 for as the chip has it; see the pass tile-weights
    keep: int = 0  # bytes of weights to keep from run to run; see the pass share-constants
    fill: float = 0.85  # how full loads ahead may make it; see the pass hoist-loads


def default_pipeline(options: ConvertOptions, effort: Effort = Effort()) -> str:
    """The passes for these options, as text."""
    return f"{fusing(options)},{lowering(effort)},{placing(effort)}"


def fusing(options: ConvertOptions) -> str:
    """From what was recorded to what the model says, in large ops; nothing here depends on the effort."""
    passes = ["canonicalize", "recognize-activations", "recognize-norms", "recognize-rope", "canonicalize"]
    passes += ["fuse-swiglu", "fuse-qkv", "fuse-gate-up", "fuse-residual"]
    if options.weight_bits < 16:
        symmetric = str(options.symmetric or options.weight_bits == 8).lower()
        settings = f"bits={options.weight_bits} group={options.q_group_size} symmetric={symmetric}"
        passes.append(f"quantize-weights{{{settings}}}")
    return ",".join(passes)


def lowering(effort: Effort) -> str:
    """From there to instructions in program order."""
    passes = [
        f"llm-to-tensor{{tokens={effort.tokens} tail={int(effort.keep > 0)}}}",
        f"tile-weights{{bytes={effort.tile_bytes}}}",
        f"share-constants{{keep={effort.keep}}}",
        "tensor-to-chip",
        "hoist-stores",
    ]
    return ",".join(passes)


def placing(effort: Effort) -> str:
    """From there to a program with addresses and waits."""
    return f"hoist-loads{{fill={effort.fill}}},allocate-local,assign-addresses,insert-waits"
