"""The default pipeline: the whole compiler on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from driver.options import ConvertOptions

NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Effort:
    """How a program uses local memory."""

    tokens: int = 0  # lowered at a time in prefill; 0 for all
    tile_bytes: int = 0  # the largest tile of weights, 0 for as the chip has it; see the pass tile-weights
    keep: int = 0  # bytes of weights to keep from run to run; see the pass share-constants
    fill: float = 0.85  # how full loads ahead may make it; see the pass hoist-loads
    keys: int = 0  # met at a time in attention; 0 for all


def default_pipeline(
    options: ConvertOptions, effort: Effort = Effort(), keep: Mapping[str, int] = NOTHING
) -> str:
    """The passes for these options, as text; `keep` has the bits of modules that differ from the others."""
    return f"{fusing(options, keep)},{lowering(effort)},{placing(effort)}"


def fusing(options: ConvertOptions, keep: Mapping[str, int] = NOTHING) -> str:
    """From what was recorded to what the model says, in large ops; nothing here depends on the effort.

    How weights are stored is known before the passes that join some, which take only those stored alike.
    """
    passes = ["canonicalize", "recognize-activations", "recognize-norms", "recognize-rope", "canonicalize"]
    bits = 16 if options.as_stored else options.weight_bits
    if bits < 16 or keep:
        symmetric = str(options.symmetric).lower()
        settings = f"bits={bits} group={options.group} symmetric={symmetric}"
        kept = ",".join(f"{module}={bits}" for module, bits in keep.items())
        passes.append(f"quantize-weights{{{settings}{f' keep={kept}' if kept else ''}}}")
    passes += ["fuse-swiglu", "fuse-qkv", "fuse-gate-up", "fuse-residual", "skip-before-argmax"]
    if options.as_stored:
        passes.append("fold-take")
    return ",".join(passes)


def lowering(effort: Effort) -> str:
    """From there to instructions in program order."""
    passes = [
        f"llm-to-tensor{{tokens={effort.tokens} keys={effort.keys} tail={int(effort.keep > 0)}}}",
        f"tile-weights{{bytes={effort.tile_bytes}}}",
        f"share-constants{{keep={effort.keep}}}",
        "tensor-to-chip",
        "hoist-stores",
    ]
    return ",".join(passes)


def placing(effort: Effort) -> str:
    """From there to a program with addresses and waits."""
    return f"hoist-loads{{fill={effort.fill}}},allocate-local,assign-addresses,insert-waits"
