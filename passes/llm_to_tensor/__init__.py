"""Conversion of what a transformer says to arrays on lanes."""
