"""Models with one net or stage changed."""

from collections.abc import Callable
from dataclasses import replace

from compiler.bmodel import BModel, Net, Stage


def with_net(model: BModel, name: str, change: Callable[[Net], Net]) -> BModel:
    return replace(model, nets=[change(net) if net.name == name else net for net in model.nets])


def with_stage(model: BModel, name: str, change: Callable[[Stage], Stage]) -> BModel:
    return with_net(model, name, lambda net: replace(net, stages=[change(net.stages[0])]))
