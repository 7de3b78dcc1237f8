"""What a budget has to choose from: the linears that no flag speaks of, and what they cost in each width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from compiler.client_nets import VIT
from compiler.diagnostics import UserError
from compiler.weights.part import parameter_of
from compiler.weights.scheme import scheme_of
from dialects.weights import view_of_name
from driver.budget.keep_flags import flags_for
from driver.budget.knapsack import Choice, Layer, Plan
from driver.budget.losses import Losses, scheme
from driver.groups import embedding_of, table_of
from driver.job import Job
from driver.precision import Linear, linears_of
from driver.rules import BITS


@dataclass(frozen=True)
class Space:
    """What there is to choose for a job: linears by layer, that no flag speaks of."""

    job: Job

    @cached_property
    def linears(self) -> list[list[Linear]]:
        """Those of each layer, and of the head, that become codes or could."""
        nets = [nets for nets in self.job.model.nets if nets.name != VIT]
        bound = [replace(nets, instances=[each]) for nets in nets for each in nets.instances]
        return [[linear for linear in linears_of(each) if not self.stays(linear)] for each in bound]

    def stays(self, linear: Linear) -> bool:
        """Whether it has codes already, or its rows are in the file anyway, as those of the embedding."""
        job, name = self.job, linear.parameter
        if linear.in_layer or job.options.embedding_disk or name in job.precision.chosen:
            return scheme_of(linear.type) is not None
        table = embedding_of(job.model).instances[0].parameter_name(table_of(job.model).name)
        return scheme_of(linear.type) is not None or job.weights.same(name, table)

    @cached_property
    def free(self) -> list[list[Linear]]:
        chosen = self.job.precision.chosen
        parts = [[each for each in part if each.parameter not in chosen] for part in self.linears]
        return [part for part in parts if part]

    @property
    def parameters(self) -> frozenset[str]:
        """What is to be measured."""
        return frozenset(measured_name(linear) for part in self.free for linear in part)

    def cost(self, linear: Linear, bits: int) -> int:
        """Bytes in the file, or bits of codes alone where their mean is what counts."""
        options, shape, size = self.job.options, linear.type.shape, linear.type.size
        if options.size is None:
            return size * bits
        if bits == 16:
            return size * 2
        beside = 3 if scheme(options, bits).zeros else 2  # bytes for a group
        return size * bits // 8 + size // shape[-1] * (shape[-1] // options.group) * beside

    @cached_property
    def counted(self) -> int:
        """Weights of blocks and head."""
        return sum(linear.type.size for part in self.linears for linear in part)

    @cached_property
    def fixed(self) -> int:
        """Bits of what other flags speak of."""
        chosen = self.job.precision.chosen
        linears = [linear for part in self.linears for linear in part if linear.parameter in chosen]
        return sum(linear.type.size * chosen[linear.parameter] for linear in linears)

    @property
    def bits_left(self) -> int:
        return int((self.job.options.bits or 0) * self.counted) - self.fixed

    def check_bits(self) -> None:
        """UserError for less than 4 bits come to."""
        least = self.mean_bits([(0,) * len(part) for part in self.free]) * self.counted
        bits = self.job.options.bits
        if bits is not None and bits * self.counted < least:
            mean = np.ceil(least / self.counted * 1000) / 1000
            raise UserError(f"--bits {bits:g}: the least is {mean:g}, with 4 bits for all that --keep leaves")

    def layers(self, losses: Losses) -> list[Layer]:
        return [
            Layer(
                tuple(id(linear.op) for linear in part),  # which layers of one program have in common
                [self.item(linear, losses) for linear in part],
            )
            for part in self.free
        ]

    def item(self, linear: Linear, losses: Losses) -> list[Choice]:
        """Its part of what is lost of a parameter; nothing is known to be where that was not run."""
        name = measured_name(linear)
        lost = losses.get(name, np.zeros(len(BITS)))
        share = linear.type.size / max(1, int(np.prod(self.job.weights.shape(name))))
        return [
            Choice(self.cost(linear, bits), float(loss * share))
            for bits, loss in zip(BITS, lost, strict=True)
        ]

    def bits_of(self, plans: Sequence[Plan]) -> list[tuple[Linear, int]]:
        return [
            (linear, BITS[index])
            for part, plan in zip(self.free, plans, strict=True)
            for linear, index in zip(part, plan, strict=True)
        ]

    def mean_bits(self, plans: Sequence[Plan]) -> float:
        """Of blocks and head."""
        chosen = sum(linear.type.size * bits for linear, bits in self.bits_of(plans))
        return (chosen + self.fixed) / self.counted

    def job_with(self, plans: Sequence[Plan]) -> Job:
        """A new one, whose flags say the plans."""
        job, options = self.job, self.job.options
        head, keep = flags_for(self.bits_of(plans))
        given = replace(
            options,
            size=None,
            bits=None,
            keep=[*keep, *(options.keep or ())] or None,
            lm_head_quantize=options.lm_head_quantize if head is None else head,
        )
        return Job(
            given, job.model, job.weights, cache=job.cache, executor=job.executor, importance=job.importance
        )


def measured_name(linear: Linear) -> str:
    """The parameter of the model that it is, or is a part of."""
    return parameter_of(view_of_name(linear.parameter).tensor)
