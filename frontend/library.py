"""torch and transformers without the parts that take long to import, and that tracing a model never runs.

To import this module makes them so, as far as those parts are not there yet: it comes before transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import Any
from unittest.mock import patch

import torch.distributed
from transformers.utils.import_utils import is_torch_distributed_available


def unmarked(function: Callable[..., Any] | None = None, *_: Any, **_options: Any) -> Callable[..., Any]:
    """In the place of decorators that only tell torch.compile something."""
    return unmarked if function is None else function


class DTensor:
    """In the place of a tensor shared out among processes, of which there are none here."""


# What is looked up in such parts all the same: decorators for the compiler of torch by both libraries, and
# the class of distributed tensors by torch's dispatcher in C++.
STAND_INS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "torch._dynamo": dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), unmarked),
        "torch.distributed.tensor": {"DTensor": DTensor},
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
        return getattr(import_module(self.__name__), name)


def lighten() -> None:
    """transformers asks once whether torch can distribute, and does without where it cannot."""
    with patch.object(torch.distributed, "is_available", return_value=False):
        is_torch_distributed_available()
    for name, given in STAND_INS.items():
        if name not in sys.modules:
            sys.modules[name] = StandIn(name, given)


lighten()
