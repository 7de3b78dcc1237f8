"""What `llm_convert.py --list` prints: what is supported, as the code has it."""

from __future__ import annotations

import argparse
import importlib.util
import re
import textwrap
from collections.abc import Iterable, Iterator

from compiler.ir.define import OPS
from compiler.target.chips import CHIPS
from compiler.target.spec import ChipSpec
from driver.options import AUTO, MODES
from driver.rules import BITS

WIDTH = 100
LEFT = 22  # columns of the first words


def listing(parser: argparse.ArgumentParser) -> str:
    """All of it; the models take an import of transformers."""
    sections = [modes(), chips(), checkpoints(), models(), ops(), flags(parser)]
    return "\n\n".join("\n".join(lines) for lines in sections)


def row(name: str, words: str | Iterable[str]) -> str:
    text = words if isinstance(words, str) else ", ".join(words)
    first = f"  {name:<{LEFT}}"
    inner = " " * len(first)
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=inner, break_on_hyphens=False)


def modes() -> list[str]:
    return [
        "modes",
        row("-q", (AUTO, *MODES)),
        row("of single modules", f"{', '.join(map(str, BITS))} bits, by --keep and --lm_head_quantize"),
    ]


def chips() -> list[str]:
    return ["chips (-c)", *(row(spec.name, _chip(spec)) for spec in CHIPS.values())]


def _chip(spec: ChipSpec) -> str:
    """What is said of one: its cores, and how else it may be called."""
    cores = "one core" if spec.cores == 1 else f"{spec.cores} cores, or fewer by --num_core"
    return "; also ".join((cores, *spec.aliases))


def checkpoints() -> list[str]:
    from frontend.binding import FLOATS
    from frontend.sources.blocks import SCHEMES
    from frontend.sources.settings import METHODS

    blocks = ", ".join(kind.name for kind in SCHEMES)
    return [
        "checkpoints (-m)",
        row("safetensors", FLOATS),
        row("quantized by", METHODS),
        row("GGUF", f"codes of {blocks} unchanged, other types as floats"),
        row("GGUF architectures", gguf()),
    ]


def gguf() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return ["those that transformers reads"]
    from frontend.gguf import architectures

    return architectures()


def models() -> list[str]:
    """A type is compiled as far as the tracer understands its forward and the ops below have lowerings."""
    from frontend.config import SEEING_TYPES, TESTED_TYPES

    others = [name for name in causal_types() if name not in TESTED_TYPES]
    lines = ["model types", row("tested", TESTED_TYPES), row("that see", SEEING_TYPES)]
    return [*lines, row("by their ops", others or ["the other causal language models of transformers"])]


def causal_types() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return []
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def ops() -> list[str]:
    """Of the llm dialect, with the first sentence of what each says of itself."""
    from passes import load_all
    from passes.llm_to_tensor.context import lowers

    load_all()
    found = {name: op for name, op in sorted(OPS.items()) if name.startswith("llm.")}
    lowered = [row(name, summary(op)) for name, op in found.items() if lowers.knows(op)]
    others = [name for name, op in found.items() if not lowers.knows(op)]
    return ["ops that a model may be made of", *lowered, row("only inside those", others)]


def summary(op: type) -> str:
    paragraph = " ".join((op.__doc__ or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph)[0]


def flags(parser: argparse.ArgumentParser) -> list[str]:
    return ["flags", *(row(name, text) for name, text in _flags(parser))]


def _flags(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        name = max(action.option_strings, key=len)
        yield name, (action.help or "").replace("%%", "%")
