"""Where a wrong net goes wrong: the first pass after which it parts from Hugging Face, and the first op.

The dumps of a compilation (`llm_convert.py --dump-ir`) are run one after the other on the inputs that
`verify` gave the net, with weights from the reference's checkpoint; last comes the file itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from compiler.diagnostics import CompileError
from driver.bisect.chip import differs_in_file, first_instruction, first_placed
from driver.bisect.dumps import CannotRun, DumpedNet, Stage, without_padding
from driver.bisect.values import first_module, first_value
from passes import load_all
from runtime_sim.tool.verify import Suspect

UNKNOWN_OP = "the op is not known: what can be compared with the stage before is the same"


def bisect_net(suspect: Suspect, folder: Path) -> Iterator[str]:
    """Lines for a person: how close each stage is, the pass that parts, and the op."""
    load_all()
    net = DumpedNet.of(suspect, folder)
    before: Stage | None = None
    for stage in net.stages():
        try:
            outputs = net.run(stage)
        except CannotRun as error:
            yield f"{stage.path.name:36} skipped: {error}"
            continue
        except CompileError as error:
            yield f"{stage.path.name:36} cannot run"
            yield from parting(net, before, stage, error.message)
            return
        yield f"{stage.path.name:36} cosine {suspect.run.cosine(outputs):.6f}"
        if suspect.parts(outputs):
            yield from parting(net, before, stage)
            return
        before = stage
    assert before is not None, "the dump before all passes can always run"
    yield from file_lines(net, before)


def parting(net: DumpedNet, before: Stage | None, stage: Stage, problem: str = "") -> Iterator[str]:
    name = net.suspect.run.net.name
    if before is None:
        yield f"{name} parts from the reference before any pass, in {stage.path}"
        yield problem or first_module(net, stage) or UNKNOWN_OP
        return
    yield f"{name} parts from the reference in pass {stage.pass_name}, {stage.path}"
    yield problem or first_op(net, before, stage) or UNKNOWN_OP


def first_op(net: DumpedNet, before: Stage, stage: Stage) -> str | None:
    """The first op at which a stage parts from the one before, as far as their levels can be compared.

    Passes may change what they compute for the padding of a prompt, so that is first replaced by tokens.
    """
    compare = first_value
    if stage.level == "chip":
        compare = first_instruction if before.level == "chip" else first_placed
    run = net.suspect.run
    found = compare(replace(net, inputs=without_padding(run)), before, stage)
    if found:
        return found
    found = compare(net, before, stage)
    return f"{found}\n  (this shows only with padding after the prompt)" if found else None


def file_lines(net: DumpedNet, last: Stage) -> Iterator[str]:
    """The same for the file after the last stage that could run."""
    run = net.suspect.run
    outputs = net.run_file()
    yield f"{'the file':36} cosine {run.cosine(outputs):.6f}"
    if not net.suspect.parts(outputs):
        yield f"{run.net.name} does not part from the reference"
        return
    yield f"{run.net.name} parts from the reference in the file, after {last.path}"
    yield differs_in_file(net, last)
