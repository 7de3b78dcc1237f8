"""Which modules of a model are compiled: those that share a weight as one, the embedding only if wanted."""

from __future__ import annotations

from collections.abc import Container, Iterator

from compiler.diagnostics import UserError
from compiler.ir.module import Module, walk
from dialects import llm
from dialects.builtin import ModuleOp, ReturnOp
from frontend.binding import Weights
from frontend.imported import ImportedModel, NetGroup


def groups_to_compile(
    model: ImportedModel, weights: Weights, embedding_disk: bool, narrow: Container[str] = ()
) -> list[NetGroup]:
    """The model's groups, without the nets that only look up rows where clients do that themselves.

    `narrow` are the parameters that linears read in fewer bits, and share with nothing.
    """
    if not embedding_disk:
        return sharing_weights(model.nets, weights, narrow)
    check_only_looks_up(embedding_of(model).module)
    return [group for group in model.nets if looked_up(group.module) is None]


def sharing_weights(
    groups: list[NetGroup], weights: Weights, narrow: Container[str] = ()
) -> list[NetGroup]:
    """Groups that are bound alike become one where the widest parameter is the same, as that of an embedding
    and of a tied output embedding: one blob then serves both.
    """
    found: list[NetGroup] = []
    for group in groups:
        same = [index for index, other in enumerate(found) if share_widest(other, group, weights, narrow)]
        if same:
            found[same[0]] = joined(found[same[0]], group)
        else:
            found.append(group)
    return found


def share_widest(one: NetGroup, other: NetGroup, weights: Weights, narrow: Container[str] = ()) -> bool:
    if one.instances != other.instances:
        return False
    names = [
        instance.parameter_name(op.name)
        for group in (one, other)
        for instance in group.instances[:1]
        if (op := widest(group.module)) is not None
    ]
    return len(names) == 2 and weights.same(*names) and not any(name in narrow for name in names)


def joined(one: NetGroup, other: NetGroup) -> NetGroup:
    """The functions of both, which name their widest parameter as the first does."""
    kept, renamed = (op.name for group in (one, other) if (op := widest(group.module)) is not None)
    functions = [*one.module.functions(), *other.module.functions()]
    module = ModuleOp.of(*(function.clone() for function in functions))  # type: ignore[arg-type]
    for op in weights_of(module):
        op.name = kept if op.name == renamed else op.name
    return NetGroup(module, one.instances)


def widest(module: Module) -> llm.WeightOp | None:
    """The parameter of the most items."""
    return max(weights_of(module), key=lambda op: op.y.type.size, default=None)


def weights_of(module: Module) -> Iterator[llm.WeightOp]:
    return (op for op in walk(module) if isinstance(op, llm.WeightOp))


def named_of(module: Module) -> Iterator[llm.WeightOp | llm.IndicesOp]:
    """What is read from the checkpoint by name."""
    return (op for op in walk(module) if isinstance(op, llm.WeightOp | llm.IndicesOp))


def embedding_of(model: ImportedModel) -> NetGroup:
    """The group whose nets look up rows by ids."""
    return next(group for group in model.nets if looked_up(group.module) is not None)


def looked_up(module: Module) -> llm.WeightOp | None:
    """The parameter that rows are picked from by ids; None in a module that picks none."""
    for op in walk(module):
        if isinstance(op, llm.EmbeddingOp):
            return op.table.defining(llm.WeightOp)
    return None


def table_of(model: ImportedModel) -> llm.WeightOp:
    """The embedding: one row per id."""
    op = looked_up(embedding_of(model).module)
    assert op is not None
    return op


def check_only_looks_up(module: ModuleOp) -> None:
    """UserError for an embedding that is more than rows of a table, which clients would not compute."""
    for function in module.functions():
        for op in function.block.ops:
            if not isinstance(op, llm.WeightOp | llm.EmbeddingOp | ReturnOp) and not op.is_dead():
                raise UserError(
                    f"--embedding_disk: this model does not take rows of its embedding as they are, "
                    f"it has {op.opname} behind them, in {op.loc}"
                )
