"""Which programs of a file are measured, and which are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compiler.bmodel import BModel
from runtime_sim.launch.loader import Program
from runtime_sim.tool.measured import measure_file
from tests.runtime_sim.check.programs import add_model


def with_other(model: BModel, **stage: Any) -> Program:
    """The model with a second net, whose stage differs in some fields."""
    other = replace(model.nets[0], name="other", stages=[replace(model.nets[0].stages[0], **stage)])
    return Program(replace(model, nets=[*model.nets, other]))


def test_a_net_that_cannot_be_decoded_is_named():
    measured = measure_file(with_other(add_model(), unsupported="a CPU subnet", cores=[]))
    assert [group.title for group in measured.groups] == ["add"]
    assert "a CPU subnet" in measured.incomplete["other"]


def test_the_static_parts_of_a_net_are_measured_one_after_the_other():
    model = add_model()
    streams = model.nets[0].stages[0].cores
    measured = measure_file(with_other(model, unsupported="2 sub-nets", cores=[], parts=[streams, streams]))
    once, twice = (measured.model.nets[name] for name in ("add", "other"))
    assert twice.cycles == 2 * once.cycles
    assert twice.work.ddr_read == 2 * once.work.ddr_read
    assert "2 sub-nets" in measured.incomplete["other"]
