"""The default pipeline: the whole compiler on one screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import TypeAlias

from driver.options import ConvertOptions
from passes.options import ByFunction

NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Effort:
    """How the program of a function uses local memory."""

    tokens: int = 0  # lowered at a time in prefill; 0 for all
    tile_bytes: int = 0  # the largest tile of weights, 0 for as the chip has it; see the pass tile-weights
    keep: int = 0  # bytes of weights to keep from run to run; see the pass share-constants
    fill: float = 0.85  # how full loads ahead may make it; see the pass hoist-loads
    keys: int = 0  # met at a time in attention; 0 for all
    scores: int = 0  # bytes that become weights at a time, 0 for as the chip has it; see llm-to-tensor


Efforts: TypeAlias = ByFunction[Effort]  # with one `tile_bytes`: functions share their weights
USUAL = ByFunction(Effort())
JOINING = ("fuse-qkv", "fuse-gate-up")


def default_pipeline(
    options: ConvertOptions, efforts: Efforts = USUAL, keep: Mapping[str, int] = NOTHING
) -> str:
    """The passes for these options, as text; `keep` has the bits of modules that differ from the others."""
    return f"{fusing(options, keep)},{lowering(efforts)},{placing(efforts)}"


def fusing(options: ConvertOptions, keep: Mapping[str, int] = NOTHING) -> str:
    """From what was recorded to what the model says, in large ops; nothing here depends on the effort.

    How weights are stored is known before the passes that join some, which take only those stored alike. What
    is for one of several devices comes from `sharing_out`. Each part, of devices or cores, joins its weights.
    """
    shared = [f"partition{{cores={options.core_count}}}"] if options.core_count > 1 else []
    if options.num_device > 1:
        return ",".join([*shared, *JOINING, "canonicalize"])
    if shared:
        return ",".join([*recognizing(options, keep), *absorbing(options), *shared, *JOINING, "canonicalize"])
    return ",".join([*recognizing(options, keep), *JOINING, *absorbing(options)])


def sharing_out(options: ConvertOptions, keep: Mapping[str, int] = NOTHING) -> str:
    """From what was recorded to the steps of several devices."""
    devices = f"partition{{devices={options.num_device}}}"
    return ",".join([*recognizing(options, keep), *absorbing(options), devices, "split-steps"])


def recognizing(options: ConvertOptions, keep: Mapping[str, int]) -> list[str]:
    passes = ["canonicalize", "recognize-activations", "recognize-norms", "recognize-rope", "canonicalize"]
    bits = 16 if options.as_stored else options.weight_bits
    if bits < 16 or keep:
        symmetric = str(options.symmetric).lower()
        settings = f"bits={bits} group={options.group} symmetric={symmetric}"
        kept = ",".join(f"{module}={bits}" for module, bits in keep.items())
        passes.append(f"quantize-weights{{{settings}{f' keep={kept}' if kept else ''}}}")
    return [*passes, "fuse-swiglu"]


def absorbing(options: ConvertOptions) -> list[str]:
    taken = ["fold-take"] if options.as_stored else []
    return ["fold-scale", "fuse-residual", "skip-before-argmax", "order-tokens", *taken]


def lowering(efforts: Efforts, runs: Sequence[int] = (), sections: Sequence[int] = ()) -> str:
    """From there to instructions in program order; with `runs` or `sections`, those of some of them."""
    return f"{tiling(efforts, runs, sections)},{emitting(efforts.usual.tile_bytes)}"


def tiling(efforts: Efforts, runs: Sequence[int] = (), sections: Sequence[int] = ()) -> str:
    """To what is computed, tile by tile."""
    tokens, keys, scores, keep = (
        efforts.map(attrgetter(name)) for name in ("tokens", "keys", "scores", "keep")
    )
    tail = keep.map(lambda kept: int(kept > 0))
    chosen = {"runs": runs, "sections": sections}
    some = "".join(f" {name}={','.join(map(str, each))}" for name, each in chosen.items() if each)
    passes = [
        f"llm-to-tensor{{tokens={tokens} keys={keys} scores={scores} tail={tail}{some}}}",
        f"tile-weights{{bytes={efforts.usual.tile_bytes}}}",
        f"share-constants{{keep={keep}}}",
        "spread-sums",
    ]
    return ",".join(passes)


def emitting(tile_bytes: int) -> str:
    """To instructions."""
    return f"tensor-to-chip{{bytes={tile_bytes}}},hoist-stores"


def placing(efforts: Efforts) -> str:
    """From there to a program with addresses and waits."""
    fill = efforts.map(attrgetter("fill"))
    return f"hoist-loads{{fill={fill}}},allocate-local,assign-addresses,insert-waits"
