"""Recover norms, rotary embeddings and activations from the arithmetic that a model wrote them in.

Rewrites match what is computed, never the name of a class. They run on canonical IR, in which a value is
computed once and data movement is in its shortest form.
"""

from __future__ import annotations

from compiler.ir.module import Module
from compiler.ir.rewrite import apply_patterns
from frontend.patterns import activations, norms, rope
from passes.llm.canonicalize import canonicalize


def recognize(module: Module) -> None:
    """Rewrite a freshly imported module in place."""
    canonicalize(module)
    apply_patterns(module, [*activations.PATTERNS, *norms.PATTERNS, *rope.PATTERNS])
    canonicalize(module)
