"""How tensor values and ops become buffers and instructions; used by the pass `tensor-to-chip`."""
