"""Passes within the llm dialect."""
