"""What each recorded function is in the llm dialect: one handler per function, named as ATen names it.

A handler takes the arguments of the function, with tensors as IR values (as numbers where the tensor is a
constant of one element), and gives the resulting value or values. What its Python signature does not take
is refused, and so is a function without a handler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

from compiler.ir.core import Op, Value
from compiler.ir.location import UNKNOWN, Location
from compiler.ir.module import Builder
from compiler.ir.types import ElementType, TensorType
from dialects import llm
from dialects.weights import transposed
from frontend.masks import visible

Number = float | int
Tensor = Value | Number
Handler = TypeVar("Handler", bound=Callable[..., Any])

HANDLERS: dict[str, Callable[..., Any]] = {}


class Unsupported(Exception):
    """The arguments are not among those that the handler understands."""


class Nothing:
    """A tensor without elements, such as the rest of a head that is rotated as a whole."""


NOTHING = Nothing()


@dataclass(frozen=True)
class PositionIds:
    """Positions [1, tokens], more by `first`; there are `count` of them. Without ids, each is there once."""

    ids: Value | None
    first: int
    count: int


@dataclass
class Emitter:
    """Adds llm ops at the end of a block, all from the module that is being imported."""

    builder: Builder
    element: ElementType
    loc: Location = UNKNOWN

    def __call__(self, op_class: type[Op], *operands: Any, **attributes: Any) -> Value:
        return self.builder.add(op_class(*operands, loc=self.loc, **attributes)).result

    def all(self, op_class: type[Op], *operands: Any, **attributes: Any) -> tuple[Value, ...]:
        """As a call, for an op of several results."""
        return tuple(self.builder.add(op_class(*operands, loc=self.loc, **attributes)).results)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        return x if x.type.shape == tuple(shape) else self(llm.ReshapeOp, x, shape=tuple(shape))


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler under the names of functions, without their overload."""

    def wrap(function: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, function))
        return function

    return wrap


# ---- kept whole by the tracer ----


@handles("linear")
def linear(emit: Emitter, input: Value, weight: Value, bias: Value | None = None) -> Value:
    return emit(llm.LinearOp, input, weight, bias)


@handles("aten.addmm")
def addmm(emit: Emitter, self: Value, mat1: Value, mat2: Value, beta: Number = 1, alpha: Number = 1) -> Value:
    """x @ W + b, where a class keeps the weight of a linear as [inputs, outputs]."""
    weight = mat2.defining(llm.WeightOp)
    require(alpha == beta == 1, "factors other than 1")
    if weight is None or mat2.type.layout is not None:
        raise Unsupported("a product with what is no plain parameter")
    inputs, outputs = mat2.type.shape
    turned = TensorType((outputs, inputs), mat2.type.element)
    return linear(emit, mat1, emit(llm.WeightOp, name=transposed(weight.name), types=[turned]), self)


@handles("matmul")
def matmul(emit: Emitter, input: Value, other: Value) -> Value:
    return emit(llm.MatmulOp, input, other)


@handles("softmax")
def softmax(emit: Emitter, input: Value, dim: int, _stacklevel: int = 3, dtype: str | None = None) -> Value:
    return emit(llm.SoftmaxOp, input, axis=axis_of(input, dim))


