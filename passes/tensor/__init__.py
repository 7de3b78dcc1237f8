"""Passes within the tensor dialect."""
