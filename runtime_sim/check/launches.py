"""What launches one after the other must satisfy where several cores meet by messages.

Core 0 alone tells the runtime that a launch is done, and the next one may begin while another core still
waits for the last message. A message that is sent anew while some wait for it makes the C-model abort, so
no program begins with a message with which one ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compiler.target.messages import message_of
from runtime_sim.launch.loader import StageProgram


def launch_problems(stages: Sequence[StageProgram]) -> Iterator[str]:
    """Of programs that may run in any order, in sentences."""
    begins = {number: stage for stage in reversed(stages) for number in _numbers(stage, 0)}
    for stage in stages:
        for number in sorted(_numbers(stage, -1) & begins.keys()):
            ends = f"net {stage.name} ends with message {number}"
            yield f"{ends}, with which net {begins[number].name} begins: a core may still wait for it"


def _numbers(stage: StageProgram, which: int) -> set[int]:
    """The first or the last message of each core and engine."""
    queues = [stream for core in stage.cores for stream in (core.tiu, core.dma)]
    found = [[message for each in stream if (message := message_of(each))] for stream in queues]
    return {messages[which].number for messages in found if messages}
