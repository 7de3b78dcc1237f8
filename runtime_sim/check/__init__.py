"""Proofs about a finished bmodel: its waits, its instructions, the client's contract."""
