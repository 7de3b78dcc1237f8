"""Conversion of arrays on lanes to the chip's instructions."""
