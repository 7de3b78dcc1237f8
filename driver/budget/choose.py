"""The choice of bits for each linear by a budget: `--size` and `--bits`.

The model runs once forward and back; by what that says of weights, their errors in 4 and 8 bits are weighed.
Of layers that are programmed alike there are few kinds afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.bmodel.writer import size_of_file
from compiler.diagnostics import UserError, log
from driver.budget.keep_flags import text_of
from driver.budget.knapsack import Layer, Plan, few_plans, total
from driver.budget.losses import measured
from driver.budget.space import Space
from driver.job import Job
from driver.options import ConvertOptions
from driver.write import named_embedding
from frontend.load import OpenedModel

PROGRAMS = 4  # of layers that would be one without bits of their own


def check_budget(options: ConvertOptions) -> None:
    """UserError where there is nothing to choose."""
    if options.budget is None:
        return
    if options.as_stored:
        why = f"the weights of {options.model_path} are codes already, which stay"
        raise UserError(f"{options.budget}: {why}: leave it out")
    if options.weight_bits != 4:
        raise UserError(f"{options.budget} with -q {options.quantize}: expected -q w4bf16 or w4f16")


def within_budget(job: Job, opened: OpenedModel) -> Job:
    """A job with bits for each linear that no flag speaks of; compiled already where its size was asked."""
    space = Space(job)
    if not space.free:
        raise UserError(f"{job.options.budget}: --keep leaves nothing to choose: leave one of them out")
    space.check_bits()
    layers = space.layers(measured(job, opened, space.parameters))
    if job.options.size is None:
        plans = few_plans(layers, space.bits_left, PROGRAMS)
        made = space.job_with(plans)
    else:
        plans, made = by_size(space, layers, job.options.size)
    note_choice(space, layers, plans, made)
    return made


def by_size(space: Space, layers: Sequence[Layer], size: int) -> tuple[list[Plan], Job]:
    """The most that goes into a file of so many bytes. Programs take some of it, and are compiled to know."""
    plans = [(0,) * len(layer.items) for layer in layers]
    least = sum(total(layer.items, plan).cost for layer, plan in zip(layers, plans, strict=True))
    made, found = compiled(space, plans)
    if found > size:
        raise UserError(f"--size: {size:,} bytes are too few: with 4 bits everywhere there are {found:,}")
    spare = size - found
    while spare > 0:
        wanted = few_plans(layers, least + spare, PROGRAMS)
        if not any(map(any, wanted)):
            break
        other, found = compiled(space, wanted)
        if found <= size:
            return wanted, with_dumps(space, wanted, other)
        spare -= found - size
    return plans, with_dumps(space, plans, made)


def compiled(space: Space, plans: Sequence[Plan]) -> tuple[Job, int]:
    """A job, and the bytes that its file will have."""
    job = space.job_with(plans)
    job.options = replace(job.options, dump_ir=None)
    job.compile()
    return job, size_of_file(named_embedding(job.bmodel(), job.options))


def with_dumps(space: Space, plans: Sequence[Plan], made: Job) -> Job:
    """To be compiled again where dumps are wanted."""
    return made if space.job.options.dump_ir is None else space.job_with(plans)


def note_choice(space: Space, layers: Sequence[Layer], plans: Sequence[Plan], made: Job) -> None:
    """Tell the flags that repeat it, and what it comes to."""
    items = [total(layer.items, plan) for layer, plan in zip(layers, plans, strict=True)]
    lost, most = sum(each.loss for each in items), sum(layer_loss(layer) for layer in layers)
    log.warning(
        "%s: %.2f bits per weight, and about %.0f%% of what 4 bits lose; the same by %s",
        *(space.job.options.budget, space.mean_bits(plans), 100 * lost / most if most else 100),
        text_of(made.options),
    )


def layer_loss(layer: Layer) -> float:
    """With the first choices."""
    return total(layer.items, (0,) * len(layer.items)).loss
