"""Stand-ins for parts of torch and transformers that take long to import, and that tracing never runs.

They are put in the place of parts that are not there yet when anything of the frontend is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from itertools import accumulate
from operator import eq
from types import MappingProxyType, ModuleType
from typing import Any

from typing_extensions import Unpack


def unmarked(function: Callable[..., Any] | None = None, *_: Any, **_options: Any) -> Callable[..., Any]:
    """In the place of decorators that only tell torch.compile something."""
    return unmarked if function is None else function


class Nothing:
    """In the place of the class of what there is none of here."""


def itself(value: Any, *_: Any, **_options: Any) -> Any:
    """In the place of asking what a condition or a size is that may be symbolic: ours are all known."""
    return value


def any_of(*values: bool) -> bool:
    return any(values)


def all_of(*values: bool) -> bool:
    return all(values)


ASKED = ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "statically_known_true")

# What is looked up in such parts all the same: decorators for the compiler of torch by both libraries, the
# class of distributed tensors by torch's dispatcher in C++, and what shapes and conditions are by its rules
# for shapes, which takes symbols of sympy for possible. The packages of transformers read all files of all
# models for the names in them, which modules of theirs do without, and so does its module of processors, of
# which models take the mark of their keywords.
STAND_INS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "torch._dynamo": dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), unmarked),
        "torch.distributed.tensor": {"DTensor": Nothing},
        "torch.export": {},
        "torch.fx.experimental.symbolic_shapes": {
            **dict.fromkeys((*ASKED, "guarding_hint_or_throw"), itself),
            "has_guarding_hint": lambda value: True,
            "is_nested_int": lambda value: False,
            "sym_and": all_of,
            "sym_eq": eq,
            "sym_or": any_of,
        },
        "gguf": {},
        "sympy": {"Basic": Nothing},
        "transformers": {},
        "transformers.models": {},
        "transformers.processing_utils": {"Unpack": Unpack},
    }
)


class StandIn(ModuleType):
    """A module that has some names at once, and imports the real one when it is asked for any other.

    The modules in a package can be imported by themselves.
    """

    def __init__(self, spec: ModuleSpec, given: Mapping[str, Any]) -> None:
        super().__init__(spec.name)
        self.__dict__.update(given)
        self.__path__ = spec.submodule_search_locations or []

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return version(self.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        inner = f"{self.__name__}.{name}"
        if self.__path__ and found(inner, self.__path__) is not None:
            return import_module(inner)
        return getattr(self.real(), name)

    def real(self) -> ModuleType:
        """What it stands for, imported; also for those who have bound this one by now."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = import_module(self.__name__)
        self.__dict__.update(vars(module))
        return module


def spec_of(name: str) -> ModuleSpec | None:
    """Where a module is, without importing the packages around it."""
    path: Sequence[str] | None = None
    spec = None
    for package in accumulate(name.split("."), "{}.{}".format):
        spec = found(package, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def found(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    specs = (finder.find_spec(name, path) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def put_in_place() -> None:
    for name, given in STAND_INS.items():
        spec = None if name in sys.modules else spec_of(name)
        if spec is not None:
            sys.modules[name] = StandIn(spec, given)
