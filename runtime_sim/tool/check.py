"""`check`: whether runtime and chat programs can use a file."""

from __future__ import annotations

from argparse import Namespace

from compiler.bmodel import read_bmodel
from runtime_sim.check.contract import check_file
from runtime_sim.launch.embedding import NAME, table_problem
from runtime_sim.launch.loader import Program


def run(arguments: Namespace) -> int:
    bmodel = read_bmodel(arguments.file)
    program = Program(bmodel)
    problems = check_file(program, hashes=not arguments.no_hash)
    if table := table_problem(arguments.file.parent / "config" / NAME, bmodel):
        problems.append(table)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
        return 1
    instructions = sum(
        core.tiu_count + core.dma_count
        for net in program.bmodel.nets
        for stage in net.stages
        for core in stage.cores
    )
    print(f"sound: {len(program.bmodel.nets)} nets, waits proved for {instructions} instructions")
    if not bmodel.has_digest:
        print("no digest: whether its instructions are those that were written cannot be told")
    return 0
