"""The default pipeline: the whole compiler on one screen."""

from __future__ import annotations

from compiler.options import ConvertOptions


def default_pipeline(options: ConvertOptions, tokens: int = 0) -> str:
    """The passes for these options, as text. `tokens`: how many are lowered at a time in prefill; 0 for all."""
    chip = f"{{chip={options.chip}}}"
    passes = ["canonicalize", "fuse-swiglu", "fuse-qkv", "fuse-gate-up", "fuse-residual"]
    if options.weight_bits < 16:
        symmetric = str(options.symmetric or options.weight_bits == 8).lower()
        settings = f"bits={options.weight_bits} group={options.q_group_size} symmetric={symmetric}"
        passes.append(f"quantize-weights{{{settings}}}")
    passes += [
        f"llm-to-tensor{{tokens={tokens}}}" if tokens else "llm-to-tensor",
        f"tile-weights{chip}",
        f"tensor-to-chip{chip}",
        f"hoist-loads{chip}",
        f"allocate-local{chip}",
        f"assign-addresses{chip}",
        f"insert-waits{chip}",
    ]
    return ",".join(passes)
