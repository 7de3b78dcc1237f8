"""torch and transformers without the parts that take long to import, and that tracing a model never runs.

To import this module makes them so, as far as those parts are not there yet: it comes before transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from operator import eq
from types import MappingProxyType, ModuleType
from typing import Any
from unittest.mock import patch

import torch.distributed
from transformers.utils.import_utils import is_torch_distributed_available


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
# for shapes, which takes symbols of sympy for possible.
STAND_INS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "torch._dynamo": dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), unmarked),
        "torch.distributed.tensor": {"DTensor": Nothing},
        "torch.fx.experimental.symbolic_shapes": {
            **dict.fromkeys((*ASKED, "guarding_hint_or_throw"), itself),
            "has_guarding_hint": lambda value: True,
            "is_nested_int": lambda value: False,
            "sym_and": all_of,
            "sym_eq": eq,
            "sym_or": any_of,
        },
        "sympy": {"Basic": Nothing},
    }
)


class StandIn(ModuleType):
    """A module that has some names at once, and imports the real one when it is asked for any other."""

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(given)
        spec = find_spec(name)
        assert spec is not None
        self.__path__ = spec.submodule_search_locations or []  # its parts can be imported by themselves

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        self.__dict__.update(vars(import_module(self.__name__)))  # as some have bound this one by now
        return getattr(sys.modules[self.__name__], name)


def lighten() -> None:
    """transformers asks once whether torch can distribute, and does without where it cannot."""
    with patch.object(torch.distributed, "is_available", return_value=False):
        is_torch_distributed_available()
    for name, given in STAND_INS.items():
        if name not in sys.modules:
            sys.modules[name] = StandIn(name, given)


lighten()
