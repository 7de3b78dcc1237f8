"""Bits for each linear, chosen so that a file or the mean of its bits stays below a limit."""
