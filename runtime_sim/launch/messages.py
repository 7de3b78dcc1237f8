"""How cores may use messages, as Sophgo's C-model has them: it aborts where this says that they may not.

A message is in use from its first send until all that the commands announce have waited for it. Sends and
waits of one use are equally many, and all name the same number of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.target.messages import message_of
from runtime_sim.launch.queues import Step
from runtime_sim.machine.errors import SimulationError


@dataclass
class Use:
    """One use of a message: its number, and the sends and waits that are still to come."""

    number: int
    members: int
    sends: int
    waits: int


class Messages:
    """The messages of a launch; tell it every step as it is done."""

    def __init__(self) -> None:
        self._open: dict[int, Use] = {}

    def visit(self, step: Step) -> None:
        """SimulationError where a send or a wait is one too many or disagrees with the others."""
        found = message_of(step.instruction)
        if found is None or step.meeting is None:
            return
        message, number = step.meeting
        members = found.members
        use = self._open.setdefault(message, Use(number, members, members, members))
        if use.number != number:
            raise SimulationError(f"{step}: message {message} is in use: {use.waits} have yet to wait for it")
        if use.members != members:
            raise SimulationError(f"{step}: message {message} is for {members}, elsewhere for {use.members}")
        if found.is_send:
            use.sends -= 1
        else:
            use.waits -= 1
        if min(use.sends, use.waits) < 0:
            raise SimulationError(f"{step}: more than {members} use message {message} at once")
        if use.sends == use.waits == 0:
            del self._open[message]

    def finish(self) -> None:
        """SimulationError when the next launch would find a message in use."""
        for message, use in self._open.items():
            missing = f"{use.sends} sends and {use.waits} waits are missing"
            raise SimulationError(f"message {message} is left in use: {missing}")
