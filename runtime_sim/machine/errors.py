"""What the simulator raises when a program does something the chip would not."""

from __future__ import annotations


class SimulationError(Exception):
    """A program cannot be executed: the message says what is wrong and in which instruction."""
