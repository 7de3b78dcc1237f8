"""Nets that choose a token, for clients that sample: logits from the head, and what makes a choice of them.

They know nothing of the model but how many tokens there are.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.ir.core import Op, Value
from compiler.ir.location import NameLoc
from compiler.ir.module import Builder, Function
from compiler.ir.types import F32, I32, TensorType
from dialects import llm
from dialects.builtin import FuncOp, ModuleOp, ReturnOp
from dialects.nets import KEY, NetAttr
from frontend.imported import ImportedModel, Instance, NetGroup
from frontend.signatures import GREEDY_HEAD, LM_HEAD, LM_HEAD_LOGITS, SAMPLE_HEAD

CANDIDATES = 50  # as many as clients have room for
LEAST = 5  # of them stay, however likely the first ones are


def with_sampling(model: ImportedModel, length: int) -> ImportedModel:
    """The model with a head that gives logits, and the nets that choose among them; conversations have up to
    `length` tokens.
    """
    _, head, _ = model.find(LM_HEAD.name)
    vocabulary = give_logits(head)
    heads = ModuleOp.of(greedy_head(vocabulary), sample_head(vocabulary, length))
    return replace(model, nets=[*model.nets, NetGroup(heads, [Instance()])])


def give_logits(head: Function) -> int:
    """Make the head return its logits [1, V] in f32; gives V."""
    (token,) = head.terminator.operands
    choice = token.defining(llm.ArgmaxOp)
    assert choice is not None, "the head ends in a choice"
    logits = Builder.before(choice).add(llm.WidenOp(choice.x, loc=choice.loc))
    head.terminator.set_operands([logits.y])
    choice.erase()
    head.attributes = {**head.attributes, KEY: LM_HEAD_LOGITS}
    head.update_type()
    vocabulary: int = logits.y.type.shape[-1]
    return vocabulary


def greedy_head(vocabulary: int) -> FuncOp:
    """Logits [1, V] to the token [1, 1] of the largest."""
    head = Head(GREEDY_HEAD, TensorType((1, vocabulary), F32))
    return head.finish(*head.add(llm.ArgmaxOp(*head.args)))


def sample_head(vocabulary: int, length: int) -> FuncOp:
    """Candidates by penalized logits, the most likely first, and the probabilities to draw them with.

    A client draws one of the first top_k by their probabilities; those behind have 0.
    Source: penalty_sample of models/Qwen3/cpp_demo/chat.cpp in Sophgo's LLM-TPU.
    """
    number, count = TensorType((1,), F32), TensorType((1,), I32)
    ids = TensorType((1, length), I32)
    logits = TensorType((1, vocabulary), F32)
    head = Head(SAMPLE_HEAD, logits, ids, number, number, count, number)
    given, seen, penalty, temperature, top_k, top_p = head.args
    (penalized,) = head.add(llm.PenalizeOp(given, seen, penalty))
    candidates = min(CANDIDATES, vocabulary)
    values, indices = head.add(llm.TopkOp(penalized, k=candidates))
    least = min(LEAST, candidates)
    (weights,) = head.add(llm.NucleusOp(values, temperature, top_k, top_p, least=least))
    return head.finish(weights, indices)


class Head:
    """A function under construction, whose arguments are called as its net calls them."""

    def __init__(self, net: NetAttr, *types: TensorType) -> None:
        self.function = FuncOp.with_args(net.name, types, names=[each.name for each in net.inputs])
        self.function.attributes = {**self.function.attributes, KEY: net}
        self.args = self.function.args
        self.loc = NameLoc(net.name)

    def add(self, op: Op) -> tuple[Value, ...]:
        op.loc = self.loc
        self.function.block.append(op)
        return tuple(op.results)

    def finish(self, *results: Value) -> FuncOp:
        self.function.block.append(ReturnOp(*results))
        self.function.update_type()
        return self.function
