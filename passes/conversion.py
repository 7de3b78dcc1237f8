"""What passes share that turn one dialect into another: a table of rules, one for each op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from compiler.ir.core import Op

Rule = TypeVar("Rule", bound=Callable[..., Any])


class Rules:
    """The rules of one conversion, by the class of the op that each takes; `target` is what they make of it.

    A table is filled by importing the modules in which its rules are.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._rules: dict[type[Op], Callable[..., Any]] = {}

    def __call__(self, *op_classes: type[Op]) -> Callable[[Rule], Rule]:
        """Register the decorated rule for these classes and those derived from them."""

        def register(rule: Rule) -> Rule:
            for op_class in op_classes:
                assert op_class not in self._rules, f"{op_class.__name__} has a rule already"
                self._rules[op_class] = rule
            return rule

        return register

    def knows(self, op_class: type[Op]) -> bool:
        """Whether ops of a class have a rule."""
        return any(each in self._rules for each in op_class.__mro__)

    def find(self, op: Op) -> Callable[..., Any]:
        """The rule of the op's class, or of the nearest that it derives from; a CompileError without one."""
        for op_class in type(op).__mro__:
            if op_class in self._rules:
                return self._rules[op_class]
        op.fail(f"has no lowering to {self.target}")
