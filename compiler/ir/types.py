"""Types and attributes: immutable, compared by value, printed and parsed from their dataclass fields."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from compiler.ir.text import Write, attribute_text, list_text, object_text

if TYPE_CHECKING:
    import numpy as np

MAX_SIZE = 1 << 31  # of one axis
MAX_ITEMS = 1 << 40  # of an array: more than any memory holds

C = TypeVar("C", bound="type[Attribute]")

# Text name, such as "chip.view", to the dataclass that prints and parses under it.
TYPES: dict[str, type[Type]] = {}
ATTRIBUTES: dict[str, type[Attribute]] = {}


class Attribute:
    """A constant known at compile time. Dialects derive frozen dataclasses with ``@attr_def``."""

    mnemonic: ClassVar[str] = ""
    sigil: ClassVar[str] = "#"

    def problem(self) -> str | None:
        """What is wrong with the values of its fields, whose types are right; None when nothing is."""
        return None

    def problem_in(self, shape: tuple[int, ...]) -> str | None:
        """What is wrong with it as the layout of an array of that shape."""
        return "is no layout"

    def may_be(self, other: Attribute | None) -> bool:
        """Whether, as the layout that an op infers for a result, it leaves room for that other one."""
        return self == other

    def text(self, write: Write) -> str:
        """As MLIR writes it; ``write`` is for the types and attributes inside that MLIR itself looks at."""
        return object_text(self.sigil, self)

    def alias(self) -> str | None:
        """A word such as ``lanes1`` that may stand for it in the text of a module; None to write it out.

        Where two that differ give the same word, the text numbers them.
        """
        return None

    def __str__(self) -> str:
        return self.text(attribute_text)


class Type(Attribute):
    """The type of a value. Dialects derive frozen dataclasses with ``@type_def``."""

    sigil = "!"


def type_def(name: str) -> Callable[[C], C]:
    """Register a dataclass as the type ``!name<field = value, ...>``."""
    return _register(name, TYPES)


def attr_def(name: str) -> Callable[[C], C]:
    """Register a dataclass as the attribute ``#name<field = value, ...>``."""
    return _register(name, ATTRIBUTES)


def _register(name: str, table: dict[str, Any]) -> Callable[[C], C]:
    def wrap(cls: C) -> C:
        assert name not in table, f"{name} is defined twice"
        cls.mnemonic = name
        table[name] = cls
        return cls

    return wrap


@dataclass(frozen=True, eq=False)
class ElementType(Type):
    """A number format, named as MLIR names it; compared by identity, so use the singletons below."""

    name: str
    bits: int
    numpy_name: str

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype that holds one element; sub-byte formats take a whole byte there."""
        import ml_dtypes
        import numpy as np

        return np.dtype(getattr(ml_dtypes, self.numpy_name, None) or self.numpy_name)

    @property
    def bytes(self) -> int:
        """Bytes of one element; sub-byte formats have no such number (use TensorType.bytes)."""
        assert self.bits >= 8, f"{self.name} elements are smaller than a byte"
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return "f" in self.name

    def text(self, write: Write) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (element, (self.name,))


F32 = ElementType("f32", 32, "float32")
F64 = ElementType("f64", 64, "float64")
F16 = ElementType("f16", 16, "float16")
BF16 = ElementType("bf16", 16, "bfloat16")
F8E4M3FN = ElementType("f8E4M3FN", 8, "float8_e4m3fn")
F8E5M2 = ElementType("f8E5M2", 8, "float8_e5m2")
I1 = ElementType("i1", 1, "bool")
I4 = ElementType("i4", 4, "int4")
I8 = ElementType("i8", 8, "int8")
I16 = ElementType("i16", 16, "int16")
I32 = ElementType("i32", 32, "int32")
I64 = ElementType("i64", 64, "int64")
UI4 = ElementType("ui4", 4, "uint4")
UI8 = ElementType("ui8", 8, "uint8")
UI16 = ElementType("ui16", 16, "uint16")
UI32 = ElementType("ui32", 32, "uint32")
UI64 = ElementType("ui64", 64, "uint64")

ELEMENTS: dict[str, ElementType] = {
    e.name: e
    for e in (F32, F64, F16, BF16, F8E4M3FN, F8E5M2, I1, I4, I8, I16, I32, I64, UI4, UI8, UI16, UI32, UI64)
}


def element(name: str) -> ElementType:
    """The element type of that MLIR name; KeyError when there is none."""
    return ELEMENTS[name]


@dataclass(frozen=True)
class TensorType(Type):
    """A dense array of static shape; ``layout`` says how a dialect places it."""

    shape: tuple[int, ...]
    element: ElementType
    layout: Attribute | None = None

    def __post_init__(self) -> None:
        assert isinstance(self.shape, tuple), f"shape must be a tuple, got {self.shape!r}"

    def text(self, write: Write) -> str:
        dims = "x".join([*map(str, self.shape), self.element.name])
        return f"tensor<{dims}>" if self.layout is None else f"tensor<{dims}, {write(self.layout)}>"

    def problem(self) -> str | None:
        if min(self.shape, default=1) < 1 or max(self.shape, default=1) > MAX_SIZE or self.size > MAX_ITEMS:
            return f"has sizes that are not between 1 and {MAX_SIZE}, or more than {MAX_ITEMS} items"
        return None if self.layout is None else self.layout.problem_in(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes when packed without gaps; sub-byte elements share bytes."""
        return (self.size * self.element.bits + 7) // 8


@dataclass(frozen=True)
class FunctionType(Type):
    """``(inputs) -> results`` of a function."""

    inputs: tuple[Type, ...]
    results: tuple[Type, ...]

    def text(self, write: Write) -> str:
        return f"({', '.join(map(write, self.inputs))}) -> {list_text(list(map(write, self.results)))}"


@dataclass(frozen=True)
class Symbol(Attribute):
    """A reference to a function by name: ``@name``."""

    name: str

    def text(self, write: Write) -> str:
        return f"@{self.name}"


@dataclass(frozen=True)
class Unit(Attribute):
    """The attribute whose presence is its whole meaning: ``unit``."""

    def text(self, write: Write) -> str:
        return "unit"


UNIT = Unit()
