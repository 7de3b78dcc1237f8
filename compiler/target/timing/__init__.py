"""How long a program takes, from its instructions alone: two estimates, and what it moves and computes.

`cycles` is one instruction, `estimate` the schedule of a program, `measure` the figures of a whole net.
Nothing that the program computes is computed; schedules and `bmodel_tool.py timing` use the same model.
"""

from compiler.target.timing.report import ModelTiming, NetTiming, Work, measure, total, work_of
from compiler.target.timing.schedule import Queues, Timeline, Track, cycles, estimate, estimate_cores

__all__ = [
    "ModelTiming",
    "NetTiming",
    "Queues",
    "Timeline",
    "Track",
    "Work",
    "cycles",
    "estimate",
    "estimate_cores",
    "measure",
    "total",
    "work_of",
]