@handles("layer_norm")
def layer_norm(
    emit: Emitter,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    require(tuple(normalized_shape) == input.type.shape[-1:], "a norm over more than the last axis")
    return emit(llm.LayerNormOp, input, weight, bias, eps=eps)


@handles("rms_norm")
def rms_norm(
    emit: Emitter,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    require(eps is not None, "a norm whose eps depends on the number format")
    require(tuple(normalized_shape) == input.type.shape[-1:], "a norm over more than the last axis")
    return emit(llm.RmsNormOp, input, weight, eps=eps)


@handles("llm.attention")
def attention(
    emit: Emitter,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None,
    sinks: Value | None,
    scale: float,
    softcap: float,
    shown: str,
) -> Value:
    return emit(llm.AttentionOp, q, k, v, mask, sinks, scale=scale, softcap=softcap, visible=visible(shown))


@handles("llm.kv_concat")
def kv_concat(emit: Emitter, history: Value, new: Value) -> Value:
    return emit(llm.KvConcatOp, history, new)


@handles("aten.embedding")
def embedding(
    emit: Emitter, weight: Value, indices: Value | PositionIds, padding_idx: int = -1, **_training: Any
) -> Value:
    # The padding row differs in training only.
    if isinstance(indices, PositionIds):
        return learned_positions(emit, weight, indices)
    require(not indices.type.element.is_float, "an embedding of something else than ids")
    return emit(llm.EmbeddingOp, indices, weight)


def learned_positions(emit: Emitter, weight: Value, positions: PositionIds) -> Value:
    """Rows of a parameter by position, of which a program stores those that it may read."""
    first, last = positions.first, positions.first + positions.count
    rows = weight.type.shape[0]
    require(last <= rows, f"{last} rows of positions are needed, of {rows}: a shorter sequence has less")
    if last - first < rows:
        weight = emit(llm.SliceWeightsOp, weight, start=first, stop=last)
    if positions.ids is None:
        return emit.reshape(weight, (1, *weight.type.shape))
    return emit(llm.GatherRowsOp, weight, positions.ids)


# ---- arithmetic ----


@handles("aten.add")
def add(emit: Emitter, self: Tensor, other: Tensor, alpha: Number = 1) -> Value:
    require(alpha == 1, "alpha other than 1")
    return commutative(emit, llm.AddOp, self, other)


@handles("aten.mul")
def mul(emit: Emitter, self: Tensor, other: Tensor) -> Value:
    return commutative(emit, llm.MulOp, self, other)


@handles("aten.sub")
def sub(emit: Emitter, self: Tensor, other: Tensor, alpha: Number = 1) -> Value:
    require(alpha == 1, "alpha other than 1")
    if not isinstance(self, Value):
        return rsub(emit, value_of(other), self)
    return ordered(emit, llm.SubOp, self, other)


@handles("aten.rsub")
def rsub(emit: Emitter, self: Value, other: Tensor, alpha: Number = 1) -> Value:
    """other - self."""
    require(alpha == 1, "alpha other than 1")
    return commutative(emit, llm.AddOp, emit(llm.NegOp, self), other)


@handles("aten.div")
def div(emit: Emitter, self: Tensor, other: Tensor) -> Value:
    if not isinstance(self, Value):
        return commutative(emit, llm.MulOp, emit(llm.PowOp, value_of(other), exponent=-1.0), self)
    return ordered(emit, llm.DivOp, self, other)


@handles("aten.pow")
def pow(emit: Emitter, self: Tensor, exponent: Tensor) -> Value:
    require(not isinstance(exponent, Value), "a power of a tensor")
    if exponent == -0.5:
        return emit(llm.RsqrtOp, self)
    return emit(llm.PowOp, value_of(self), exponent=float(exponent))  # type: ignore[arg-type]


@handles("aten.sqrt")
def sqrt(emit: Emitter, self: Value) -> Value:
    return emit(llm.PowOp, self, exponent=0.5)


@handles("aten.reciprocal")
def reciprocal(emit: Emitter, self: Value) -> Value:
    return emit(llm.PowOp, self, exponent=-1.0)


@handles("aten.neg")
def neg(emit: Emitter, self: Value) -> Value:
    return emit(llm.NegOp, self)


@handles("aten.rsqrt")
def rsqrt(emit: Emitter, self: Value) -> Value:
    return emit(llm.RsqrtOp, self)


@handles("aten.clamp")
def clamp(emit: Emitter, self: Value, min: Number | None = None, max: Number | None = None) -> Value:
    return emit(llm.ClampOp, self, min=optional_float(min), max=optional_float(max))


@handles("aten.mean")
def mean(emit: Emitter, self: Value, dim: Any, keepdim: bool = False, dtype: str | None = None) -> Value:
    return reduction(emit, llm.MeanOp, self, dim, keepdim)


@handles("aten.sum")
def sum_over(emit: Emitter, self: Value, dim: Any, keepdim: bool = False, dtype: str | None = None) -> Value:
    return reduction(emit, llm.ReduceSumOp, self, dim, keepdim)


@handles("aten.bitwise_not", "aten.logical_not")
def logical_not(emit: Emitter, self: Value) -> Value:
    """Of truth values alone, as the importer refuses what gives integers."""
    return emit(llm.LogicalNotOp, self)


# ---- activations ----


@handles("aten.silu")
def silu(emit: Emitter, self: Value) -> Value:
    return emit(llm.ActOp, self, kind="silu")


@handles("aten.gelu")
def gelu(emit: Emitter, self: Value, approximate: str = "none") -> Value:
    return emit(llm.ActOp, self, kind="gelu_tanh" if approximate == "tanh" else "gelu")


@handles("aten.relu")
def relu(emit: Emitter, self: Value) -> Value:
    return emit(llm.ActOp, self, kind="relu")


@handles("aten.sigmoid")
def sigmoid(emit: Emitter, self: Value) -> Value:
    return emit(llm.ActOp, self, kind="sigmoid")


@handles("aten.tanh")
def tanh(emit: Emitter, self: Value) -> Value:
    return emit(llm.ActOp, self, kind="tanh")


# ---- data movement ----


@handles("aten.alias", "aten.detach", "aten.clone", "aten.contiguous", "aten.lift_fresh")
def same(emit: Emitter, self: Value, **_storage: Any) -> Value:
    return self


@handles("aten._to_copy")
def to_copy(emit: Emitter, self: Value, dtype: str | None = None, **_storage: Any) -> Value:
    """Truth values are 0 and 1; the importer refuses casts between floats and integers."""
    return logical_not(emit, logical_not(emit, self)) if dtype == "torch.bool" else self


@handles("aten.copy")
def copy(emit: Emitter, self: Value, src: Tensor, non_blocking: bool = False) -> Value:
    return expand(emit, value_of(src), self.type.shape)


@handles("aten.view", "aten._unsafe_view", "aten.reshape")
def view(emit: Emitter, self: Value, size: Sequence[int]) -> Value:
    known = -prod(size) if -1 in size else 1
    return emit.reshape(self, [prod(self.type.shape) // known if n == -1 else n for n in size])


@handles("aten.unsqueeze")
def unsqueeze(emit: Emitter, self: Value, dim: int) -> Value:
    shape = list(self.type.shape)
    shape.insert(dim if dim >= 0 else dim + len(shape) + 1, 1)
    return emit.reshape(self, shape)


@handles("aten.squeeze")
def squeeze(emit: Emitter, self: Value, dim: int | Sequence[int] | None = None) -> Value:
    rank = len(self.type.shape)
    axes = range(rank) if dim is None else [axis_of(self, d) for d in listed(dim)]
    return emit.reshape(self, [n for i, n in enumerate(self.type.shape) if i not in axes or n != 1])


@handles("aten.expand")
def expand(emit: Emitter, self: Value, size: Sequence[int], implicit: bool = False) -> Value:
    shape = (1,) * (len(size) - len(self.type.shape)) + self.type.shape
    wanted = tuple(old if new == -1 else new for old, new in zip(shape, size, strict=True))
    x = emit.reshape(self, shape)
    return x if shape == wanted else emit(llm.BroadcastOp, x, shape=wanted)


@handles("aten.permute")
def permute(emit: Emitter, self: Value, dims: Sequence[int]) -> Value:
    return emit(llm.PermuteOp, self, order=tuple(axis_of(self, dim) for dim in dims))


@handles("aten.transpose")
def transpose(emit: Emitter, self: Value, dim0: int, dim1: int) -> Value:
    order = list(range(len(self.type.shape)))
    a, b = axis_of(self, dim0), axis_of(self, dim1)
    order[a], order[b] = order[b], order[a]
    return emit(llm.PermuteOp, self, order=tuple(order))


@handles("aten.t")
def t(emit: Emitter, self: Value) -> Value:
    return permute(emit, self, (1, 0))


@handles("aten.slice")
def slice_of(
    emit: Emitter,
    self: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    axis = axis_of(self, dim)
    length = self.type.shape[axis]
    first, last, _ = slice(start, end, step).indices(length)
    if (first, last, step) == (0, length, 1):
        return self
    if first >= last:
        return NOTHING
    return emit(llm.SliceOp, self, axis=axis, start=first, stop=last, step=step)


@handles("aten.select")
def select(emit: Emitter, self: Value, dim: int, index: int) -> Value:
    axis = axis_of(self, dim)
    at = index % self.type.shape[axis]
    shape = self.type.shape[:axis] + self.type.shape[axis + 1 :]
    return emit.reshape(slice_of(emit, self, axis, at, at + 1), shape)


@handles("aten.split_with_sizes")
def split_with_sizes(emit: Emitter, self: Value, split_sizes: Sequence[int], dim: int = 0) -> list[Value]:
    ends = [sum(split_sizes[: i + 1]) for i in range(len(split_sizes))]
    return [slice_of(emit, self, dim, end - n, end) for n, end in zip(split_sizes, ends, strict=True)]


@handles("aten.split")
def split(emit: Emitter, self: Value, split_size: int, dim: int = 0) -> list[Value]:
    length = self.type.shape[axis_of(self, dim)]
    return [slice_of(emit, self, dim, i, i + split_size) for i in range(0, length, split_size)]


@handles("aten.unbind")
def unbind(emit: Emitter, self: Value, dim: int = 0) -> list[Value]:
    return [select(emit, self, dim, i) for i in range(self.type.shape[axis_of(self, dim)])]


@handles("aten.cat")
def cat(emit: Emitter, tensors: Sequence[Value | Nothing], dim: int = 0) -> Value:
    parts = [part for part in tensors if isinstance(part, Value)]
    return emit(llm.ConcatOp, tuple(parts), axis=axis_of(parts[0], dim))


@handles("aten.stack")
def stack(emit: Emitter, tensors: Sequence[Value], dim: int = 0) -> Value:
    axis = dim if dim >= 0 else dim + len(tensors[0].type.shape) + 1
    return cat(emit, [unsqueeze(emit, x, axis) for x in tensors], axis)


@handles("aten.slice_scatter")
def slice_scatter(
    emit: Emitter,
    self: Value,
    src: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    """`self` with the range replaced by `src`."""
    require(step == 1, "a write with a step")
    axis = axis_of(self, dim)
    length = self.type.shape[axis]
    first, last, _ = slice(start, end).indices(length)
    pieces = [(0, first, None), (first, last, src), (last, length, None)]
    return emit(
        llm.ConcatOp,
        tuple(new or slice_of(emit, self, axis, a, b) for a, b, new in pieces if a < b),
        axis=axis,
    )


# ---- shared by handlers ----


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Unsupported(otherwise)


def value_of(x: Tensor) -> Value:
    """The operand as a tensor; a number where a tensor is needed is refused."""
    if not isinstance(x, Value):
        raise Unsupported("a number in place of a tensor")
    return x


def is_last(x: Value, dim: int) -> bool:
    return axis_of(x, dim) == len(x.type.shape) - 1


def axis_of(x: Value, dim: int) -> int:
    return dim % len(x.type.shape)


def listed(dim: int | Sequence[int]) -> Sequence[int]:
    return [dim] if isinstance(dim, int) else dim


def optional_float(x: Number | None) -> float | None:
    return None if x is None else float(x)


def ordered(emit: Emitter, op_class: type[Op], x: Value, y: Tensor) -> Value:
    if isinstance(y, Value):
        return emit(op_class, x, y)
    return emit(op_class, x, value=float(y))


def commutative(emit: Emitter, op_class: type[Op], x: Tensor, y: Tensor) -> Value:
    """A number goes second, and so does a float32 table, since the result has the type of the first."""
    if not isinstance(x, Value) or (isinstance(y, Value) and x.type.element != emit.element):
        x, y = y, x
    return ordered(emit, op_class, value_of(x), y)


def reduction(emit: Emitter, op_class: type[Op], x: Value, dim: Any, keepdim: bool) -> Value:
    axes = listed(dim)
    require(len(axes) == 1, "a reduction over several axes")
    axis = axis_of(x, axes[0])
    reduced = emit(op_class, x, axis=axis)
    shape = x.type.shape
    return reduced if keepdim else emit.reshape(reduced, shape[:axis] + shape[axis + 1 :])
