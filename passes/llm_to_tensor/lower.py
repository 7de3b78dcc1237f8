"""The pass llm-to-tensor: what a transformer says to arrays on lanes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.contents import Content
from dialects.nets import token_count
from passes.llm_to_tensor import (
    attention,
    choice,
    elementwise,
    exchange,
    linear,
    movement,
    named,
    norms,
    routing,
    terms,
)
from passes.llm_to_tensor.context import Lowering
from passes.llm_to_tensor.decode import Decode
from passes.llm_to_tensor.in_sections import Cut
from passes.llm_to_tensor.prefill import Prefill
from passes.manager import Pass
from passes.options import ByFunction, at_least, by_function

# Importing them fills the table of rules.
RULE_FILES = (attention, choice, elementwise, exchange, linear, movement, named, norms, routing, terms)


@dataclass(frozen=True)
class LlmToTensor(Pass):
    """llm -> tensor. Choose what runs over the lanes: features where a call has one token, else tokens.

    Values between ops are f32; they are rounded to 16 bit where a matrix product or the client reads them. A
    call with many tokens is cut into even runs of at most `tokens`, lowered one after the other, each
    attending to the keys of those before; less local memory is then needed for activations, and the weights
    are read once per run. With `tail`, the last rows of tokens are a run of their own: nothing overlaps with
    what it stores; not in a function of several sections, each of which would have one. With `keys`,
    attention meets so many keys of other runs, or of the history, at a time, which are loaded for it from
    where they were stored; keys and values then take no more local memory than those of a run and a block.
    Where no row of lanes of queries sees more keys than these, as in a window or band, it meets just what it
    sees, at once.

    A section ends where tokens come to be others, or keys of later ones are read (`sections.py`): all its
    runs are lowered before any of the next one, which has runs of its own; what these read of it is in DDR.
    """

    name: ClassVar[str] = "llm-to-tensor"
    takes = Content.LLM
    ends = Content.LLM
    leaves = Content.TENSOR | Content.WHOLE

    # tokens lowered at a time, in whole rows of lanes; 0 for all
    tokens: ByFunction[int] = by_function(at_least(0, 0))
    # rows of lanes whose tokens are the last run; 0 for its share of all
    tail: ByFunction[int] = by_function(at_least(0, 0))
    # keys met at a time, in whole rows of lanes; 0 for all
    keys: ByFunction[int] = by_function(at_least(0, 0))
    # bytes of a lane, of the scores that become weights at a time; 0 for a chip's `work_bytes`
    scores: ByFunction[int] = by_function(at_least(0, 0))
    # of the runs, only those of these numbers, so that a few tell what all take; others store nothing
    runs: tuple[int, ...] = ()
    # of the sections, only those of these numbers, for the same reason
    sections: tuple[int, ...] = ()

    def run(self, module: Module) -> None:
        for function in module.functions():
            lower_function(function, self, target_of(module))


def lower_function(function: Function, options: LlmToTensor, spec: ChipSpec) -> None:
    lowering = lowering_of(function, options, spec)
    *old, terminator = list(function.block.ops)
    results = lowering.run(old, terminator)
    terminator.set_operands(results)
    for op in reversed(old):
        op.erase()
    function.update_type()


def lowering_of(function: Function, options: LlmToTensor, spec: ChipSpec) -> Lowering:
    tokens, name = token_count(function), function.sym_name
    if tokens == 1:
        return Decode(function, options.keys[name], options.scores[name], spec)
    chosen = {each: getattr(options, each)[name] for each in ("tokens", "tail", "keys", "scores")}
    return Prefill(function, Cut(**chosen, some=options.runs, sections=options.sections), spec)
