"""Passes within the chip dialect."""
