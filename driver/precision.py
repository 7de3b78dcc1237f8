"""Mixed precision: which weights of a model have bits of their own, by the rules that the user gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from compiler.client_nets import VIT
from compiler.diagnostics import UserError
from compiler.ir.core import Value
from compiler.ir.module import walk
from compiler.ir.types import TensorType
from compiler.weights.scheme import Scheme, scheme_of
from dialects import llm
from driver.rules import Rule
from frontend.imported import ImportedModel, Instance, NetGroup


@dataclass(frozen=True)
class Linear:
    """The weight of a linear, as a layer is bound to it."""

    op: llm.WeightOp
    instance: Instance

    @property
    def parameter(self) -> str:
        return self.instance.parameter_name(self.op.name)

    @property
    def module(self) -> str:
        return self.parameter.removesuffix(".weight")

    @property
    def in_layer(self) -> bool:
        return self.instance.layer is not None

    @property
    def type(self) -> TensorType:
        type_ = self.op.y.type
        assert isinstance(type_, TensorType)
        return type_


@dataclass(frozen=True)
class Precision:
    """Which linears of a model have bits of their own; those of a tower never have.

    `chosen` has those bits by parameter. UserError from `of` for a rule that applies to nothing, or asks for
    what a weight cannot be stored in.
    """

    chosen: Mapping[str, int]

    @classmethod
    def of(cls, model: ImportedModel, rules: Sequence[Rule], group: int) -> Precision:
        linears = [linear for nets in model.nets if nets.name != VIT for linear in linears_of(nets)]
        chosen = {}
        for rule in rules:
            found = [linear for linear in linears if rule.applies(linear.module, linear.in_layer)]
            if not found:
                raise nothing_found(rule, [linear.module for linear in linears])
            for linear in found:
                check_possible(rule, linear, group)
                chosen[linear.parameter] = rule.bits
        return cls(chosen)

    @property
    def narrow(self) -> frozenset[str]:
        """The parameters that become codes, whatever the others do."""
        return frozenset(name for name, bits in self.chosen.items() if bits < 16)

    def split(self, group: NetGroup) -> Iterator[NetGroup]:
        """The group by layers whose modules are chosen alike."""
        alike: dict[tuple[tuple[str, int], ...], list[Instance]] = {}
        for instance in group.instances:
            alike.setdefault(tuple(self.kept(group, instance).items()), []).append(instance)
        return (NetGroup(group.module, instances) for instances in alike.values())

    def kept(self, group: NetGroup, instance: Instance | None = None) -> dict[str, int]:
        """The bits of modules by the names that the IR gives them, as a layer has them: a group's first."""
        bound = NetGroup(group.module, [instance or group.instances[0]])
        found = {each.op.module: self.chosen.get(each.parameter) for each in linears_of(bound)}
        return {module: bits for module, bits in found.items() if bits is not None}


def linears_of(group: NetGroup) -> Iterator[Linear]:
    """Each weight that linears of a group's nets read, once for all that the group is bound to."""
    found: dict[str, llm.WeightOp] = {}
    for op in walk(group.module):
        for weight in op.projections if isinstance(op, llm.Projects) else ():
            found |= {part.name: part for part in parameters_of(weight)}
    return (Linear(op, instance) for instance in group.instances for op in found.values())


def parameters_of(weight: Value) -> Iterator[llm.WeightOp]:
    """What a weight is made of."""
    maker = weight.owner
    if isinstance(maker, llm.WeightOp):
        yield maker
    elif isinstance(maker, llm.IsWeight):
        for part in maker.operands:
            yield from parameters_of(part)


def check_possible(rule: Rule, linear: Linear, group: int) -> None:
    stored = scheme_of(linear.type)
    if stored is not None and stored.bits != rule.bits:
        raise UserError(f"{rule.flag}: {linear.module} has {stored.bits} bits in the checkpoint, which stay")
    if stored is not None or rule.bits == 16:
        return
    scheme = Scheme(rule.bits, group, False, linear.type.element)
    if problem := scheme.problem_in(linear.type.shape):
        raise UserError(f"{rule.flag} with -g {group}: the weight of {linear.module} {problem}")


def nothing_found(rule: Rule, modules: Sequence[str]) -> UserError:
    near = difflib.get_close_matches(rule.pattern, list(dict.fromkeys(modules)), n=3, cutoff=0.3)
    hint = f"; near it: {', '.join(near)}" if near else ""
    return UserError(f"{rule.flag}: the model has no linear of such a name{hint}")
