"""The simulator: what each op computes, what the bytes of a bmodel do, and how long they take."""
